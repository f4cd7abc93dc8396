"""Where a callback may go from where it is; as `attempts` says it of an attempt."""

from __future__ import annotations

from bridge.domain.attempts import CALLBACK_ENDED, CallbackStatus
from bridge.domain.errors import StateError

_S = CallbackStatus
_CALLING = frozenset({_S.CALLING_AGENT, _S.CALLING_CUSTOMER})

# Nobody who was connected waits again, and what has ended has ended; only who waits can expire.
CALLBACK_TRANSITIONS: dict[CallbackStatus, frozenset[CallbackStatus]] = {
    _S.SCHEDULED: frozenset({_S.QUEUED}) | _CALLING | CALLBACK_ENDED,
    _S.QUEUED: frozenset({_S.SCHEDULED}) | _CALLING | CALLBACK_ENDED,
    _S.CALLING_AGENT: frozenset({_S.CALLING_CUSTOMER, _S.CONNECTED, _S.QUEUED, _S.DONE, _S.FAILED, _S.CANCELLED}),
    _S.CALLING_CUSTOMER: frozenset({_S.CONNECTED, _S.QUEUED, _S.DONE, _S.FAILED, _S.CANCELLED}),
    _S.CONNECTED: frozenset({_S.DONE, _S.FAILED}),
    **{status: frozenset() for status in (_S.DONE, _S.FAILED, _S.CANCELLED, _S.EXPIRED)},
}


def may_become(old: CallbackStatus, new: CallbackStatus) -> bool:
    """Whether the table has an arrow from `old` to `new`, or they are the same that has not ended."""
    return new in CALLBACK_TRANSITIONS[old] or (old is new and old not in CALLBACK_ENDED)


def check_callback(old: CallbackStatus, new: CallbackStatus) -> None:
    """Raises StateError where the table has no arrow from `old` to `new`."""
    if not may_become(old, new):
        raise StateError(f"a callback cannot go from {old} to {new}", old=str(old), new=str(new))
