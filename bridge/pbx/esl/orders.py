"""The commands we send, built from values that match their allow-list pattern.

FreeSWITCH expands the originate before it runs it, and splits it at spaces, commas and brackets; no value that passes
its pattern holds any of these, a dollar sign, a quote or a line's end.
"""

from __future__ import annotations

import re

from bridge.pbx.connecting import joined_at
from bridge.pbx.esl.codec import LocalError
from bridge.pbx.port import DialOrder

DIAL_PATTERN = re.compile(r"\+?[0-9]{3,15}")
DEVICE_PATTERN = re.compile(r"user/[A-Za-z0-9_.+-]{1,64}(@[A-Za-z0-9_.-]{1,128})?")
_DIAL_STRING = re.compile(r"[A-Za-z0-9]{1,20}/[A-Za-z0-9@.:/_+-]{1,120}")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LAST_SECOND = range(1_000_000_000, 10_000_000_000)
REALM = "ringbridge"
"""Of the PBX's hash, where receipts are."""
SECOND_LEG = "ringbridge-go"
"""Our context, which the first leg enters once it has answered."""
CONFIRM = "ringbridge-confirm"
"""Our context that asks the customer first. An older file has none: then nobody unconfirmed gets to an agent."""
PLACE = "ringbridge-place"
"""Our context in which a customer who was called first waits for whoever is free."""
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SOUND = re.compile(r"[A-Za-z0-9_-]{1,100}(/[A-Za-z0-9_-]{1,100}){0,9}")


def dial_job(attempt: str) -> str:
    """The Job-UUID under which the PBX reports on an attempt's originate."""
    return attempt


def originate(order: DialOrder, until: int) -> str:
    """The one originate of an order, for `bgapi`. Raises LocalError, which names the value's place only.

    `until` is the last second, of the PBX's own clock, in which it may begin.
    """
    match(UUID, order.attempt, "attempt")
    if order.queue is None:
        match(DEVICE_PATTERN, order.agent_device, "agent_device")
    else:
        match(_QUEUE, order.queue, "queue")
    match(DIAL_PATTERN, order.number, "number")
    match(_DIAL_STRING, order.dial_string, "dial_string")
    if order.caller_id is not None:
        match(DIAL_PATTERN, order.caller_id, "caller_id")
    if order.first not in ("agent", "customer"):
        raise LocalError("first must be agent or customer", field="first")
    rings = {"agent": order.agent_ring_seconds, "customer": order.customer_ring_seconds}
    if not all(type(seconds) is int and 1 <= seconds <= 300 for seconds in rings.values()):
        raise LocalError("a ring time must be 1 to 300 whole seconds", field="ring_seconds")
    if until not in _LAST_SECOND:
        raise LocalError("the PBX's clock is not of this age", field="until")
    confirm: dict[str, str] = {}
    if order.confirm is not None:
        if order.first != "customer":
            raise LocalError("only a customer who is called first can confirm", field="confirm")
        match(_SOUND, order.confirm, "confirm")
        confirm["rb_confirm"] = f"{order.confirm}.wav"
    whom = {"rb_agent": order.agent_device}
    if order.queue is not None:
        if order.first != "customer" or confirm:
            raise LocalError("only a customer who is called first, and not asked, can wait in a queue", field="queue")
        whom = {"rb_queue": order.queue, "rb_joined": str(joined_at(order, until))}
    variables = {
        "rb_attempt": order.attempt,
        "rb_first": order.first,
        "rb_leg": order.first,
        **whom,
        "rb_number": order.number,
        "rb_dial": order.dial_string,
        **({"rb_caller": order.caller_id} if order.caller_id is not None else {}),
        "rb_agent_ring": str(order.agent_ring_seconds),
        "rb_customer_ring": str(order.customer_ring_seconds),
        **confirm,
        **_shown(order.number if order.first == "agent" else order.caller_id or "anonymous"),
        "ignore_early_media": "true",
        "originate_timeout": str(rings[order.first]),
        "call_timeout": str(rings[order.first]),
        "hangup_after_bridge": "true",
        "sip_h_X-Ringbridge-Attempt": order.attempt,
        # A phone book entry may ring several phones, and two channels cannot have one id.
        **(_of_customer(order.attempt) if order.first == "customer" else {}),
    }
    target = order.agent_device if order.first == "agent" else order.dial_string
    joined = ",".join(f"{name}={value}" for name, value in variables.items())
    fenced = _fenced(order.attempt, order.first, until, target)
    context = PLACE if order.queue is not None else CONFIRM if confirm else SECOND_LEG
    return f"expand originate {{{joined}}}{fenced} {order.number} XML {context}"


def _of_customer(attempt: str) -> dict[str, str]:
    """A receipt that turns as the leg is answered, and the attempt's id for the leg."""
    answered = f"hash:insert/{REALM}/{attempt}-customer/${{strepoch()}}-answered"
    return {"execute_on_answer_ringbridge": answered, "origination_uuid": attempt}


def _shown(number: str) -> dict[str, str]:
    return {"origination_caller_id_number": number, "origination_caller_id_name": number}


def _fenced(attempt: str, first: str, until: int, target: str) -> str:
    """The first leg's target, which FreeSWITCH makes of this only once and in time; dialplan/README.md tells why."""
    verb = f"${{cond(${{strepoch()}} <= {until} ? insert_ifempty : select)}}"
    made = f"${{hash({verb}/{REALM}/{attempt}-{first}/${{strepoch()}}-dialed)}}"
    refused = f"${{regex({made}|^-ERR.*|error/LOSE_RACE)}}"
    stale = f"${{regex({refused}|^[0-9a-z-]*$|error/STALE_DATE)}}"
    return f"${{regex({stale}|^[+]OK|{target})}}"


def hang_up(channel: str) -> str:
    """The command that ends one leg, as a person's hang-up would. Raises LocalError."""
    match(CHANNEL, channel, "channel")
    return f"uuid_kill {channel} NORMAL_CLEARING"


def receipt(attempt: str, leg: str) -> str:
    """The command that asks for a leg's receipt. Raises LocalError."""
    match(UUID, attempt, "attempt")
    return f"hash select/{REALM}/{attempt}-{leg}"


def forget(attempt: str, leg: str) -> str:
    """The command that deletes a leg's receipt. Raises LocalError."""
    match(UUID, attempt, "attempt")
    return f"hash delete/{REALM}/{attempt}-{leg}"


def remember_since(second: int) -> str:
    """The command that writes down from when on the PBX has kept receipts, where that is not written yet."""
    return f"hash insert_ifempty/{REALM}/since/{second}"


def since() -> str:
    """The command that asks from when on the PBX has kept receipts."""
    return f"hash select/{REALM}/since"


def match(pattern: re.Pattern[str], value: str, name: str) -> None:
    """Raises LocalError, which names the value's place only, unless it has that form."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise LocalError(f"{name} is not of the form that may be sent to the PBX", field=name)
