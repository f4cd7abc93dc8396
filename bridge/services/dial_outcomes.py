"""What the events of a dialled call say of the attempt behind it.

An attempt that is uncertain can only end; while its call is seen alive, its number stays locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from bridge.domain.attempts import ENDED, AttemptState
from bridge.domain.callbacks import AGENT_NO_ANSWER
from bridge.domain.calls import CallEventType, Cause
from bridge.services import attempts
from bridge.store.database import changed
from bridge.store.models import Attempt, CallEventRow

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


def connected(session: Session, attempt_id: str, parties: Sequence[Mapping[str, Any]], at: datetime) -> None:
    """Two people hear each other; one of them is the customer, or it says nothing of the attempt."""
    attempt = session.get(Attempt, attempt_id, populate_existing=True)
    if attempt is not None and any(not is_agent(attempt, party) for party in parties):
        forward(session, attempt_id, AttemptState.CONNECTED, at)


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
        reason, q850 = _failure(session, attempt, call_id, cause, q850)
        attempts.move(session, attempt_id, AttemptState.FAILED, reason, q850, now=at, over=True)


def forward(session: Session, attempt_id: str, state: AttemptState, at: datetime) -> None:
    """Move on where that is forwards; events that come late or again change nothing."""
    attempt = session.get(Attempt, attempt_id, populate_existing=True)
    if attempt is None:
        return
    now = AttemptState(attempt.state)
    if now is AttemptState.UNCERTAIN:
        attempts.keep_locked(session, attempt_id)
        attempts.show(session, attempt, state)
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


def _failure(
    session: Session, attempt: Attempt, call_id: str, cause: str | None, q850: int | None
) -> tuple[str, int | None]:
    """The reason, and the Q.850 cause where it speaks of the customer's number."""
    touched, agent_refused = _legs(session, attempt, call_id)
    if not touched and agent_refused:
        return AGENT_NO_ANSWER, None
    if cause == Cause.CANCELLED:
        return ("agent_hung_up" if touched else "agent_gone"), q850
    return str(cause or Cause.FAILED), q850 if touched else None


def _legs(session: Session, attempt: Attempt, call_id: str) -> tuple[bool, bool]:
    """Whether the customer's leg showed itself, and whether the agent's was given up."""
    rows = session.execute(
        select(CallEventRow.type, CallEventRow.data).where(
            CallEventRow.call_id == call_id,
            CallEventRow.type.in_([str(CallEventType.OFFERED), str(CallEventType.UNOFFERED)]),
        )
    )
    touched = refused = False
    for kind, data in rows:
        party = data.get("party") or {}
        if not is_agent(attempt, party):
            touched = True
        elif kind == CallEventType.UNOFFERED:
            refused = True
    return touched, refused
