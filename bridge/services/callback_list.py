"""Callbacks as supervisors see them: found by day, site, state or number, with every attempt and its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select
from sqlalchemy.orm import Session

from bridge.domain.attempts import AttemptState
from bridge.domain.errors import Invalid
from bridge.domain.numbers import NumberInvalid, is_typed, parse_number
from bridge.domain.reasons import words_of
from bridge.services import audit
from bridge.services.access import LEADERS, Access
from bridge.services.paging import MOST, page_of
from bridge.store.models import Agent, AgentState, Attempt, AttemptChange, Callback, Client, Site

EXPORT_MOST = 10_000
"""Rows of one export."""
_ENDING_DIGITS = 4
"""Digits of a number's end by which it can be searched."""
_RANG = frozenset({AttemptState.RINGING, AttemptState.ANSWERED, AttemptState.CONNECTED})


class TooManyRows(Invalid):
    """So many callbacks do not fit in one export; choose a day or a site."""

    code = "too_many_rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which callbacks; what is None does not matter. `number` as a person writes it, or the end of one."""

    day: date | None = None
    timezone: ZoneInfo | None = None
    client_id: str | None = None
    site_id: str | None = None
    statuses: Sequence[str] = ()
    source: str | None = None
    assigned_to: str | None = None
    number: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A page of rows, and how many there are by status, whichever status was asked for (the first page alone)."""

    rows: list[dict[str, Any]]
    cursor: str | None
    counts: dict[str, int] | None


def find(db: Session, access: Access, wanted: Wanted, limit: int, cursor: str | None) -> Found:
    """A page, those asked for last first. Raises Invalid for a number or a cursor that is none."""
    access.require(LEADERS)
    anyhow = _conditions(db, access, wanted)
    page = page_of(db, _of_status(access, anyhow, wanted), Callback.created_at, Callback.id, limit, cursor)
    counts: dict[str, int] | None = None
    if cursor is None:
        by_status = select(Callback.status, func.count()).where(*anyhow).group_by(Callback.status)
        counts = dict(db.execute(access.scope(by_status, Callback.client_id)).all())
    return Found(_shown(db, page.rows), page.cursor, counts)


def begin_export(db: Session, access: Access, wanted: Wanted, now: datetime) -> None:
    """Write into the audit log who takes callbacks away. Raises TooManyRows, and what `find` raises."""
    access.require(LEADERS)
    statement = _of_status(access, _conditions(db, access, wanted), wanted)
    count = db.scalar(select(func.count()).select_from(statement.subquery())) or 0
    if count > EXPORT_MOST:
        raise TooManyRows(
            f"these are {count} callbacks, and one export holds {EXPORT_MOST}; choose a day or a site",
            field="day",
        )
    detail: dict[str, Any] = {"rows": count, "status": list(wanted.statuses)}
    if wanted.day is not None:
        detail["day"] = wanted.day.isoformat()
    if wanted.number is not None:
        detail["number"] = wanted.number
    audit.record(db, now, access.username, "callbacks.export", wanted.site_id or "", wanted.client_id, detail)


def export(db: Session, access: Access, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """The rows of `find`, all of them, read a page at a time."""
    statement = _of_status(access, _conditions(db, access, wanted), wanted)
    cursor: str | None = None
    while True:
        page = page_of(db, statement, Callback.created_at, Callback.id, MOST, cursor)
        yield from _shown(db, page.rows)
        # Else every row of a long export would stay in memory.
        db.expunge_all()
        cursor = page.cursor
        if cursor is None:
            return


def _of_status(access: Access, anyhow: list[ColumnElement[bool]], wanted: Wanted) -> Select[Any]:
    statement = access.scope(select(Callback), Callback.client_id).where(*anyhow)
    return statement.where(Callback.status.in_(wanted.statuses)) if wanted.statuses else statement


def _conditions(db: Session, access: Access, wanted: Wanted) -> list[ColumnElement[bool]]:
    """Everything but the status."""
    found: list[ColumnElement[bool]] = []
    if wanted.day is not None:
        found.append(_of_day(wanted.day, wanted.timezone or ZoneInfo("UTC")))
    for column, value in (
        (Callback.client_id, wanted.client_id),
        (Callback.site_id, wanted.site_id),
        (Callback.source, wanted.source),
        (Callback.assigned_to, wanted.assigned_to),
    ):
        if value is not None:
            found.append(column == value)
    if wanted.number is not None:
        found.append(_numbered(db, access, wanted, wanted.number))
    return found


def _of_day(day: date, zone: ZoneInfo) -> ColumnElement[bool]:
    """Asked for or ended on that day, or open on it and due by its end: what was overdue then is of that day too."""
    try:
        begins = datetime.combine(day, time.min, zone).astimezone(UTC)
        ends = datetime.combine(day + timedelta(days=1), time.min, zone).astimezone(UTC)
    except OverflowError:
        raise Invalid("this day is outside the years that clocks know", field="day") from None
    open_then = and_(
        Callback.created_at < ends,
        Callback.due_at < ends,
        or_(Callback.ended_at.is_(None), Callback.ended_at >= ends),
    )
    return or_(
        and_(Callback.created_at >= begins, Callback.created_at < ends),
        and_(Callback.ended_at >= begins, Callback.ended_at < ends),
        open_then,
    )


def _numbered(db: Session, access: Access, wanted: Wanted, text: str) -> ColumnElement[bool]:
    """The number as somebody of one of these clients' regions writes it, else its end. Raises NumberInvalid."""
    statement = access.scope(select(Client.region), Client.id)
    if wanted.client_id is not None:
        statement = statement.where(Client.id == wanted.client_id)
    if not is_typed(text):
        raise NumberInvalid(
            "search for a number in digits, with or without its country code, or for its last four digits",
            field="number",
        )
    numbers: set[str] = set()
    for region in set(db.scalars(statement)) | {"ZZ"}:
        try:
            numbers.add(parse_number(text, region))
        except Invalid:
            continue
    if numbers:
        return Callback.number.in_(numbers)
    digits = "".join(char for char in text if char.isascii() and char.isdigit())
    if len(digits) < _ENDING_DIGITS:
        raise NumberInvalid("type the whole number, or at least its last four digits", field="number")
    # Digits alone: nothing of it means anything to LIKE. A national number begins with zeros that E.164 has not.
    ending = digits.lstrip("0") if not text.strip().startswith("+") and len(digits) > 2 * _ENDING_DIGITS else digits
    return Callback.number.like(f"%{ending}") if ending else false()


def _shown(db: Session, rows: Sequence[Callback]) -> list[dict[str, Any]]:
    if not rows:
        return []
    ids = [row.id for row in rows]
    tries = list(db.scalars(select(Attempt).where(Attempt.callback_id.in_(ids)).order_by(Attempt.created_at)))
    moments = _moments(db, [attempt.id for attempt in tries])
    people = {attempt.agent_id for attempt in tries} | {row.assigned_to for row in rows}
    agents = _agents(db, [agent for agent in people if agent is not None])
    sites = dict(db.execute(select(Site.id, Site.name).where(Site.id.in_({row.site_id for row in rows}))).all())
    clients = dict(
        db.execute(select(Client.id, Client.name).where(Client.id.in_({row.client_id for row in rows}))).all()
    )
    anew = select(Callback.requeued_from, Callback.id).where(Callback.requeued_from.in_(ids))
    again: dict[str | None, str] = dict(db.execute(anew).all())
    by_callback: dict[str | None, list[dict[str, Any]]] = {}
    for attempt in tries:
        shown = _attempt(attempt, agents, *moments.get(attempt.id, (None, None)))
        by_callback.setdefault(attempt.callback_id, []).append(shown)
    return [
        _row(row, sites, clients, agents, again.get(row.id), by_callback.get(row.id, [])) for row in rows
    ]


def _row(
    row: Callback,
    sites: dict[str, str],
    clients: dict[str, str],
    agents: dict[str, dict[str, Any]],
    again: str | None,
    tried: list[dict[str, Any]],
) -> dict[str, Any]:
    words = words_of(row.reason)
    rang = [attempt["rang_at"] for attempt in tried if attempt["rang_at"] is not None]
    connected = [attempt["connected_at"] for attempt in tried if attempt["connected_at"] is not None]
    own = ("id", "client_id", "site_id", "source", "number", "name", "note", "queue", "status", "reason", "tries")
    times = ("created_at", "due_at", "promised_at", "expires_at", "ended_at")
    return {
        **{name: getattr(row, name) for name in (*own, *times)},
        "site": sites.get(row.site_id, ""),
        "client": clients.get(row.client_id, ""),
        "rang_at": min(rang, default=None),
        "connected_at": min(connected, default=None),
        "reason_text": words.said,
        "next_step": words.next,
        "assigned_to": row.assigned_to,
        "assigned": None if row.assigned_to is None else agents.get(row.assigned_to, _NOBODY),
        "requeued_from": row.requeued_from,
        "requeued_as": again,
        "attempts": tried,
    }


_NOBODY = {"name": "", "state": "gone"}


def _attempt(
    attempt: Attempt, agents: dict[str, dict[str, Any]], rang_at: datetime | None, connected_at: datetime | None
) -> dict[str, Any]:
    words = words_of(attempt.reason)
    agent = agents.get(attempt.agent_id or "", _NOBODY)
    return {
        "id": attempt.id,
        "state": attempt.state,
        "reason": attempt.reason,
        "reason_text": words.said,
        "agent_id": attempt.agent_id,
        "agent": agent["name"],
        "began_at": attempt.claimed_at or attempt.created_at,
        "rang_at": rang_at,
        "connected_at": connected_at,
        "ended_at": attempt.ended_at,
        "call_id": attempt.call_id,
    }


def _moments(db: Session, attempts: Sequence[str]) -> dict[str, tuple[datetime | None, datetime | None]]:
    """When each attempt first rang at the customer's, and when it was connected."""
    rang: dict[str, datetime] = {}
    connected: dict[str, datetime] = {}
    statement = (
        select(AttemptChange.attempt_id, AttemptChange.new, AttemptChange.at)
        .where(AttemptChange.attempt_id.in_(attempts), AttemptChange.new.in_([str(state) for state in _RANG]))
        .order_by(AttemptChange.at)
    )
    for attempt, state, at in db.execute(statement):
        rang.setdefault(attempt, at)
        if state == AttemptState.CONNECTED:
            connected.setdefault(attempt, at)
    return {attempt: (at, connected.get(attempt)) for attempt, at in rang.items()}


def _agents(db: Session, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Name and state by id; "gone" for one who may not work any more."""
    statement = (
        select(Agent.id, Agent.name, Agent.active, AgentState.state)
        .outerjoin(AgentState, AgentState.agent_id == Agent.id)
        .where(Agent.id.in_(ids))
    )
    return {
        agent: {"name": name, "state": (state or "offline") if active else "gone"}
        for agent, name, active, state in db.execute(statement)
    }
