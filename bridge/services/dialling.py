"""From a callback that is due to a command in the mailbox. Dials nothing: the listener does.

Whether a callback may be dialled is judged here, when the job runs, whatever was judged when it was accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from redis import Redis
from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from bridge.domain.attempts import CALLBACK_ENDED, AttemptState, CallbackStatus
from bridge.domain.errors import Invalid
from bridge.live import mailbox
from bridge.live.connection import DOWN
from bridge.services import audit, budgets, calendars, callback_states, line, news, number_limits, phoned
from bridge.services.permission import check_number
from bridge.services.site_limits import site_limits
from bridge.settings import Settings
from bridge.store.database import Sessions, changed
from bridge.store.models import (
    Agent,
    AgentState,
    Attempt,
    AttemptChange,
    Callback,
    Client,
    NumberLock,
    Site,
    new_id,
)
from bridge.store.queries.agents import can_be_assigned, free, may_be_tried, ready_agents, site_pbx
from bridge.store.queries.leases import link_is_up
from bridge.store.queries.switches import dialing_stopped

log = structlog.get_logger(__name__)
_CANDIDATES = 5
_DEADLINE_MARGIN = timedelta(seconds=2)
"""SQL's deadline is judged by this machine's clock, the mailbox's by Redis'; the UPDATE that counts decides."""


class Claimed(StrEnum):
    """What became of a claim."""

    YES = "claimed"
    GONE = "gone"
    """Ended, held by another attempt, or never there."""
    NOT_DUE = "not_due"
    CLOSED = "closed"
    """Outside opening hours; it waits for the next open one."""
    EXPIRED = "expired"
    REFUSED = "refused"
    """Policy says never; the callback has failed with the reason."""
    TEST_MODE = "test_mode"
    STOPPED = "stopped"
    PBX_DOWN = "pbx_down"
    NUMBER_LOCKED = "number_locked"
    NO_AGENT = "no_agent"
    BUDGET_SPENT = "budget_spent"
    """No room in a day's budget; it is looked at again later."""
    NOT_ITS_TURN = "not_its_turn"
    """Whoever is free is for those who wait before it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`attempt` and `pbx` are set where the claim was won."""

    result: Claimed
    attempt: str | None = None
    pbx: str | None = None


class _Lost(Exception):
    """A conditional UPDATE counted 0: everything of this claim is taken back."""

    def __init__(self, result: Claimed) -> None:
        self.result = result


def dial(sessions: Sessions, redis: Redis, settings: Settings, callback_id: str, *, now: datetime) -> Claim:
    """Claim a callback and put its dial into the mailbox; the whole of a dial job.

    A Redis that is down leaves the attempt claimed: the sweep ends it as never sent. Raises Unavailable.
    """
    found = claim(sessions, redis, settings, callback_id, now=now)
    if found.attempt is not None and found.pbx is not None:
        try:
            mailbox.send(
                redis,
                found.pbx,
                mailbox.Kind.DIAL,
                {"attempt": found.attempt},
                settings.dialing.command_deadline_seconds,
            )
        except DOWN as error:
            log.warning("dial not sent", attempt=found.attempt, error=type(error).__name__)
    log.info("claim", callback=callback_id, result=str(found.result), attempt=found.attempt)
    return found


def claim(sessions: Sessions, redis: Redis, settings: Settings, callback_id: str, *, now: datetime) -> Claim:
    """Reserve agent, number and callback for one new attempt, in one transaction; all of them or none."""
    try:
        with sessions.begin() as session:
            found = _claim(session, settings, callback_id, now)
    except _Lost as lost:
        return Claim(lost.result)
    news.publish(redis, session)
    return found


def _claim(session: Session, settings: Settings, callback_id: str, now: datetime) -> Claim:
    row = session.get(Callback, callback_id, with_for_update=True)
    if row is None or row.held_by is not None or CallbackStatus(row.status) in CALLBACK_ENDED:
        return Claim(Claimed.GONE)
    site = session.get(Site, row.site_id)
    early = _judge(session, settings, row, site, now)
    if early is not None or site is None:
        return Claim(early or Claimed.GONE)
    pbx = site_pbx(site, settings)
    if settings.dialing.mode == "observe" or dialing_stopped(session):
        return Claim(Claimed.STOPPED)
    if pbx is None or not link_is_up(session, pbx, now):
        return Claim(Claimed.PBX_DOWN)
    _check_assigned(session, row, now)
    if not line.may_be_called(session, settings, row, site, pbx, now):
        anyone = ready_agents(session, pbx, settings, site.client_id, 1)
        return Claim(Claimed.NOT_ITS_TURN if anyone else Claimed.NO_AGENT)
    attempt = new_id()
    agent = _reserve_agent(session, settings, pbx, site, attempt, row.assigned_to)
    if agent is None:
        return Claim(Claimed.NO_AGENT)
    # Whoever is free takes a customer who waits in a queue; an agent is kept, so that no more are called than are free.
    queue = line.queue_for(row, site)
    agent_first = site.order == "agent_first"
    _hold(session, row, attempt, agent_first=agent_first)
    _lock_number(session, row.number, attempt, now)
    if not budgets.reserve(session, settings, site, row.number, attempt, now):
        raise _Lost(Claimed.BUDGET_SPENT)
    deadline = timedelta(seconds=settings.dialing.command_deadline_seconds) + _DEADLINE_MARGIN
    session.add(
        Attempt(
            id=attempt,
            created_at=now,
            client_id=row.client_id,
            callback_id=row.id,
            pbx=pbx,
            agent_id=agent.agent_id if queue is None else None,
            agent_device=agent.device if queue is None else None,
            number=row.number,
            caller_id=site.caller_id,
            agent_first=agent_first,
            state=str(AttemptState.CLAIMED),
            claimed_at=now,
            deadline_at=now + deadline,
        )
    )
    session.flush()
    session.add(
        AttemptChange(attempt_id=attempt, at=now, old=str(AttemptState.DUE), new=str(AttemptState.CLAIMED))
    )
    session.refresh(row)
    news.note_callback(session, row)
    return Claim(Claimed.YES, attempt, pbx)


def _judge(
    session: Session, settings: Settings, row: Callback, site: Site | None, now: datetime
) -> Claimed | None:
    """Policy that needs neither agent nor number; None where the callback may be dialled."""
    if site is None or not site.active or not session.get_one(Client, site.client_id).active:
        _end(session, row, CallbackStatus.FAILED, "site_closed", now)
        return Claimed.REFUSED
    # The zone's rules may have changed since it was accepted; what was asked for is the wall time.
    calendars.retime(session, row)
    if row.expires_at <= now:
        _end(session, row, CallbackStatus.EXPIRED, row.reason or "not_reached_in_time", now)
        return Claimed.EXPIRED
    if row.due_at > now:
        return Claimed.NOT_DUE
    if calendars.postpone(session, row, site, now):
        return Claimed.CLOSED
    try:
        check_number(session, settings, site, row.number)
    except Invalid as error:
        _end(session, row, CallbackStatus.FAILED, error.code, now)
        return Claimed.REFUSED
    if number_limits.reached(session, site, row.number, now):
        _end(session, row, CallbackStatus.FAILED, number_limits.NUMBER_LIMIT, now)
        return Claimed.REFUSED
    if row.tries >= site_limits(site)["tries"]:
        _end(session, row, CallbackStatus.FAILED, row.reason or "no_more_tries", now)
        return Claimed.REFUSED
    if site.test_mode:
        _end(session, row, CallbackStatus.DONE, "test_mode", now)
        return Claimed.TEST_MODE
    early = _judge_caller(session, row, now)
    if early is not None:
        return early
    return Claimed.BUDGET_SPENT if budgets.postpone(session, settings, row, site, now) else None


def _judge_caller(session: Session, row: Callback, now: datetime) -> Claimed | None:
    """Whoever called us may have called again since: they are not called back while they are here, nor once served."""
    if row.source == phoned.WEB:
        return None
    if phoned.got_through(session, row.client_id, row.number, row.joined_at or row.created_at):
        _end(session, row, CallbackStatus.CANCELLED, phoned.GOT_THROUGH, now)
        return Claimed.REFUSED
    if phoned.on_the_line(session, row.client_id, row.number, now):
        return Claimed.NUMBER_LOCKED
    return None


def _end(session: Session, row: Callback, status: CallbackStatus, reason: str, now: datetime) -> None:
    waiting = (Callback.held_by.is_(None), Callback.status.not_in([str(s) for s in CALLBACK_ENDED]))
    callback_states.change(session, row.id, status, *waiting, reason=reason, ended_at=now)


def _check_assigned(session: Session, row: Callback, now: datetime) -> None:
    """Give a callback back to anyone whose own agent has left, or works for another client now: it must not wait for
    nobody."""
    if row.assigned_to is None or can_be_assigned(session.get(Agent, row.assigned_to), row.client_id):
        return
    detail = {"agent": row.assigned_to}
    audit.record(session, now, audit.OURSELVES, "callbacks.unassign", row.id, row.client_id, detail)
    row.assigned_to = None
    session.flush()
    news.note_callback(session, row)


def _reserve_agent(
    session: Session, settings: Settings, pbx: str, site: Site, attempt: str, only: str | None
) -> AgentState | None:
    for candidate in ready_agents(session, pbx, settings, site.client_id, _CANDIDATES, only):
        if changed(
            session,
            update(AgentState)
            .where(AgentState.agent_id == candidate.agent_id, free())
            .values(reserved_by=attempt),
        ):
            return candidate
    return None


def _hold(session: Session, row: Callback, attempt: str, *, agent_first: bool) -> None:
    status = CallbackStatus.CALLING_AGENT if agent_first else CallbackStatus.CALLING_CUSTOMER
    waiting = (
        Callback.held_by.is_(None),
        Callback.status.in_([str(CallbackStatus.SCHEDULED), str(CallbackStatus.QUEUED)]),
    )
    if not callback_states.change(session, row.id, status, *waiting, held_by=attempt, reason=None):
        raise _Lost(Claimed.GONE)


def _lock_number(session: Session, number: str, attempt: str, now: datetime) -> None:
    session.execute(delete(NumberLock).where(NumberLock.number == number, NumberLock.expires_at <= now))
    dialect = session.get_bind().dialect.name
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(NumberLock)
    won = changed(
        session,
        insert.values(number=number, attempt_id=attempt, since=now).on_conflict_do_nothing(),
    )
    if not won:
        raise _Lost(Claimed.NUMBER_LOCKED)


def due_condition(now: datetime) -> tuple[object, ...]:
    """Callbacks that may be claimed now."""
    return (
        Callback.status.in_([str(CallbackStatus.SCHEDULED), str(CallbackStatus.QUEUED)]),
        Callback.due_at <= now,
        Callback.held_by.is_(None),
        or_(Callback.queued_at.is_(None), Callback.queued_at <= now - timedelta(seconds=5)),
    )


def may_dial(session: Session, settings: Settings) -> bool:
    """Whether anything may be dialled at all."""
    return settings.dialing.mode != "observe" and not dialing_stopped(session)


def waiting(session: Session, now: datetime, limit: int, *, test_mode: bool) -> list[Callback]:
    """Callbacks that are due and in no job's hands, in the order of the line, of sites in test mode or of others."""
    statement = (
        select(Callback)
        .join(Site, Site.id == Callback.site_id)
        .where(Site.test_mode == test_mode, *due_condition(now))  # type: ignore[arg-type]
        .order_by(line.JOINED)
        .limit(limit)
    )
    if not test_mode:
        statement = statement.where(may_be_tried())
    return list(session.scalars(statement))
