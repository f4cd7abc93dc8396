"""The actions we send, built from values that match their allow-list pattern."""

from __future__ import annotations

import re

from bridge.pbx.ami.aides import CONTEXT, Role, aide_id
from bridge.pbx.ami.codec import LocalError
from bridge.pbx.connecting import joined_at
from bridge.pbx.port import DialOrder

DIAL_PATTERN = re.compile(r"\+?[0-9]{3,15}")
DEVICE_PATTERN = re.compile(r"(PJSIP|SIP|IAX2|Local)/[A-Za-z0-9_.-]+(@[A-Za-z0-9_.-]+)?(/n)?")
_DIAL_STRING = re.compile(r"[A-Za-z0-9]{1,20}/[A-Za-z0-9@.:/_+-]{1,120}")
_ATTEMPT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FIRST_LEG_SLACK = 10
"""Seconds beyond the ring time before the PBX itself gives an originate up."""
_LAST_SECOND = range(1_000_000_000, 10_000_000_000)
CHANNEL = "Local/first@ringbridge-leg"
RECEIPTS = "ringbridge"
_CONTEXT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,79}")
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TO = re.compile(r"\+?[0-9*]{2,15}")
_PHONE = re.compile(r"(PJSIP|SIP)/[A-Za-z0-9_.-]{1,64}")
_UID = re.compile(r"[A-Za-z0-9._-]{1,80}")
_SHOWN = re.compile(r"\+?[0-9]{2,15}")
ACT_VALUES = {
    "RB_LEG": _UID,
    "RB_CHANNEL": re.compile(r"[A-Za-z0-9]{1,20}/[A-Za-z0-9@.:/_+-]{1,120}(;[12])?"),
    "RB_SOUND": re.compile(r"[A-Za-z0-9_-]{1,100}(/[A-Za-z0-9_-]{1,100}){0,9}"),
    "RB_FILE": re.compile(r"ringbridge/[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}\.wav"),
    "RB_LOT": re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "RB_SLOT": re.compile(r"[0-9]{1,10}"),
}
"""As the dialplan checks them."""


def originate(order: DialOrder, until: int) -> dict[str, str | list[str]]:
    """The fields of the one Originate of an order. Raises LocalError, which names the value's place only.

    `until` is the last second, of the PBX's own clock, in which it may begin.
    """
    _match(_ATTEMPT, order.attempt, "attempt")
    if order.queue is None:
        _match(DEVICE_PATTERN, order.agent_device, "agent_device")
    else:
        _match(_QUEUE, order.queue, "queue")
    _match(DIAL_PATTERN, order.number, "number")
    _match(_DIAL_STRING, order.dial_string, "dial_string")
    if order.caller_id is not None:
        _match(DIAL_PATTERN, order.caller_id, "caller_id")
    if order.first not in ("agent", "customer"):
        raise LocalError("first must be agent or customer", field="first")
    rings = {"agent": order.agent_ring_seconds, "customer": order.customer_ring_seconds}
    if not all(isinstance(seconds, int) and 1 <= seconds <= 300 for seconds in rings.values()):
        raise LocalError("a ring time must be 1 to 300 whole seconds", field="ring_seconds")
    if until not in _LAST_SECOND:
        raise LocalError("the PBX's clock is not of this age", field="until")
    variables = {
        "RB_ATTEMPT": order.attempt,
        "RB_UNTIL": str(until),
        "RB_FIRST": order.first,
        "RB_AGENT": order.agent_device if order.queue is None else f"Queue/{order.queue}",
        "RB_NUMBER": order.number,
        "RB_DIAL": order.dial_string,
        "RB_CALLER": order.caller_id or "",
        "RB_AGENT_RING": str(order.agent_ring_seconds),
        "RB_CUSTOMER_RING": str(order.customer_ring_seconds),
    }
    context, exten = "ringbridge-go", "second"
    if order.confirm is not None:
        if order.first != "customer":
            raise LocalError("only a customer who is called first can confirm", field="confirm")
        _match(ACT_VALUES["RB_SOUND"], order.confirm, "confirm")
        variables["RB_CONFIRM"] = order.confirm
        # Where the PBX has an older dialplan, this leads nowhere, and nobody unconfirmed gets to an agent.
        context, exten = "ringbridge-confirm", "ask"
    if order.queue is not None:
        if order.first != "customer" or order.confirm is not None:
            raise LocalError("only a customer who is called first, and not asked, can wait in a queue", field="queue")
        variables["RB_JOINED"] = str(joined_at(order, until))
        context, exten = "ringbridge-place", "line"
    return {
        "Channel": CHANNEL,
        "ChannelId": order.attempt,
        "OtherChannelId": f"{order.attempt}-2",
        "Context": context,
        "Exten": exten,
        "Priority": "1",
        "Timeout": str((rings[order.first] + _FIRST_LEG_SLACK) * 1000),
        "Async": "true",
        "Variable": [f"{name}={value}" for name, value in variables.items()],
    }


def aide(
    role: Role,
    command: str,
    *,
    channel: str,
    exten: str,
    leg: str,
    until: int,
    ring_seconds: float,
    shown: str | None = None,
    **variables: str,
) -> dict[str, str | list[str]]:
    """The fields of the Originate that makes a channel for an action. Raises LocalError as `originate` does.

    `leg` is the leg for which it is there; `variables` are what its extension in our context needs.
    """
    _match(_UID, leg, "leg")
    for name, value in variables.items():
        _match(ACT_VALUES[name], value, name)
    if until not in _LAST_SECOND:
        raise LocalError("the PBX's clock is not of this age", field="until")
    given = {"RB_COMMAND": command, "RB_UNTIL": str(until), **variables}
    fields: dict[str, str | list[str]] = {
        "Channel": channel,
        "ChannelId": aide_id(role, command),
        "OtherChannelId": f"{aide_id(role, command)}-2",
        "Account": leg,
        "Context": CONTEXT,
        "Exten": exten,
        "Priority": "1",
        "Timeout": str(max(1, round(ring_seconds * 1000))),
        "Async": "true",
        "Variable": [f"{name}={value}" for name, value in given.items()],
    }
    if shown is not None and _SHOWN.fullmatch(shown):
        fields["CallerID"] = f"<{shown}>"
    return fields


def inner(extension: str) -> str:
    """A Local channel whose far half does something in our context."""
    return f"Local/{extension}@{CONTEXT}/n"


def phone(device: str) -> str:
    """A phone that is to ring. Raises LocalError for anything else."""
    _match(_PHONE, device, "device")
    return device


def way_to(to: str, context: str) -> str:
    """Who is called as an agent's phone would. Raises LocalError."""
    return "Local/{Exten}@{Context}".format(**dialled(to, context))


def dialled(to: str, context: str) -> dict[str, str]:
    """The fields that say where to. Raises LocalError."""
    _match(_TO, to, "to")
    _match(_CONTEXT_NAME, context, "context")
    return {"Exten": to, "Context": context}


def _match(pattern: re.Pattern[str], value: str, name: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise LocalError(f"{name} is not of the form that may be sent to the PBX", field=name)
