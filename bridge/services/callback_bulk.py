"""What a supervisor does to many callbacks at once: cancel, begin anew, give to an agent. Each in a transaction of its
own, so that one that must stay does not stop the others, and a long list holds up nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from redis import Redis
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bridge.domain.attempts import CALLBACK_ENDED, AttemptState, CallbackStatus
from bridge.domain.errors import Conflict, Invalid, NotFound, RateLimited, RingbridgeError, Unavailable
from bridge.domain.keyed import keyed_hash
from bridge.live import jobs
from bridge.services import audit, callbacks, news, phoned, zone_rules
from bridge.services.access import LEADERS, Access
from bridge.services.permission import check_entry
from bridge.services.site_limits import site_limits
from bridge.settings import Settings
from bridge.store.database import Sessions, changed
from bridge.store.models import Agent, Attempt, Callback, Client, Site, new_id
from bridge.store.queries.agents import can_be_assigned
from bridge.store.queries.counters import count

log = structlog.get_logger(__name__)
MOST = 200
"""Callbacks of one request."""
CANCELLED_BY_SUPERVISOR = "cancelled_by_supervisor"
_BY_VISITOR = "cancelled_by_visitor"
_ANEW = (CallbackStatus.FAILED, CallbackStatus.EXPIRED, CallbackStatus.CANCELLED)
_OVER = [str(status) for status in CALLBACK_ENDED]


class Ended(Conflict):
    """This callback has ended already."""

    code = "ended"


class Connected(Conflict):
    """They are talking now; end the call at the phone."""

    code = "connected"


class NotKnown(Conflict):
    """It is not known whether the customer is being called now; try again in a few minutes."""

    code = "uncertain"


class NotEnded(Conflict):
    """This callback is still open; only one that failed, expired or was cancelled is begun anew."""

    code = "not_ended"


class Done(Conflict):
    """This callback was made: the customer was called."""

    code = "done"


class Withdrawn(Conflict):
    """The customer cancelled it; call only if they ask again."""

    code = _BY_VISITOR


class Requeued(Conflict):
    """This callback was begun anew already."""

    code = "already_requeued"


class Waiting(Conflict):
    """This number waits for another callback of the same client already."""

    code = "already_waiting"


class GotThrough(Conflict):
    """They have talked with somebody of the company since it ended."""

    code = phoned.GOT_THROUGH


class SiteClosed(Conflict):
    """Its site takes no callbacks now; an administrator opens it."""

    code = "site_closed"


class OtherClient(Conflict):
    """This agent works for another client only."""

    code = "agent_of_other_client"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one. `code` and `detail` say why it stayed as it was; `callback` is the new one's id."""

    id: str
    ok: bool
    code: str | None = None
    detail: str | None = None
    callback: str | None = None


def cancel(
    sessions: Sessions, redis: Redis, access: Access, ids: Sequence[str], *, now: datetime
) -> list[Result]:
    """End these by the rule that ends them for visitors: also while phones ring, not once people talk."""
    access.require(LEADERS)

    def may_end(session: Session, row: Callback) -> None:
        _in_reach(access, row)
        if row.status in _OVER:
            raise Ended
        attempt = session.get(Attempt, row.held_by) if row.held_by is not None else None
        if attempt is not None and attempt.state == AttemptState.CONNECTED:
            raise Connected
        if attempt is not None and attempt.state == AttemptState.UNCERTAIN:
            raise NotKnown
        _record(session, access, now, "callbacks.cancel", row, was=row.status)

    def one(callback: str) -> Result:
        callbacks.cancel(sessions, redis, callback, now=now, reason=CANCELLED_BY_SUPERVISOR, first=may_end)
        return Result(callback, ok=True)

    return _each(ids, one)


def requeue(
    sessions: Sessions, redis: Redis, settings: Settings, access: Access, ids: Sequence[str], *, now: datetime
) -> list[Result]:
    """Begin ended ones anew, each as a callback of its own that passes what a new one passes."""
    access.require(LEADERS)

    def one(callback: str) -> Result:
        try:
            with sessions.begin() as session:
                old = _row(session, access, callback)
                row = _anew(session, settings, old, now)
                _record(session, access, now, "callbacks.requeue", row, requeued_from=old.id, reason=old.reason)
                news.note_callback(session, row)
        except IntegrityError:
            # Two supervisors at once: the index lets one of them through.
            raise Requeued from None
        if row.status == CallbackStatus.QUEUED:
            jobs.enqueue(redis, jobs.DIAL, callbacks.DIAL_JOB, row.id)
        news.publish(redis, session)
        return Result(callback, ok=True, callback=row.id)

    return _each(ids, one)


def assign(
    sessions: Sessions, redis: Redis, access: Access, ids: Sequence[str], agent_id: str | None, *, now: datetime
) -> list[Result]:
    """Let this agent alone make the next dial of these; None lets anyone. Raises Invalid for one who takes no calls."""
    access.require(LEADERS)
    agent: Agent | None = None
    if agent_id is not None:
        with sessions.read() as session:
            agent = session.scalar(access.scope(select(Agent), Agent.client_id).where(Agent.id == agent_id))
        if agent is None or not can_be_assigned(agent, agent.client_id or ""):
            raise Invalid("there is no such agent, or they take no calls", field="agent_id")

    def one(callback: str) -> Result:
        with sessions.begin() as session:
            row = _row(session, access, callback)
            if agent is not None and not can_be_assigned(agent, row.client_id):
                raise OtherClient
            open_still = update(Callback).where(Callback.id == row.id, Callback.status.not_in(_OVER))
            if not changed(session, open_still.values(assigned_to=agent_id)):
                raise Ended
            _record(session, access, now, "callbacks.assign", row, agent=agent_id)
            session.refresh(row)
            news.note_callback(session, row)
        news.publish(redis, session)
        return Result(callback, ok=True)

    return _each(ids, one)


def _each(ids: Sequence[str], one: Callable[[str], Result]) -> list[Result]:
    results: list[Result] = []
    for callback in dict.fromkeys(ids):
        try:
            results.append(one(callback))
        except Unavailable:
            if not results:
                raise
            # Those before it are done, and their results must be told.
            results.append(Result(callback, False, "unavailable", "the database did not answer; try this one again"))
        except RingbridgeError as error:
            results.append(Result(callback, False, error.code, error.message))
    return results


def _in_reach(access: Access, row: Callback) -> None:
    if not access.may_see(row.client_id):
        raise NotFound("there is no such callback")


def _row(session: Session, access: Access, callback: str) -> Callback:
    row = session.get(Callback, callback, with_for_update=True)
    if row is None:
        raise NotFound("there is no such callback")
    _in_reach(access, row)
    return row


def _record(session: Session, access: Access, now: datetime, action: str, row: Callback, **detail: object) -> None:
    audit.record(session, now, access.username, action, row.id, row.client_id, detail)


def _anew(session: Session, settings: Settings, old: Callback, now: datetime) -> Callback:
    """The new row, once everything has let it pass."""
    _check_ended(old)
    site = session.get(Site, old.site_id)
    client = session.get(Client, old.client_id)
    if site is None or not site.active or client is None or not client.active:
        raise SiteClosed
    _check_alone(session, old)
    if phoned.got_through(session, old.client_id, old.number, old.ended_at or old.created_at):
        raise GotThrough
    due, calendar = check_entry(session, settings, site, old.number, old.queue, None, None, now)
    too_many = _count(session, settings, site, old.number, now)
    # Again: whoever counts the same number waits for that transaction's end, so of two at once the second sees it now.
    _check_alone(session, old)
    if too_many:
        raise RateLimited("this number had as many callbacks today as it may have; wait until tomorrow")
    later = due.at > now
    row = Callback(
        id=new_id(),
        created_at=now,
        requeued_from=old.id,
        joined_at=max(due.at, now),
        wall_time=due.wall_time,
        timezone=due.timezone,
        tzdata=zone_rules.version() if due.timezone else None,
        calendar_id=calendar,
        due_at=due.at,
        expires_at=max(due.at, now) + timedelta(hours=site_limits(site)["expire_hours"]),
        # The customer is told nothing of it, so nothing is promised.
        promised_at=None,
        status=str(CallbackStatus.SCHEDULED if later else CallbackStatus.QUEUED),
        queued_at=None if later else now,
        **{name: getattr(old, name) for name in _COPIED},
    )
    session.add(row)
    session.flush()
    return row


_COPIED = (
    "client_id", "site_id", "source", "number", "name", "note", "page_url", "queue", "ip_hash",
    "consent_text", "consent_at", "consent_number",
)  # fmt: skip


def _check_ended(old: Callback) -> None:
    if old.status == CallbackStatus.DONE:
        raise Done
    if old.status not in _ANEW:
        raise NotEnded
    if old.reason == _BY_VISITOR:
        raise Withdrawn


def _check_alone(session: Session, old: Callback) -> None:
    if session.scalar(select(Callback.id).where(Callback.requeued_from == old.id)) is not None:
        raise Requeued
    twin = select(Callback.id).where(
        Callback.number == old.number, Callback.client_id == old.client_id, Callback.status.not_in(_OVER)
    )
    if session.scalar(twin.limit(1)) is not None:
        raise Waiting


def _count(session: Session, settings: Settings, site: Site, number: str, now: datetime) -> bool:
    """Whether this is one too many for the customer, who is counted; the limits against strangers are not for us."""
    subject = f"{site.client_id}:{keyed_hash(settings.secret_key(), 'number', number)}"
    found = count(session, "callback_number", subject, timedelta(days=1), now)
    return found > int(site_limits(site)["per_number_day"])
