"""The channels that the PBX makes for our actions: by what they are known, and for which leg each is there.

A channel's id says what it does and for which command; its account code names the leg. Both come with every listing
of channels, so whoever comes after us finds them. Live, the account code comes a moment after the birth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.names import device_of

CONTEXT = "ringbridge-act"
_ID = re.compile(
    r"rb-(hold|play|record|watch|pickup|retrieve|third)"
    r"-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(-2)?"
)
_INNER = re.compile(rf"Local/[a-z]+@{CONTEXT}-[0-9a-f]+;[12]")


class Role(StrEnum):
    """What such a channel is there for."""

    HOLD = "hold"
    PLAY = "play"
    RECORD = "record"
    WATCH = "watch"
    """A supervisor's phone."""
    PICKUP = "pickup"
    RETRIEVE = "retrieve"
    THIRD = "third"
    """The way to somebody who joins a conference."""


JOINS = frozenset({Role.PICKUP, Role.RETRIEVE, Role.THIRD})
"""Those that become part of the call; of the others the call knows nothing."""


@dataclass(frozen=True, slots=True)
class Aide:
    """One channel of ours."""

    uid: str
    name: str
    role: Role
    command: str
    leg: str
    """Id of the leg for which it is there; empty where the PBX does not say."""
    far: bool
    """The far half of a Local channel."""

    @property
    def device(self) -> str:
        """The phone at its end."""
        return device_of(self.name)


def aide_id(role: Role, command: str) -> str:
    """The id of the channel made for a command."""
    return f"rb-{role}-{command}"


def read(event: Mapping[str, str]) -> Aide | None:
    """What an event or a listing shows of a channel of ours; None for any other channel."""
    uid = event.get("Uniqueid", "")
    found = _ID.fullmatch(uid) if uid.startswith("rb-") else None
    if found is None:
        return None
    name, leg = event.get("Channel", ""), event.get("AccountCode", "")
    return Aide(uid, name, Role(found[1]), found[2], leg, found[3] is not None)


def is_inner(name: str) -> bool:
    """Whether a channel by its name is nothing but a part of an action."""
    return _INNER.fullmatch(name) is not None


class Aides(dict[str, Aide]):
    """Those that are there, by id."""

    def __init__(self) -> None:
        super().__init__()
        self._unplaced: dict[str, Message] = {}

    def born(self, event: Message) -> Aide | None:
        """Know a channel that is one of ours; None for any other."""
        aide = read(event)
        if aide is None:
            return None
        if aide.leg:
            self[aide.uid] = aide
        else:
            self._unplaced[aide.uid] = event
        return aide

    def placed(self, uid: str, leg: str) -> list[Message]:
        """It is known now for which leg it is there: the births to be heard again, with that."""
        near = self._unplaced.pop(uid, None)
        far = self._unplaced.pop(f"{uid}-2", None)
        return [Message({**birth, "AccountCode": leg}.items()) for birth in (near, far) if birth is not None and leg]

    def gone(self, uid: str) -> Aide | None:
        """It has ended."""
        self._unplaced.pop(uid, None)
        return self.pop(uid, None)
