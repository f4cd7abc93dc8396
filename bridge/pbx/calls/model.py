"""What the tracker holds: channels, bridges, calls; and a call's form as JSON, for whoever takes over.

Times are seconds since the epoch (float), as the PBX's events carry them.
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import Any

import msgspec
from msgspec import Struct, field

from bridge.domain.calls import Direction, Party

QUIET_BRIDGES = frozenset({"parking", "holding", "agent"})
"""Types of bridges whose members do not hear each other."""
CONFERENCE = "base"


class Line(IntEnum):
    """A channel's state."""

    DOWN = 0
    RING = 4
    RINGING = 5
    UP = 6
    BUSY = 7


class Channel(Struct, omit_defaults=True):
    """One leg, or half of a wire between legs. What its name means, the PBX's own side knows and writes down here."""

    uid: str
    name: str
    born: float
    link: str
    """The channel at its birth to which it belongs; its own uid where it began something."""
    device: str = ""
    """Whose leg it is, such as `PJSIP/101` or `user/101`."""
    real: bool = False
    """A person may be at its end."""
    internal: bool = False
    """The PBX's own; it never makes a call."""
    wire: str = ""
    """The wire of which it is one half, and which half: two channels of the PBX's that pass on what they hear."""
    half: str = ""
    chosen: bool = False
    """Its uid was not made by the PBX alone, so that it may come again."""
    part: str = ""
    """For our own dials, whose leg the PBX says it is (`agent`, `customer`); empty where it does not say."""
    call: str = ""
    state: int = Line.DOWN
    number: str | None = None
    caller_name: str | None = None
    exten: str | None = None
    outgoing: bool = False
    """The PBX calls it; else it called the PBX."""
    trunk: bool = False
    withheld: bool = False
    dialled: bool = False
    dialler: str | None = None
    dialled_number: str | None = None
    dial_status: str = ""
    ringing: bool = False
    offered: bool = False
    accepted: bool = False
    unoffered: bool = False
    picked_up: bool = False
    hung_up: bool = False
    """It asked for its own end."""
    held: bool = False
    holder: str = ""
    """The channel of ours by which it holds the others; empty where the phone itself does."""
    parked: bool = False
    bridge: str | None = None
    guest_of: str | None = None
    """The consultation in which this leg of another call takes part."""
    consults: str = ""
    """The consultation that it opened by dialling."""
    route: str = ""
    """Where the PBX last sent it, in the PBX's own words: what changes during a talk is a transfer."""
    sent_on: bool = False
    """That transfer has been told already."""
    deserted: bool = False
    """Who was connected with it hung up."""
    role: str = ""
    """For a leg that an action of ours made: what it is for; empty for all others."""
    command: str = ""
    """The command of that action."""
    slot: str = ""
    """Where it is parked, or was last."""
    sent_by: str = ""
    """The device that is parking it, until it is told where."""

    @property
    def there(self) -> bool:
        """Whether a person is at its end: the one who called, or one who has answered."""
        return self.real and (self.state == Line.UP or not self.outgoing)


class Bridge(Struct, omit_defaults=True):
    """A place where channels meet; members in the order in which they came."""

    id: str
    type: str = "basic"
    members: list[str] = field(default_factory=list)


class Call(Struct, omit_defaults=True):
    """One conversation, from its first channel's birth to its last channel's end."""

    id: str
    first: str
    born: float
    seq: int = 0
    originated: bool = False
    attempt: str | None = None
    callback: str | None = None
    campaign: str | None = None
    client: str | None = None
    agent: str | None = None
    agent_device: str | None = None
    expected_number: str | None = None
    agent_first: bool = True
    direction: Direction | None = None
    caller: Party | None = None
    callee: Party | None = None
    legs: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    queue: str | None = None
    abandoned: bool = False
    answer_seen: bool = False
    """One of its legs was answered since it was last queued or sent on."""
    offered: bool = False
    """Somebody was offered it, or could not even be rung."""
    caller_answered: bool = False
    caller_left: bool = False
    caller_cause: int | None = None
    customer_answered: bool = False
    deciding: str | None = None
    """For our own dials: why the leg that decides was given up (an UnofferedReason)."""
    deciding_cause: int | None = None
    deciding_customer: bool = False
    agent_tried: bool = False
    """For our own dials: a leg to the agent showed itself."""
    customer_tried: bool = False
    connected_at: float | None = None
    talk_since: float | None = None
    talk_seconds: float = 0.0
    heard: list[str] = field(default_factory=list)
    talked: list[str] = field(default_factory=list)
    """The company's devices that were connected."""
    ended_by: Party | None = None
    consultation: bool = False
    guest: str | None = None
    transferred_by: str | None = None
    consulted_by: Party | None = None
    """The PBX says that this one left, to let two others go on: an attended transfer that is about to show."""
    last_gone: Party | None = None
    """Who was connected and left last."""
    picked_off: Party | None = None
    """The phone that rang, of a call that another is taking."""
    last: float = 0.0
    """The time of its latest event."""

    @property
    def started(self) -> bool:
        return self.seq > 0


class _State(Struct):
    v: int
    call: Call
    channels: list[Channel]
    bridges: list[Bridge]


_encoder = msgspec.json.Encoder()
"""Every event of a call writes its state: this writer takes less time than pydantic's, and pydantic's than json's."""


def dump(call: Call, channels: list[Channel], bridges: list[Bridge]) -> str:
    """A call with what it consists of, as JSON; what is absent is as it is at first."""
    return _encoder.encode(_State(2, call, channels, bridges)).decode()


def load(text: str) -> tuple[Call, list[Channel], list[Bridge]]:
    """The reverse of `dump`. Raises ValueError for anything else."""
    try:
        data = json.loads(text)
        if data["v"] != 2:
            raise ValueError("a dump of another version")
        raw = _known(Call, data["call"])
        for name in ("caller", "callee", "ended_by", "consulted_by", "last_gone", "picked_off"):
            raw[name] = Party(**raw[name]) if raw.get(name) else None
        raw["direction"] = Direction(raw["direction"]) if raw.get("direction") else None
        call = Call(**raw)
        channels = [Channel(**_known(Channel, item)) for item in data["channels"]]
        bridges = [Bridge(**_known(Bridge, item)) for item in data["bridges"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a dumped call: {type(error).__name__}") from None
    return call, channels, bridges


def _known(kind: type[Struct], raw: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name in kind.__struct_fields__}
