"""What the events of a dialled call say of the attempt behind it.

An attempt that is uncertain can only end; while its call is seen alive, its number stays locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from bridge.domain.attempts import ENDED, AttemptState
from bridge.domain.calls import CallEventType, Cause, UnofferedReason
from bridge.domain.retrying import (
    AGENT_NO_ANSWER,
    AGENT_UNREACHABLE,
    NEVER_AGAIN_Q850,
    NOT_CONFIRMED,
    NOT_DIALED,
    TRUNK_UNREACHABLE,
    WRONG_NUMBER,
)
from bridge.services import attempts, checking
from bridge.store.database import changed
from bridge.store.models import Agent, Attempt, CallEventRow

_ORDER = [
    AttemptState.DUE,
    AttemptState.CLAIMED,
    AttemptState.DIALING,
    AttemptState.RINGING,
    AttemptState.ANSWERED,
    AttemptState.CONNECTED,
]


def started(session: Session, attempt: Attempt, call_id: str, at: datetime) -> None:
    """The PBX shows a call for the attempt."""
    changed(
        session,
        update(Attempt).where(Attempt.id == attempt.id, Attempt.call_id.is_(None)).values(call_id=call_id),
    )
    forward(session, attempt.id, AttemptState.DIALING, at)


def offered(session: Session, attempt_id: str, party: Mapping[str, Any], at: datetime) -> None:
    """A phone rings: the customer's, or the agent's after a customer who was called first has answered."""
    attempt = session.get(Attempt, attempt_id, populate_existing=True)
    if attempt is None:
        return
    if not is_agent(attempt, party):
        forward(session, attempt_id, AttemptState.RINGING, at)
    elif not attempt.agent_first:
        forward(session, attempt_id, AttemptState.ANSWERED, at)


def queued(session: Session, attempt_id: str, at: datetime) -> None:
    """The customer answered, and waits in a queue of the PBX."""
    attempt = session.get(Attempt, attempt_id, populate_existing=True)
    if attempt is not None and attempt.agent_id is None:
        forward(session, attempt_id, AttemptState.ANSWERED, at)


def connected(session: Session, attempt_id: str, parties: Sequence[Mapping[str, Any]], at: datetime) -> None:
    """Two people hear each other; one of them is the customer, or it says nothing of the attempt."""
    attempt = session.get(Attempt, attempt_id, populate_existing=True)
    if attempt is not None and any(not is_agent(attempt, party) for party in parties):
        if attempt.agent_id is None:
            _taken(session, attempt, parties)
        forward(session, attempt_id, AttemptState.CONNECTED, at)


def _taken(session: Session, attempt: Attempt, parties: Sequence[Mapping[str, Any]]) -> None:
    """Somebody took the customer out of the queue: the agent who was kept for it is free for others."""
    attempts.release_agent(session, attempt.id)
    for party in parties:
        agent = session.get(Agent, party["agent"]) if party.get("agent") else None
        if agent is not None:
            attempt.agent_id, attempt.agent_device = agent.id, party.get("device")
    session.flush()


def merged(session: Session, attempt_id: str, at: datetime) -> None:
    """The conversation goes on under another call's id; for the attempt it is over."""
    attempt = session.get(Attempt, attempt_id, populate_existing=True)
    if attempt is not None and AttemptState(attempt.state) not in ENDED:
        talked = attempt.state == AttemptState.CONNECTED
        state = AttemptState.DONE if talked else AttemptState.FAILED
        attempts.move(
            session, attempt_id, state, "merged" if talked else "outcome_unknown", now=at, over=True
        )


def ended(
    session: Session, attempt_id: str, call_id: str, cause: str | None, q850: int | None, at: datetime
) -> None:
    """The call is over: the attempt ends, unless the end was not seen."""
    attempt = session.get(Attempt, attempt_id, populate_existing=True)
    if attempt is None:
        return
    state = AttemptState(attempt.state)
    if state in ENDED:
        attempts.release(session, attempt_id)
    elif cause == Cause.COMPLETED:
        attempts.move(session, attempt_id, AttemptState.DONE, str(Cause.COMPLETED), q850, now=at, over=True)
    elif cause == Cause.UNCERTAIN:
        _end_not_seen(session, attempt_id, state, at)
    else:
        legs = _legs(session, attempt, call_id)
        reason, q850 = _failure(legs, cause, q850)
        if cause == Cause.ABANDONED and not legs.agent and checking.prompt_of(session, attempt) is not None:
            # The customer answered and did not press 1: no agent was called.
            reason = NOT_CONFIRMED
        attempts.move(session, attempt_id, AttemptState.FAILED, reason, q850, now=at, over=True)
        if legs.customer and legs.agent_gave_up and not attempt.agent_first:
            # The customer was there, and this phone was not.
            attempts.pause_agent(session, attempt, legs.agent_gave_up, at)


def forward(session: Session, attempt_id: str, state: AttemptState, at: datetime) -> None:
    """Move on where that is forwards; events that come late or again change nothing."""
    attempt = session.get(Attempt, attempt_id, populate_existing=True)
    if attempt is None:
        return
    now = AttemptState(attempt.state)
    if now is AttemptState.UNCERTAIN:
        attempts.keep_locked(session, attempt_id)
        attempts.show(session, attempt, state, now=at)
    elif now in _ORDER and _ORDER.index(now) < _ORDER.index(state):
        attempts.move(session, attempt_id, state, now=at)


def is_agent(attempt: Attempt, party: Mapping[str, Any]) -> bool:
    """Whether this party is the attempt's agent."""
    if party.get("agent"):
        return True
    return party.get("device") is not None and party.get("device") == attempt.agent_device


def _end_not_seen(session: Session, attempt_id: str, state: AttemptState, at: datetime) -> None:
    if state is AttemptState.CONNECTED:
        attempts.move(session, attempt_id, AttemptState.DONE, "end_not_seen", now=at, over=True)
    elif state is not AttemptState.UNCERTAIN:
        attempts.move(session, attempt_id, AttemptState.UNCERTAIN, "end_not_seen", now=at)


_FAILED_BY = dict.fromkeys(NEVER_AGAIN_Q850, WRONG_NUMBER) | dict.fromkeys((34, 38, 41, 42), "congestion")
"""A call that failed, in the words of who waits for it."""


@dataclass(frozen=True, slots=True)
class _Legs:
    """What the events say of the two sides of a dial."""

    customer: bool
    """The customer's leg showed itself."""
    no_way: bool
    """The PBX had no way to the customer's number."""
    agent: bool
    """The agent's leg showed itself."""
    agent_gave_up: str | None
    """AGENT_NO_ANSWER or AGENT_UNREACHABLE, where the agent's leg came to nothing."""


def _failure(legs: _Legs, cause: str | None, q850: int | None) -> tuple[str, int | None]:
    """The reason, and the Q.850 cause where it speaks of the customer's number."""
    if legs.customer:
        if cause == Cause.CANCELLED:
            return "agent_hung_up", q850
        if cause == Cause.FAILED:
            return _FAILED_BY.get(q850 or 0, str(cause)), q850
        return str(cause or Cause.FAILED), q850
    if legs.agent_gave_up:
        return legs.agent_gave_up, None
    if legs.no_way:
        return TRUNK_UNREACHABLE, None
    if cause == Cause.CANCELLED:
        return "agent_gone", None
    # No leg of either side was ever made.
    return (NOT_DIALED if cause == Cause.FAILED else str(cause or Cause.FAILED)), None


def _legs(session: Session, attempt: Attempt, call_id: str) -> _Legs:
    rows = session.execute(
        select(CallEventRow.type, CallEventRow.data).where(
            CallEventRow.call_id == call_id,
            CallEventRow.type.in_([str(CallEventType.OFFERED), str(CallEventType.UNOFFERED)]),
        )
    )
    customer = no_way = agent = False
    agent_gave_up: str | None = None
    for kind, data in rows:
        party = data.get("party") or {}
        if is_agent(attempt, party):
            agent = True
            if kind == CallEventType.UNOFFERED:
                gone = data.get("reason") == UnofferedReason.UNREACHABLE
                agent_gave_up = AGENT_UNREACHABLE if gone else AGENT_NO_ANSWER
        elif kind == CallEventType.UNOFFERED and party.get("device") is None:
            no_way = True
        else:
            customer = True
    return _Legs(customer, no_way, agent, agent_gave_up)
