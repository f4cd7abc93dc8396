"""What can be done to a call that is under way, and which values that takes. No I/O; no PBX's own words.

Whatever is sent to a PBX passes `check` first: when it is asked for, when the listener takes it up, and on the link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from bridge.domain.errors import Invalid


class Action(StrEnum):
    """One thing that can be done to a call."""

    HOLD = "hold"
    RESUME = "resume"
    TRANSFER = "transfer"
    """Send the other side on, unannounced."""
    CONSULT = "consult"
    """Ask somebody first: the other side waits, the target rings."""
    COMPLETE = "complete"
    """Leave; who waited and who was asked go on together."""
    RETURN = "return"
    """Back from a consultation to who waits."""
    CONFERENCE = "conference"
    PARK = "park"
    RETRIEVE = "retrieve"
    """A parked call comes to the device."""
    PICKUP = "pickup"
    """A call that rings elsewhere comes to the device."""
    REDIRECT = "redirect"
    """A caller who has nobody yet goes elsewhere."""
    PLAY = "play"
    STOP = "stop"
    DTMF = "dtmf"
    RECORD = "record"
    """Begin to record, or go on where recording is paused."""
    PAUSE = "pause"
    UNPAUSE = "unpause"
    """Go on recording; not possible where nothing is paused."""
    UNRECORD = "unrecord"
    LISTEN = "listen"
    WHISPER = "whisper"
    BARGE = "barge"


class Side(StrEnum):
    """Who hears what is played."""

    BOTH = "both"
    CUSTOMER = "customer"
    AGENT = "agent"


TO = r"\+?[0-9*]{2,15}"
"""An extension or a number, as somebody would dial it."""
DIGITS = r"[0-9*#A-Da-d]{1,32}"
SOUND = r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*"
"""A sound file by the name that the PBX knows it by: folders and a name, no extension, never a way up."""
MAX_SOUND = 100
DEVICE = r"((PJSIP|SIP)/[A-Za-z0-9_.-]{1,64}|user/[A-Za-z0-9_.+-]{1,64}(@[A-Za-z0-9_.-]{1,128})?)"
"""A phone."""

NEEDS: Mapping[Action, frozenset[str]] = MappingProxyType(
    {
        Action.TRANSFER: frozenset({"to"}),
        Action.CONSULT: frozenset({"to"}),
        Action.CONFERENCE: frozenset({"to"}),
        Action.REDIRECT: frozenset({"to"}),
        Action.PLAY: frozenset({"sound", "side"}),
        Action.DTMF: frozenset({"digits"}),
        Action.RETRIEVE: frozenset({"device"}),
        Action.PICKUP: frozenset({"device"}),
        Action.LISTEN: frozenset({"device"}),
        Action.WHISPER: frozenset({"device"}),
        Action.BARGE: frozenset({"device"}),
    }
)
"""The values that an action takes, and no others; what is not named takes none."""

WATCHING = frozenset({Action.LISTEN, Action.WHISPER, Action.BARGE})
"""What a supervisor does in a call of others."""
TO_OWN_PHONE = WATCHING | {Action.RETRIEVE, Action.PICKUP}
"""The device of who asks rings first."""

_RINGS = TO_OWN_PHONE | {Action.CONFERENCE}
"""Done only once somebody has answered."""

_PATTERNS = {
    "to": re.compile(TO),
    "digits": re.compile(DIGITS),
    "sound": re.compile(SOUND),
    "side": re.compile("|".join(Side)),
    "device": re.compile(DEVICE),
}
_OUTCOME_SECONDS = 10.0


def check(action: Action, values: Mapping[str, str | None]) -> None:
    """Raises Invalid, which names the value's place, unless these are the values that the action takes.

    `values` may hold `to`, `digits`, `sound`, `side` and `device`; None is the same as not there.
    """
    needs = NEEDS.get(action, frozenset())
    for name, pattern in _PATTERNS.items():
        value = values.get(name)
        if value is None:
            if name in needs:
                raise Invalid(f"to {action} a call, {name} is needed", field=name)
            continue
        if name not in needs:
            raise Invalid(f"to {action} a call takes no {name}", field=name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise Invalid("is not of the form that may be sent to a PBX", field=name)
        if name == "sound" and len(value) > MAX_SOUND:
            raise Invalid(f"a sound's name has {MAX_SOUND} characters at most", field=name)


def outcome_seconds(action: Action, ring_seconds: int) -> float:
    """How long one waits for what the PBX says of it, once it was sent."""
    return _OUTCOME_SECONDS + (ring_seconds if action in _RINGS else 0)
