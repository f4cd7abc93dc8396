"""An attempt is one dialling of one number, made at most once, ever."""

from __future__ import annotations

from enum import StrEnum

from bridge.domain.errors import StateError


class AttemptState(StrEnum):
    DUE = "due"
    CLAIMED = "claimed"
    DIALING = "dialing"
    RINGING = "ringing"
    ANSWERED = "answered"
    CONNECTED = "connected"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNCERTAIN = "uncertain"


_FORWARD = [
    AttemptState.DUE,
    AttemptState.CLAIMED,
    AttemptState.DIALING,
    AttemptState.RINGING,
    AttemptState.ANSWERED,
    AttemptState.CONNECTED,
    AttemptState.DONE,
]
_WAYS_OUT = frozenset({AttemptState.FAILED, AttemptState.CANCELLED, AttemptState.UNCERTAIN})

# Forwards, skipping allowed; out to an end from anywhere before `done`; `uncertain` only by reconciliation.
TRANSITIONS: dict[AttemptState, frozenset[AttemptState]] = {
    **{state: frozenset(_FORWARD[i + 1 :]) | _WAYS_OUT for i, state in enumerate(_FORWARD[:-1])},
    AttemptState.DONE: frozenset(),
    AttemptState.FAILED: frozenset(),
    AttemptState.CANCELLED: frozenset(),
    AttemptState.UNCERTAIN: frozenset({AttemptState.DONE, AttemptState.FAILED}),
}

ENDED = frozenset({AttemptState.DONE, AttemptState.FAILED, AttemptState.CANCELLED})
IN_FLIGHT = frozenset(AttemptState) - ENDED - {AttemptState.DUE}


def check_transition(old: AttemptState, new: AttemptState) -> None:
    """Raises StateError where the table has no arrow from `old` to `new`."""
    if new not in TRANSITIONS[old]:
        raise StateError(f"an attempt cannot go from {old} to {new}", old=str(old), new=str(new))


class CallbackStatus(StrEnum):
    """What a visitor is told of their callback."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    CALLING_AGENT = "calling_agent"
    CALLING_CUSTOMER = "calling_customer"
    CONNECTED = "connected"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


CALLBACK_ENDED = frozenset(
    {CallbackStatus.DONE, CallbackStatus.FAILED, CallbackStatus.CANCELLED, CallbackStatus.EXPIRED}
)
