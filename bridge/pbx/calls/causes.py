"""Why a device was not reached and why a call ended: the rulings of the contract, as tables and two functions."""

from __future__ import annotations

from bridge.domain.calls import Cause, UnofferedReason
from bridge.pbx.calls.model import Call, Channel, Line

_BY_Q850 = {
    1: UnofferedReason.UNREACHABLE,
    2: UnofferedReason.UNREACHABLE,
    3: UnofferedReason.UNREACHABLE,
    17: UnofferedReason.BUSY,
    18: UnofferedReason.NO_ANSWER,
    19: UnofferedReason.NO_ANSWER,
    20: UnofferedReason.UNREACHABLE,
    21: UnofferedReason.REJECTED,
    26: UnofferedReason.ANSWERED_ELSEWHERE,
    27: UnofferedReason.UNREACHABLE,
    28: UnofferedReason.UNREACHABLE,
    34: UnofferedReason.UNREACHABLE,
    38: UnofferedReason.UNREACHABLE,
    41: UnofferedReason.UNREACHABLE,
    42: UnofferedReason.UNREACHABLE,
    58: UnofferedReason.UNREACHABLE,
}
_BY_DIAL_STATUS = {
    "BUSY": UnofferedReason.BUSY,
    "NOANSWER": UnofferedReason.NO_ANSWER,
    "CHANUNAVAIL": UnofferedReason.UNREACHABLE,
    "CONGESTION": UnofferedReason.UNREACHABLE,
}
_CALL_CAUSE = {
    UnofferedReason.BUSY: Cause.BUSY,
    UnofferedReason.REJECTED: Cause.REJECTED,
    UnofferedReason.NO_ANSWER: Cause.NO_ANSWER,
    UnofferedReason.CANCELLED: Cause.CANCELLED,
    UnofferedReason.UNREACHABLE: Cause.FAILED,
    UnofferedReason.ANSWERED_ELSEWHERE: Cause.NO_ANSWER,
}
_CALLER_CAUSE = {17: Cause.BUSY, 18: Cause.NO_ANSWER, 19: Cause.NO_ANSWER, 21: Cause.REJECTED}
# A hang-up that says nothing about why: normal clearing, none given, and what a cancelled leg shows.
_PLAIN = frozenset({0, 16, 31, 127, None})


def own_hangup(state: int, cause: int | None) -> bool:
    """Whether a request for hang-up on the caller's leg is the caller's own wish.

    A leg that was told `busy` asks for its end too, with that cause.
    """
    return state != Line.BUSY and cause in _PLAIN


def unoffered_reason(leg: Channel, cause: int | None, call: Call) -> UnofferedReason:
    """Why this leg was not accepted; its own cause speaks first."""
    if leg.picked_up:
        return UnofferedReason.ANSWERED_ELSEWHERE
    if leg.state != Line.UP and cause in _BY_Q850:
        return _BY_Q850[cause]
    if leg.state == Line.UP:
        gone = call.caller_left or leg.dial_status == "CANCEL"
        return UnofferedReason.CANCELLED if gone else UnofferedReason.REJECTED
    if leg.dial_status == "CANCEL":
        gone = call.caller_left or call.abandoned or not call.answer_seen
        return UnofferedReason.CANCELLED if gone else UnofferedReason.ANSWERED_ELSEWHERE
    if leg.dial_status in _BY_DIAL_STATUS:
        return _BY_DIAL_STATUS[leg.dial_status]
    if call.caller_left:
        return UnofferedReason.CANCELLED
    return UnofferedReason.ANSWERED_ELSEWHERE if call.answer_seen else UnofferedReason.NO_ANSWER


def without_leg_reason(dial_status: str, cause: int | None) -> UnofferedReason:
    """Why the PBX could not even make a leg."""
    return _BY_Q850.get(cause or 0) or _BY_DIAL_STATUS.get(dial_status, UnofferedReason.UNREACHABLE)


def end_cause(call: Call) -> tuple[Cause, int | None]:
    """The cause of the whole call, and the Q.850 cause beside it (None where the PBX gave none)."""
    if call.attempt is not None:
        return _own_dial(call)
    q850 = call.caller_cause or None
    if call.connected_at is not None:
        return Cause.COMPLETED, q850
    if call.abandoned:
        return Cause.ABANDONED, q850
    if call.caller_answered and not call.offered and not call.originated:
        return Cause.COMPLETED, q850
    if call.caller_left:
        return Cause.CANCELLED, q850
    if call.caller_cause in _CALLER_CAUSE:
        return _CALLER_CAUSE[call.caller_cause], q850
    if call.caller_cause is None:
        # Its first leg went while nobody looked; what was seen since does not say why.
        return Cause.UNCERTAIN, None
    if call.caller_cause in _PLAIN and call.offered:
        return Cause.NO_ANSWER, q850
    return Cause.FAILED, q850


def _own_dial(call: Call) -> tuple[Cause, int | None]:
    q850 = call.deciding_cause or call.caller_cause or None
    if call.connected_at is not None:
        return Cause.COMPLETED, q850
    if call.customer_answered:
        return Cause.ABANDONED, q850
    if call.deciding is not None and (call.deciding_customer or not call.caller_left):
        return _CALL_CAUSE[UnofferedReason(call.deciding)], q850
    return (Cause.CANCELLED if call.caller_left else Cause.FAILED), q850
