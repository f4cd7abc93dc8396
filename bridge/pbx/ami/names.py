"""What a channel's name says in Asterisk: whose device it is, half of which wire, whether a person is at its end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bridge.pbx.calls.model import Line
from bridge.pbx.calls.parties import Parties, is_withheld, known

_SUFFIX = re.compile(r"-[0-9a-f]{8,}(?:;[12])?$")
_LOCAL = re.compile(r"(Local/.+);([12])$")
_INTERNAL = (
    "CBAnn/",
    "CBRec/",
    "Announcer/",
    "Recorder/",
    "Message/",
    "Snoop/",
    "UnicastRTP/",
    "MulticastRTP/",
    "Bridge/",
    "AsyncGoto/",
    "Surrogate/",
    "OutgoingSpoolFailed",
)
HIDDEN = "anonymous"
"""What stands where a number and a name must not be shown."""
_UNREAL = ("Local/", *_INTERNAL)
LINK = "Local/_attended@transfer-"
"""A wire that Asterisk lays between the two bridges of an attended transfer, where it cannot make them one."""


def device_of(channel: str) -> str:
    """A channel's name without the running number that each call adds."""
    return _SUFFIX.sub("", channel)


def may_be_restricted(parties: Parties, item: Mapping[str, str]) -> bool:
    """Whether this channel is a caller from outside with a number that could be restricted."""
    number = known(item.get("CallerIDNum"))
    return (
        number is not None
        and not is_withheld(number)
        and item.get("ChannelState") in (str(int(Line.RING)), str(int(Line.UP)))
        and parties.is_trunk(device_of(item.get("Channel", "")))
    )


def facts(name: str) -> dict[str, Any]:
    """What the call model keeps of a channel's name."""
    wire = _LOCAL.match(name)
    return {
        "device": device_of(name),
        "real": not name.startswith(_UNREAL),
        "internal": name.startswith(_INTERNAL),
        "wire": wire[1] if wire else "",
        "half": wire[2] if wire else "",
    }
