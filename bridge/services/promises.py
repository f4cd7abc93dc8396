"""When a visitor will be called: reckoned from who works, who waits and what is still to be called.

What was said is judged later by when the phone rang. A site that does not keep its word promises nothing until it does.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from bridge.domain import hours, promising
from bridge.domain.attempts import CallbackStatus
from bridge.services import budgets, calendars
from bridge.services.access import LEADERS, Access
from bridge.settings import Settings
from bridge.store.database import Sessions, changed
from bridge.store.models import Attempt, Call, Callback, Site
from bridge.store.queries import agents as agent_queries
from bridge.store.queries.switches import dialing_stopped

TOLERANCE = timedelta(seconds=60)
"""A time is told to the minute: a promise is kept if the phone rings before the minute after it."""
FARTHEST = timedelta(hours=2)
"""What lies beyond is a guess, and is not promised."""
_CALL_AGE = timedelta(hours=4)
"""A caller who waits longer than this was lost by the records, not by the queue."""
_MEASURED_LAST = timedelta(days=7)
_DAYS = 7
_SAMPLES = 100
_MEASURED_KEPT = timedelta(seconds=60)
_TOLD_KEPT = timedelta(seconds=5)
"""Strangers ask before they ask for a call: so long one answer is for all of them."""
_SET_UP_SECONDS = 10
"""From a free agent to the first dial, until enough were measured: the sweep's five seconds, and the dial itself."""
_WAITING = (str(CallbackStatus.QUEUED), str(CallbackStatus.SCHEDULED))


_Value = TypeVar("_Value")
_Place = tuple[str, str | None]
_Kept = WeakKeyDictionary[Any, dict[_Place, tuple[datetime, _Value]]]
"""By database, then by site and queue: what was found there, and when."""
_MOST_KEPT = 1000
_told: _Kept[datetime | None] = WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take here, in seconds. `lead` is from the moment an agent is free to the customer's phone."""

    handle: float
    lead: float


def promise(session: Session, settings: Settings, site: Site, queue: str | None, now: datetime) -> datetime | None:
    """When the phone of somebody who asks now will ring; None where nothing can be promised."""
    return expected(session, settings, site, queue, now) if is_believed(session, site.id) else None


def before_asking(
    sessions: Sessions, settings: Settings, site: Site, queue: str | None, now: datetime
) -> datetime | None:
    """What somebody would be promised who asks now. None where now is not offered, or no call would be made."""
    found = _recall(_told, sessions.engine, (site.id, queue), now, _TOLD_KEPT)
    if found is not None:
        return found[0]
    with sessions.read() as session:
        of = calendars.hours_of(session, site, queue)
        closed = of is not None and not hours.is_open(of.calendar, now)
        silent = site.test_mode or closed or budgets.was_spent(session, site, now)
        told = None if silent else promise(session, settings, site, queue, now)
    _keep(_told, sessions.engine, (site.id, queue), now, told)
    return told


def made(
    session: Session, settings: Settings, site: Site, queue: str | None, due: datetime, now: datetime
) -> dict[str, datetime | None]:
    """The columns of a new promise: a time that was chosen, else what is reckoned, told or not."""
    if due > now:
        return {"promised_at": due, "expected_at": due}
    at = expected(session, settings, site, queue, now)
    told = at is not None and is_believed(session, site.id)
    return {"promised_at": at if told else None, "expected_at": at}


def expected(session: Session, settings: Settings, site: Site, queue: str | None, now: datetime) -> datetime | None:
    """As `promise`, whatever became of the promises before."""
    pbx = agent_queries.site_pbx(site, settings)
    if pbx is None or settings.dialing.mode == "observe":
        return None
    floor = agent_queries.floor(session, pbx, settings, site.client_id)
    if floor.serving == 0 or dialing_stopped(session):
        return None
    pace = _pace(session, settings, site, queue, now)
    only = None if floor.shared else site.client_id
    ahead = _callers(session, pbx, only, now) + _callbacks_due(session, only, None, now)
    wait = promising.wait_seconds(floor.free, floor.serving, ahead, pace.handle)
    if wait:
        # Those who come due meanwhile stand before whoever asks now.
        ahead += _callbacks_due(session, only, now, now + min(timedelta(seconds=wait), FARTHEST))
        wait = promising.wait_seconds(floor.free, floor.serving, ahead, pace.handle)
    if wait is None or wait > FARTHEST.total_seconds():
        return None
    return now + timedelta(seconds=round(wait + pace.lead))


def is_believed(session: Session, site_id: str) -> bool:
    """Whether the site kept its promises lately; by `domain.promising.believed`."""
    judged = session.scalars(
        select(Callback.promise_kept)
        .where(Callback.site_id == site_id, Callback.promise_kept.is_not(None), Callback.wall_time.is_(None))
        .order_by(Callback.expected_at.desc())
        .limit(promising.REMEMBERED)
    )
    return promising.believed([bool(kept) for kept in judged][::-1])


# --- what became of it ---

_PROMISED = func.coalesce(Callback.promised_at, Callback.expected_at)
_OPEN = and_(Callback.expected_at.is_not(None), Callback.promise_kept.is_(None))


def rang(session: Session, callback_id: str, at: datetime) -> None:
    """The customer's phone rings; only the first time counts."""
    if changed(
        session,
        update(Callback).where(Callback.id == callback_id, Callback.rang_at.is_(None)).values(rang_at=at),
    ):
        called(session, callback_id, at)


def called(session: Session, callback_id: str, at: datetime) -> None:
    """The customer was called, reached or not; judges a promise that was not judged before."""
    session.execute(
        update(Callback)
        .where(Callback.id == callback_id, _OPEN)
        .values(promise_kept=at - TOLERANCE <= _PROMISED, expected_at=_PROMISED)
    )


def overdue(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Promises whose time is over and of which nothing was heard."""
    # `expected_at` alone is indexed. A visitor who moves the call to an earlier time is judged no sooner than by it.
    late = now - TOLERANCE
    return (_OPEN, Callback.expected_at < late, late > _PROMISED)


def judge(session: Session, callback_id: str, now: datetime) -> bool:
    """An overdue promise is broken, or is nobody's where the visitor took back the wish, or it was only a test."""
    nobodys = Callback.status.in_([str(CallbackStatus.CANCELLED), str(CallbackStatus.DONE)]) & (
        Callback.ended_at <= _PROMISED
    )
    return bool(
        changed(
            session,
            update(Callback)
            .where(Callback.id == callback_id, *overdue(now))
            .values(
                promise_kept=case((nobodys, None), else_=False),
                expected_at=case((nobodys, None), else_=_PROMISED),
            ),
        )
    )


def kept(session: Session, access: Access, since: datetime, days: int = _DAYS) -> list[dict[str, Any]]:
    """For each open site: promises kept and broken on the day that began at `since`, and on those before it."""
    access.require(LEADERS)
    statement = access.scope(select(Site.id, Site.name), Site.client_id)
    return [
        {
            "site_id": site,
            "site": name,
            "promising": is_believed(session, site),
            "days": [
                _of_day(session, site, since - timedelta(days=ago), since - timedelta(days=ago - 1))
                for ago in range(days)
            ],
        }
        for site, name in session.execute(statement.where(Site.active.is_(True)).order_by(Site.name)).all()
    ]


def counts(session: Session, now: datetime) -> list[tuple[str, int, int, bool]]:
    """For metrics: each site's promises kept and broken in the last day, and whether it promises."""
    found = []
    for site in session.scalars(select(Site.id).where(Site.active.is_(True)).order_by(Site.id)).all():
        day = _of_day(session, site, now - timedelta(days=1), now)
        found.append((site, day["kept"], day["broken"], is_believed(session, site)))
    return found


def _of_day(session: Session, site: str, since: datetime, until: datetime) -> dict[str, Any]:
    """By the day for which it was promised."""
    judged = session.execute(
        select(Callback.promise_kept, func.count())
        .where(
            Callback.site_id == site,
            Callback.promise_kept.is_not(None),
            Callback.expected_at >= since,
            Callback.expected_at < until,
        )
        .group_by(Callback.promise_kept)
    )
    numbers = {bool(good): int(count) for good, count in judged}
    good, bad = numbers.get(True, 0), numbers.get(False, 0)
    share = round(good / (good + bad), 4) if good + bad else None
    return {"since": since, "kept": good, "broken": bad, "share": share}


# --- who stands before ---


def _callers(session: Session, pbx: str, client: str | None, now: datetime) -> int:
    """People who wait in a queue of that PBX, for the client's agents where these serve nobody else."""
    statement = select(func.count()).where(
        Call.ended_at.is_(None),
        Call.started_at > now - _CALL_AGE,
        Call.queue.is_not(None),
        Call.connected_at.is_(None),
        Call.pbx == pbx,
    )
    if client is not None:
        statement = statement.where(or_(Call.client_id == client, Call.client_id.is_(None)))
    return int(session.scalar(statement) or 0)


def _callbacks_due(session: Session, client: str | None, after: datetime | None, until: datetime) -> int:
    """Callbacks of no attempt that are due then. One in an attempt has its agent."""
    wanted = select(Callback.id).where(
        Callback.status.in_(_WAITING), Callback.held_by.is_(None), Callback.due_at <= until
    )
    if after is not None:
        wanted = wanted.where(Callback.due_at > after)
    if client is not None:
        wanted = wanted.where(Callback.client_id == client)
    return int(session.scalar(select(func.count()).select_from(wanted.limit(promising.MOST_AHEAD + 1).subquery())) or 0)


# --- how long things take ---

_measured: _Kept[Pace] = WeakKeyDictionary()


def _pace(session: Session, settings: Settings, site: Site, queue: str | None, now: datetime) -> Pace:
    """Measured anew once a minute."""
    engine = session.get_bind().engine
    found = _recall(_measured, engine, (site.id, queue), now, _MEASURED_KEPT)
    if found is not None:
        return found[0]
    pace = Pace(_handle(session, site.client_id, queue, now), _lead(session, settings, site.id))
    _keep(_measured, engine, (site.id, queue), now, pace)
    return pace


def _handle(session: Session, client: str, queue: str | None, now: datetime) -> float:
    """What a conversation took lately: of that queue where there were enough, else of the client."""
    statement = (
        select(Call.talk_ms, Call.ended_at, Call.disposed_at)
        .where(Call.client_id == client, Call.started_at > now - _MEASURED_LAST, Call.talk_ms > 0)
        .where(Call.agent_id.is_not(None), Call.direction != "internal")
        .order_by(Call.started_at.desc())
        .limit(_SAMPLES)
    )
    for one in [statement.where(Call.queue == queue), statement] if queue is not None else [statement]:
        rows = session.execute(one).all()
        if len(rows) >= promising.ENOUGH:
            talk = sum(row.talk_ms for row in rows) / len(rows) / 1000
            notes = [
                max((row.disposed_at - row.ended_at).total_seconds(), 0.0)
                for row in rows
                if row.disposed_at is not None and row.ended_at is not None
            ]
            # Notes written the next morning are no wrap-up: the middle one stands for all.
            wrap = promising.quantile(notes, 0.5) if len(notes) >= promising.ENOUGH else promising.WRAP_SECONDS
            return float(talk + wrap)
    return promising.HANDLE_SECONDS


def _lead(session: Session, settings: Settings, site_id: str) -> float:
    """From the claim of an agent to the customer's phone, as it was lately at this site."""
    rows = session.execute(
        select(Callback.id, Callback.rang_at, Attempt.claimed_at)
        .join(Attempt, Attempt.callback_id == Callback.id)
        .where(Callback.site_id == site_id, Callback.promise_kept.is_not(None), Callback.rang_at.is_not(None))
        .order_by(Callback.expected_at.desc())
        .limit(_SAMPLES)
    )
    leads: dict[str, float] = {}
    for callback, at, claimed in rows:
        if at is not None and claimed is not None and claimed <= at:
            seconds = (at - claimed).total_seconds()
            leads[callback] = min(seconds, leads.get(callback, seconds))
    if len(leads) >= promising.ENOUGH:
        return promising.quantile(list(leads.values())) + 5
    return settings.dialing.agent_ring_seconds + _SET_UP_SECONDS


# --- what is kept for a while ---


def _recall(
    kept: _Kept[_Value], engine: object, place: _Place, now: datetime, span: timedelta
) -> tuple[_Value] | None:
    """What was found there lately, if anything; it may be None itself."""
    with _lock:
        found = kept.setdefault(engine, {}).get(place)
    return (found[1],) if found is not None and abs(now - found[0]) < span else None


def _keep(kept: _Kept[_Value], engine: object, place: _Place, now: datetime, value: _Value) -> None:
    with _lock:
        places = kept.setdefault(engine, {})
        # Strangers name the queue: what they name must not grow without end.
        if len(places) >= _MOST_KEPT:
            places.clear()
        places[place] = (now, value)
