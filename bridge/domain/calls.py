"""Call events: what the rest of Ringbridge, and the world, learns of a call.

The names and shapes are a contract (the stream `rb:calls`). No PBX's own words appear here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class CallEventType(StrEnum):
    STARTED = "call.started"
    QUEUED = "call.queued"
    UNQUEUED = "call.unqueued"
    OFFERED = "call.offered"
    UNOFFERED = "call.unoffered"
    CONNECTED = "call.connected"
    HELD = "call.held"
    RESUMED = "call.resumed"
    TRANSFERRED = "call.transferred"
    MERGED = "call.merged"
    ENDED = "call.ended"
    UNCERTAIN = "call.uncertain"
    PBX_CONNECTED = "pbx.connected"
    PBX_LOST = "pbx.lost"
    PBX_RESYNCED = "pbx.resynced"


class Direction(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"


class Cause(StrEnum):
    """Why a call as a whole ended."""

    COMPLETED = "completed"
    ABANDONED = "abandoned"
    BUSY = "busy"
    REJECTED = "rejected"
    NO_ANSWER = "no_answer"
    CANCELLED = "cancelled"
    FAILED = "failed"
    MACHINE = "machine"
    UNCERTAIN = "uncertain"


class UnofferedReason(StrEnum):
    ANSWERED_ELSEWHERE = "answered_elsewhere"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Party:
    """A person's side of a call; what is unknown is None. A withheld number is never put here."""

    device: str | None = None
    extension: str | None = None
    number: str | None = None
    name: str | None = None
    agent: str | None = None
    withheld: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The published shape: the five fields, and `withheld` only where it is true."""
        shape = asdict(self)
        if not shape.pop("withheld"):
            return shape
        return {**shape, "number": None, "withheld": True}


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One entry of `rb:calls`. `call` and `seq` are None for the `pbx.*` types only."""

    type: CallEventType
    pbx: str
    at: datetime
    call: str | None = None
    seq: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Directory:
    """What the tracker may know of the company: whose device it is, whose DID was dialled.

    `agents` maps a device (`PJSIP/101`) to an agent's id; `clients` a dialled number to a client's id.
    """

    agents: Mapping[str, str] = field(default_factory=dict)
    clients: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expected:
    """A dial of ours that the tracker will see: it knows the call's meaning before its first event."""

    attempt: str
    agent: str | None = None
    agent_device: str | None = None
    number: str | None = None
    callback: str | None = None
    campaign: str | None = None
    client: str | None = None
    agent_first: bool = True


@dataclass(frozen=True, slots=True)
class Remembered:
    """An open call as the call history has it; times are seconds since the epoch, `seq` is its latest event's."""

    id: str
    seq: int
    born: float
    last: float
    direction: Direction | None = None
    caller: Party | None = None
    callee: Party | None = None
    client: str | None = None
    queue: str | None = None
    """In which it waits."""
    connected_at: float | None = None
    offered: frozenset[str] = frozenset()
    """Devices that ring, or were answered."""
    talked: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    expected: Expected | None = None
    """Where it is a dial of ours."""
