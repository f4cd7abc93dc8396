"""Who is at a channel's end."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Any

from bridge.domain.calls import Directory, Party
from bridge.pbx.calls.model import Channel

_EXTENSION = re.compile(r"[0-9]{2,6}")
_NUMBER = re.compile(r"\+?[0-9*#]{2,32}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_WITHHELD = frozenset({"anonymous", "restricted", "private", "withheld", "unavailable", "blocked"})
_UNKNOWN = frozenset({"", "<unknown>", "<null>", "s"})
MAX_TEXT = 200


def known(value: str | None) -> str | None:
    """A PBX's ways to say nothing become None; control characters and excess length go."""
    if value is None or value in _UNKNOWN:
        return None
    if not value.isprintable():
        value = _CONTROL.sub(" ", value).strip()
    return value[:MAX_TEXT] or None


def is_withheld(number: str | None) -> bool:
    """Whether the number says that the caller asked not to be shown."""
    return number is not None and number.lower() in _WITHHELD


def dialled_number(dial_string: str, caller_id: str | None) -> str | None:
    """The number in what the PBX dials (`+15550100@trunk`, `trunk/5550100`), else the leg's caller id."""
    text = dial_string.split("@", 1)[0].rsplit("/", 1)[-1]
    return text if _NUMBER.fullmatch(text) else caller_id


class Parties:
    """Makes parties of channels, by the settings' trunks and the company's directory."""

    def __init__(self, trunks: tuple[str, ...], directory: Directory) -> None:
        self._trunks = trunks
        self._leads_outside = re.compile("|".join(translate(pattern) for pattern in trunks) or "(?!)")
        self.directory = directory

    def is_trunk(self, *names: str) -> bool:
        """Whether the device leads outside; `names` are all by which the settings may call it."""
        match = self._leads_outside.match
        return any(match(name) for name in names)

    def has_trunk(self, prefix: str) -> bool:
        """Whether the settings name a trunk that begins so."""
        return any(pattern.startswith(prefix) for pattern in self._trunks)

    def party(self, channel: Channel) -> Party:
        """The person at the channel's end, as far as known."""
        device = channel.device
        if channel.trunk:
            if channel.withheld:
                return Party(device=device, withheld=True)
            if channel.outgoing:
                return Party(device=device, number=channel.dialled_number or channel.number)
            return Party(device=device, number=channel.number, name=channel.caller_name)
        return Party(
            device=device,
            extension=self.extension(device, channel.number),
            name=None if channel.withheld else channel.caller_name,
            agent=self.directory.agents.get(device),
        )

    def inside(self, device: str, agent: str | None = None) -> Party:
        """A device of the company that no channel shows yet."""
        return Party(
            device=device,
            extension=self.extension(device, None),
            agent=agent or self.directory.agents.get(device),
        )

    def dialled(self, digits: str | None, *, outside: bool = False) -> Party | None:
        """What somebody dialled, before it is known who has it."""
        if digits is None:
            return None
        if not outside and _EXTENSION.fullmatch(digits):
            return Party(extension=digits)
        if _NUMBER.fullmatch(digits):
            return Party(number=digits)
        return Party(extension=digits)

    def client(self, number: str | None) -> str | None:
        """The client whose number was dialled; with or without the plus sign, as the trunk sends it."""
        if number is None:
            return None
        clients = self.directory.clients
        bare = number.lstrip("+")
        return clients.get(number) or clients.get("+" + bare) or clients.get(bare)

    @staticmethod
    def extension(device: str, caller_id: str | None) -> str | None:
        """The endpoint's name where it is an internal number, else its caller id where that is one."""
        name = device.rsplit("/", 1)[-1].split("@", 1)[0]
        if _EXTENSION.fullmatch(name):
            return name
        return caller_id if caller_id and _EXTENSION.fullmatch(caller_id) else None


def shown(party: Party | None) -> dict[str, Any] | None:
    """A party in the published shape, as `Party.as_dict` gives it, but made without copying deeply."""
    if party is None:
        return None
    shape: dict[str, Any] = {
        "device": party.device,
        "extension": party.extension,
        "number": None if party.withheld else party.number,
        "name": party.name,
        "agent": party.agent,
    }
    if party.withheld:
        shape["withheld"] = True
    return shape
