"""The sweep: whatever a crash, a flush or a lost command left behind is found in SQL and put right.

Every step is a conditional UPDATE in a transaction of its own, so that two sweeps at once do no harm
and one bad row does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from redis import Redis
from sqlalchemy import and_, case, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from bridge.domain.attempts import CALLBACK_ENDED, ENDED, AttemptState, CallbackStatus
from bridge.domain.errors import StateError
from bridge.live import jobs
from bridge.services import attempts, calendars, callback_states, news, promises, zone_rules
from bridge.services.attempts import HANGUP_GRACE
from bridge.services.callbacks import DIAL_JOB
from bridge.services.dialling import may_dial, waiting
from bridge.settings import Settings
from bridge.store.database import Sessions, changed
from bridge.store.models import AgentState, Attempt, Callback, NumberLock, Site
from bridge.store.queries import counters, keys
from bridge.store.queries.agents import free_count

log = structlog.get_logger(__name__)
_STALE_RINGING = timedelta(minutes=10)
"""No leg rings this long: a dial without news since then has an unknown outcome."""
_STALE_TALK = timedelta(hours=12)
_BATCH = 200
_KEYS_KEPT = timedelta(hours=24)
_COUNTERS_KEPT = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Swept:
    """How many of each were put right."""

    expired: int = 0
    never_sent: int = 0
    unknown: int = 0
    freed: int = 0
    broken: int = 0
    wrapped_up: int = 0
    retimed: int = 0
    postponed: int = 0
    came_due: int = 0
    enqueued: int = 0


def sweep(sessions: Sessions, redis: Redis, settings: Settings, *, now: datetime) -> Swept:
    """Find and put right what no job, listener or recorder will. Raises Unavailable."""
    found = Swept(
        never_sent=_never_sent(sessions, redis, now),
        unknown=_unknown(sessions, redis, now),
        freed=_free(sessions, now),
        broken=_broken(sessions, redis, now),
        wrapped_up=_wrapped_up(sessions, redis, settings, now),
        retimed=_retime(sessions, redis),
        postponed=_postpone(sessions, redis, now),
        expired=_expire(sessions, redis, now),
        came_due=_come_due(sessions, redis, now),
        enqueued=_enqueue(sessions, redis, settings, now),
    )
    if found != Swept():
        log.info("swept", **{name: getattr(found, name) for name in Swept.__slots__})
    return found


def tidy(sessions: Sessions, *, now: datetime) -> None:
    """Drop what has served its time: idempotency keys after a day, counters after two."""
    with sessions.begin() as session:
        keys.forget_before(session, now - _KEYS_KEPT)
        counters.forget_before(session, now - _COUNTERS_KEPT)


def _each(
    sessions: Sessions,
    redis: Redis,
    condition: Callable[[Session], list[str]],
    act: Callable[[Session, str], bool],
) -> int:
    """Run `act` on each id that `condition` finds, each in its own transaction; counts those it changed."""
    with sessions.read() as session:
        ids = condition(session)
    count = 0
    for row_id in ids:
        try:
            with sessions.begin() as session:
                count += act(session, row_id)
        except StateError:
            # Somebody moved it meanwhile; it is no longer ours to end.
            continue
        news.publish(redis, session)
    return count


def _never_sent(sessions: Sessions, redis: Redis, now: datetime) -> int:
    """Claimed, and no listener took the command in time: whoever's UPDATE counts wins."""
    condition = and_(Attempt.state == str(AttemptState.CLAIMED), Attempt.deadline_at <= now)

    def find(session: Session) -> list[str]:
        return list(session.scalars(select(Attempt.id).where(condition).limit(_BATCH)))

    def act(session: Session, attempt: str) -> bool:
        still = session.scalar(select(Attempt.id).where(Attempt.id == attempt, condition).with_for_update())
        return still is not None and attempts.move(
            session, attempt, AttemptState.FAILED, "never_sent", now=now
        )

    return _each(sessions, redis, find, act)


def _unknown(sessions: Sessions, redis: Redis, now: datetime) -> int:
    """Dials that went silent become uncertain; what nobody reconciled in time counts as a try of unknown outcome."""

    def find_silent(session: Session) -> list[str]:
        quiet = [str(s) for s in (AttemptState.DIALING, AttemptState.RINGING, AttemptState.ANSWERED)]
        return list(
            session.scalars(
                select(Attempt.id)
                .where(
                    or_(
                        and_(Attempt.state.in_(quiet), Attempt.claimed_at <= now - _STALE_RINGING),
                        and_(
                            Attempt.state == str(AttemptState.CONNECTED),
                            Attempt.claimed_at <= now - _STALE_TALK,
                        ),
                    )
                )
                .limit(_BATCH)
            )
        )

    def find_unreconciled(session: Session) -> list[str]:
        locked = exists().where(
            NumberLock.attempt_id == Attempt.id,
            or_(NumberLock.expires_at.is_(None), NumberLock.expires_at > now),
        )
        return list(
            session.scalars(
                select(Attempt.id).where(Attempt.state == str(AttemptState.UNCERTAIN), ~locked).limit(_BATCH)
            )
        )

    silent = _each(
        sessions,
        redis,
        find_silent,
        lambda session, attempt: attempts.move(session, attempt, AttemptState.UNCERTAIN, "no_news", now=now),
    )
    return silent + _each(
        sessions,
        redis,
        find_unreconciled,
        lambda session, attempt: attempts.move(
            session, attempt, AttemptState.FAILED, "outcome_unknown", now=now
        ),
    )


def _free(sessions: Sessions, now: datetime) -> int:
    """Numbers whose lock has run out, and agents that an ended attempt still holds."""
    ended = [str(state) for state in ENDED]
    lapsed = and_(NumberLock.expires_at.is_not(None), NumberLock.expires_at <= now)
    over = (
        select(Attempt.id)
        .where(
            Attempt.id == AgentState.reserved_by,
            Attempt.state.in_(ended),
            # A cancelled dial may ring for a moment longer.
            Attempt.ended_at <= now - HANGUP_GRACE,
        )
        .exists()
    )
    unknown = ~select(Attempt.id).where(Attempt.id == AgentState.reserved_by).exists()
    held = and_(AgentState.reserved_by.is_not(None), or_(over, unknown))
    with sessions.read() as session:
        idle = (
            session.scalar(select(NumberLock.number).where(lapsed).limit(1)) is None
            and session.scalar(select(AgentState.agent_id).where(held).limit(1)) is None
        )
    if idle:
        return 0
    with sessions.begin() as session:
        locks = changed(session, delete(NumberLock).where(lapsed))
        return locks + changed(session, update(AgentState).where(held).values(reserved_by=None))


def _broken(sessions: Sessions, redis: Redis, now: datetime) -> int:
    """Promises whose time is over: the visitor sits there, and no phone rings."""

    def find(session: Session) -> list[str]:
        return list(session.scalars(select(Callback.id).where(*promises.overdue(now)).limit(_BATCH)))

    return _each(sessions, redis, find, lambda session, callback: promises.judge(session, callback, now))


def _wrapped_up(sessions: Sessions, redis: Redis, settings: Settings, now: datetime) -> int:
    """Agents whose wrap-up has lasted long enough: one that never ends takes them from every queue and promise."""
    if not settings.dialing.wrapup_seconds:
        return 0
    over = and_(
        AgentState.state == "wrapup",
        AgentState.live_calls == 0,
        AgentState.since <= now - timedelta(seconds=settings.dialing.wrapup_seconds),
    )

    def find(session: Session) -> list[str]:
        return list(session.scalars(select(AgentState.agent_id).where(over).limit(_BATCH)))

    def act(session: Session, agent: str) -> bool:
        won = changed(
            session,
            update(AgentState)
            .where(AgentState.agent_id == agent, over)
            .values(state="ready", reason=None, since=now),
        )
        row = session.get(AgentState, agent, populate_existing=True)
        if won and row is not None:
            news.note_agent(session, row)
        return bool(won)

    return _each(sessions, redis, find, act)


def _retime(sessions: Sessions, redis: Redis) -> int:
    """Callbacks of a chosen time, reckoned by other rules of their zone than those installed now."""
    rules = zone_rules.refresh()
    condition = and_(
        Callback.status == str(CallbackStatus.SCHEDULED),
        Callback.held_by.is_(None),
        Callback.wall_time.is_not(None),
        Callback.timezone.is_not(None),
        or_(Callback.tzdata.is_(None), Callback.tzdata != rules),
    )

    def find(session: Session) -> list[str]:
        return list(session.scalars(select(Callback.id).where(condition).limit(_BATCH)))

    def act(session: Session, callback: str) -> bool:
        row = session.scalar(select(Callback).where(Callback.id == callback, condition).with_for_update())
        return row is not None and calendars.retime(session, row)

    return _each(sessions, redis, find, act)


def _postpone(sessions: Sessions, redis: Redis, now: datetime) -> int:
    """Callbacks that are due in closed hours, before their wait there could make them expire."""
    due = and_(
        Callback.status.in_([str(CallbackStatus.SCHEDULED), str(CallbackStatus.QUEUED)]),
        Callback.due_at <= now,
        Callback.expires_at > now,
        Callback.held_by.is_(None),
    )

    def find(session: Session) -> list[str]:
        # Few sites, however many callbacks wait; a site without a calendar is never closed.
        kept = or_(Site.calendar_id.is_not(None), Callback.queue.is_not(None))
        pairs = session.execute(
            select(Callback.site_id, Callback.queue)
            .join(Site, Site.id == Callback.site_id)
            .where(due, kept)
            .distinct()
        )
        closed = calendars.closed_queues(session, [(site, queue) for site, queue in pairs], now)
        found: list[str] = []
        for site, queue in closed:
            same = Callback.queue.is_(None) if queue is None else Callback.queue == queue
            of_site = and_(due, Callback.site_id == site, same)
            found += session.scalars(select(Callback.id).where(of_site).limit(_BATCH))
        return found

    def act(session: Session, callback: str) -> bool:
        row = session.scalar(select(Callback).where(Callback.id == callback, due).with_for_update())
        site = session.get(Site, row.site_id) if row is not None else None
        if row is None or site is None:
            return False
        return calendars.postpone(session, row, site, now) and row.due_at > now

    return _each(sessions, redis, find, act)


def _expire(sessions: Sessions, redis: Redis, now: datetime) -> int:
    condition = and_(
        Callback.expires_at <= now,
        Callback.held_by.is_(None),
        Callback.status.not_in([str(s) for s in CALLBACK_ENDED]),
    )

    def find(session: Session) -> list[str]:
        return list(session.scalars(select(Callback.id).where(condition).limit(_BATCH)))

    def act(session: Session, callback: str) -> bool:
        row = session.get(Callback, callback, with_for_update=True)
        if row is None:
            return False
        why = row.reason or "not_reached_in_time"
        return callback_states.change(session, callback, CallbackStatus.EXPIRED, condition, reason=why, ended_at=now)

    return _each(sessions, redis, find, act)


def _come_due(sessions: Sessions, redis: Redis, now: datetime) -> int:
    """A chosen time has come: the visitor waits in the queue now, agent or not."""
    condition = and_(
        Callback.status == str(CallbackStatus.SCHEDULED),
        Callback.due_at <= now,
        Callback.held_by.is_(None),
    )

    def find(session: Session) -> list[str]:
        return list(session.scalars(select(Callback.id).where(condition).limit(_BATCH)))

    def act(session: Session, callback: str) -> bool:
        # That it had to wait for opening hours is no reason for what comes now.
        why = case((Callback.reason == calendars.OUTSIDE_HOURS, None), else_=Callback.reason)
        return callback_states.change(session, callback, CallbackStatus.QUEUED, condition, reason=why)

    return _each(sessions, redis, find, act)


def _enqueue(sessions: Sessions, redis: Redis, settings: Settings, now: datetime) -> int:
    """Jobs for what is due: as many as agents are free, since a job without an agent only comes back."""
    with sessions.read() as session:
        free = free_count(session) if may_dial(session, settings) else 0
        found = waiting(session, now, _BATCH, test_mode=True)
        if free:
            found += waiting(session, now, min(free * 2, _BATCH), test_mode=False)
    if not found:
        return 0
    enqueued = [row.id for row in found if jobs.enqueue(redis, jobs.DIAL, DIAL_JOB, row.id)]
    if enqueued:
        with sessions.begin() as session:
            changed(
                session,
                update(Callback)
                .where(Callback.id.in_(enqueued), Callback.held_by.is_(None))
                .values(queued_at=now),
            )
    return len(enqueued)
