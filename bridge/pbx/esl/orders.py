"""The commands we send, built from values that match their allow-list pattern."""

from __future__ import annotations

import re

from bridge.pbx.esl.codec import LocalError
from bridge.pbx.port import DialOrder

DIAL_PATTERN = re.compile(r"\+?[0-9]{3,15}")
DEVICE_PATTERN = re.compile(r"user/[A-Za-z0-9_.+-]{1,64}(@[A-Za-z0-9_.-]{1,128})?")
_DIAL_STRING = re.compile(r"[A-Za-z0-9]{1,20}/[A-Za-z0-9@.:/_+-]{1,120}")
_ATTEMPT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LAST_SECOND = range(1_000_000_000, 10_000_000_000)
REALM = "ringbridge"


def dial_job(attempt: str) -> str:
    """The Job-UUID under which the PBX reports on an attempt's originate."""
    return attempt


def originate(order: DialOrder, until: int) -> str:
    """The one originate of an order, for `bgapi`. Raises LocalError, which names the value's place only.

    `until` is the last second, of the PBX's own clock, in which it may begin.
    """
    _match(_ATTEMPT, order.attempt, "attempt")
    _match(DEVICE_PATTERN, order.agent_device, "agent_device")
    _match(DIAL_PATTERN, order.number, "number")
    _match(_DIAL_STRING, order.dial_string, "dial_string")
    if order.caller_id is not None:
        _match(DIAL_PATTERN, order.caller_id, "caller_id")
    if order.first not in ("agent", "customer"):
        raise LocalError("first must be agent or customer", field="first")
    rings = {"agent": order.agent_ring_seconds, "customer": order.customer_ring_seconds}
    if not all(type(seconds) is int and 1 <= seconds <= 300 for seconds in rings.values()):
        raise LocalError("a ring time must be 1 to 300 whole seconds", field="ring_seconds")
    if until not in _LAST_SECOND:
        raise LocalError("the PBX's clock is not of this age", field="until")
    return f"expand originate {order.attempt}"


def hang_up(channel: str) -> str:
    """The command that ends one leg, as a person's hang-up would. Raises LocalError."""
    _match(_CHANNEL, channel, "channel")
    return f"uuid_kill {channel} NORMAL_CLEARING"


def receipt(attempt: str, leg: str) -> str:
    """The command that asks for a leg's receipt. Raises LocalError."""
    _match(_ATTEMPT, attempt, "attempt")
    return f"hash select/{REALM}/{attempt}-{leg}"


def _match(pattern: re.Pattern[str], value: str, name: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise LocalError(f"{name} is not of the form that may be sent to the PBX", field=name)
