"""The one way in which an attempt changes its state, and what the end of an attempt brings with it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from bridge.domain.attempts import CALLBACK_ENDED, ENDED, AttemptState, CallbackStatus, check_transition
from bridge.domain.callback_states import may_become
from bridge.domain.errors import NotFound, StateError
from bridge.domain.retrying import (
    AGENT_NO_ANSWER,
    AGENT_UNREACHABLE,
    NOT_DIALED,
    Next,
    Then,
    after_attempt,
    outcome_of,
)
from bridge.services import budgets, callback_states, news, number_limits, promises
from bridge.services.site_limits import site_limits
from bridge.store.database import changed
from bridge.store.models import AgentState, Attempt, AttemptChange, Callback, NumberLock, Site

log = structlog.get_logger(__name__)

UNCERTAIN_LOCK = timedelta(minutes=15)
"""How long an attempt of unknown outcome keeps its number from being dialled."""
HANGUP_GRACE = timedelta(minutes=2)
"""A cancelled dial may still ring; its number stays locked until the call's end is seen, or this long."""

ILLEGAL = Counter(
    "ringbridge_illegal_transitions_total",
    "Changes of an attempt's state that the table refuses",
    ["old", "new"],
)

_PAUSED = {AGENT_NO_ANSWER: "no answer", AGENT_UNREACHABLE: "phone not reachable"}
"""What an agent reads who was paused."""

_RINGS = frozenset({AttemptState.RINGING, AttemptState.ANSWERED, AttemptState.CONNECTED})
"""The customer's phone rings, or rang: a state may be skipped."""

_SHOWN = {
    AttemptState.DIALING: CallbackStatus.CALLING_AGENT,
    AttemptState.RINGING: CallbackStatus.CALLING_CUSTOMER,
    AttemptState.ANSWERED: CallbackStatus.CALLING_CUSTOMER,
    AttemptState.CONNECTED: CallbackStatus.CONNECTED,
}


def move(
    session: Session,
    attempt_id: str,
    new: AttemptState,
    reason: str | None = None,
    q850: int | None = None,
    *,
    now: datetime,
    call_id: str | None = None,
    over: bool = False,
) -> bool:
    """Change an attempt's state by conditional UPDATE; True when this call made the change.

    False when the attempt is in that state already, has ended the same way, or somebody else was faster.
    When it ends, the same transaction frees agent and number and moves the callback on by policy.
    `over` says that the call is known to be over, so that even a cancelled number may be dialled at once.
    The caller commits, and calls `news.publish` afterwards. Raises NotFound, and StateError (also
    counted) for an arrow that the table has not.
    """
    row = session.get(Attempt, attempt_id, populate_existing=True, with_for_update=True)
    if row is None:
        raise NotFound("there is no such attempt")
    old = AttemptState(row.state)
    if old is new:
        return False
    try:
        check_transition(old, new)
    except StateError:
        ILLEGAL.labels(str(old), str(new)).inc()
        log.warning("illegal transition", attempt=attempt_id, old=str(old), new=str(new))
        raise
    if new is AttemptState.DONE and reason is None:
        # Else the reason of an uncertain time before would stay.
        reason = "completed"
    values: dict[str, Any] = {"state": str(new)}
    if reason is not None:
        values["reason"] = reason
    if q850 is not None:
        values["q850"] = q850
    if call_id is not None:
        values["call_id"] = call_id
    if new in ENDED:
        values["ended_at"] = now
    if new is AttemptState.DIALING:
        values["sent_at"] = now
    if not changed(
        session, update(Attempt).where(Attempt.id == attempt_id, Attempt.state == str(old)).values(**values)
    ):
        return False
    session.add(AttemptChange(attempt_id=attempt_id, at=now, old=str(old), new=str(new), reason=reason))
    session.flush()
    session.refresh(row)
    if new in ENDED:
        _end(session, row, old, now, over=over)
    elif new is AttemptState.UNCERTAIN:
        session.execute(
            update(NumberLock)
            .where(NumberLock.attempt_id == attempt_id)
            .values(expires_at=now + UNCERTAIN_LOCK)
        )
    else:
        _note_ringing(session, row, new, now)
        _show(session, row, new)
    return True


def show(session: Session, attempt: Attempt, state: AttemptState, *, now: datetime) -> None:
    """Tell the visitor of a state that an uncertain attempt shows but cannot take; of one that is past, nothing."""
    _note_ringing(session, attempt, state, now)
    row = session.get(Callback, attempt.callback_id, populate_existing=True) if attempt.callback_id else None
    status = _shown(attempt, state)
    if row is not None and status is not None and may_become(CallbackStatus(row.status), status):
        _set_status(session, attempt, status)


def _note_ringing(session: Session, attempt: Attempt, state: AttemptState, now: datetime) -> None:
    if state in _RINGS and attempt.callback_id is not None:
        promises.rang(session, attempt.callback_id, now)


def keep_locked(session: Session, attempt_id: str) -> None:
    """An uncertain attempt turned out to be alive: its number stays locked until its call's end is seen."""
    session.execute(update(NumberLock).where(NumberLock.attempt_id == attempt_id).values(expires_at=None))


def release(session: Session, attempt_id: str) -> None:
    """Free the agent and the number that an attempt holds; its call is known to be over."""
    release_agent(session, attempt_id)
    session.execute(delete(NumberLock).where(NumberLock.attempt_id == attempt_id))


def release_agent(session: Session, attempt_id: str) -> None:
    """Free the agent who is kept for an attempt."""
    session.execute(update(AgentState).where(AgentState.reserved_by == attempt_id).values(reserved_by=None))


def _shown(attempt: Attempt, state: AttemptState) -> CallbackStatus | None:
    status = _SHOWN.get(state)
    if status is CallbackStatus.CALLING_AGENT and not attempt.agent_first:
        return CallbackStatus.CALLING_CUSTOMER
    return status


def _show(session: Session, attempt: Attempt, state: AttemptState) -> None:
    status = _shown(attempt, state)
    if status is not None:
        _set_status(session, attempt, status)


def _set_status(session: Session, attempt: Attempt, status: CallbackStatus) -> None:
    if attempt.callback_id is not None:
        mine = (Callback.held_by == attempt.id, Callback.status != str(status))
        callback_states.change(session, attempt.callback_id, status, *mine, reason=None)


def _end(session: Session, attempt: Attempt, old: AttemptState, now: datetime, *, over: bool) -> None:
    state = AttemptState(attempt.state)
    _move_callback(session, attempt, state, now)
    if attempt.reason in (AGENT_NO_ANSWER, AGENT_UNREACHABLE):
        pause_agent(session, attempt, str(attempt.reason), now)
    elif attempt.reason == NOT_DIALED and _was_so_before(session, attempt):
        pause_agent(session, attempt, AGENT_UNREACHABLE, now)
    maybe_alive = state is AttemptState.CANCELLED and old is not AttemptState.CLAIMED and not over
    if maybe_alive:
        session.execute(
            update(NumberLock)
            .where(NumberLock.attempt_id == attempt.id)
            .values(expires_at=now + HANGUP_GRACE)
        )
    else:
        release(session, attempt.id)
    budgets.settle(session, attempt, now)


def _move_callback(session: Session, attempt: Attempt, state: AttemptState, now: datetime) -> None:
    if attempt.callback_id is None:
        return
    row = _fresh(session, attempt.callback_id)
    if row.held_by != attempt.id or CallbackStatus(row.status) in CALLBACK_ENDED:
        return
    site = session.get_one(Site, row.site_id)
    limits = site_limits(site)
    step = after_attempt(
        state,
        attempt.reason,
        attempt.q850,
        row.tries,
        limits["tries"],
        limits["retry_minutes"],
        rules=limits["retry"],
        before=_outcomes_before(session, attempt) if state is AttemptState.FAILED else (),
    )
    if step.then is Then.AGAIN and number_limits.reached(session, site, row.number, now + step.delay):
        # Known now, so it is told now, and nobody waits for it.
        step = Next(Then.END_FAILED, step.tries)
    if step.then is Then.AGAIN and not may_become(CallbackStatus(row.status), CallbackStatus.QUEUED):
        # Nobody is called again who was connected, whatever came after.
        step = Next(Then.END_FAILED, step.tries)
    status = CallbackStatus.QUEUED if step.then is Then.AGAIN else CallbackStatus(str(step.then))
    if step.tries > row.tries:
        # A busy line never rings, and yet the customer was called.
        promises.called(session, row.id, now)
    values = _callback_values(step, attempt, row, now)
    callback_states.change(session, row.id, status, Callback.held_by == attempt.id, **values)


def _outcomes_before(session: Session, attempt: Attempt) -> list[str]:
    """How the callback's earlier attempts ended."""
    rows = session.execute(
        select(Attempt.reason, Attempt.q850).where(
            Attempt.callback_id == attempt.callback_id,
            Attempt.id != attempt.id,
            Attempt.state == str(AttemptState.FAILED),
        )
    )
    return [outcome_of(reason, q850) for reason, q850 in rows]


def _callback_values(step: Next, attempt: Attempt, row: Callback, now: datetime) -> dict[str, Any]:
    values: dict[str, Any] = {"held_by": None, "tries": step.tries, "reason": attempt.reason}
    if step.then is not Then.AGAIN:
        return {**values, "ended_at": now}
    due = now + step.delay
    # A promised next try must not be cut off by the end of the wait that the first try was promised in.
    expires = max(row.expires_at, due + timedelta(hours=1)) if step.tries > row.tries else row.expires_at
    return {
        **values,
        "due_at": due,
        "promised_at": due if step.tries > row.tries else row.promised_at,
        "expires_at": expires,
        "queued_at": None,
    }


def _was_so_before(session: Session, attempt: Attempt) -> bool:
    """Whether the agent's attempt before this one did not get as far as the customer either.

    Once may be a lost link; twice is a phone or a PBX on which nothing can be dialled.
    """
    before = session.scalar(
        select(Attempt.reason)
        .where(
            Attempt.agent_id == attempt.agent_id,
            Attempt.id != attempt.id,
            Attempt.ended_at.is_not(None),
        )
        .order_by(Attempt.ended_at.desc())
        .limit(1)
    )
    return before == NOT_DIALED


def pause_agent(session: Session, attempt: Attempt, reason: str, now: datetime) -> None:
    """The same silent phone must not be rung for ever, while others could take the call."""
    if attempt.agent_id is not None and changed(
        session,
        update(AgentState)
        .where(AgentState.agent_id == attempt.agent_id, AgentState.state == "ready")
        .values(state="paused", reason=_PAUSED[reason], since=now),
    ):
        row = session.get(AgentState, attempt.agent_id, populate_existing=True)
        if row is not None:
            news.note_agent(session, row)


def _fresh(session: Session, callback_id: str) -> Callback:
    row = session.get(Callback, callback_id, populate_existing=True)
    if row is None:
        raise NotFound("there is no such callback")
    return row
