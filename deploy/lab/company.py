"""The company's PBX: what the lab asks of it, whatever kind it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ringbridge_lab import places
from ringbridge_lab.installation import Installation

EXTENSIONS = ("101", "102", "103", "104", "105")
"""Phones that the world plays."""
SOFTPHONES = ("106", "107", "108")
"""Phones that nobody plays: a test opens their ports and speaks SIP itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of the lab's PBXs runs, and what it runs with."""

    lab: Path
    role: str
    """`company` or `world`."""
    run: Path
    installation: Installation
    ports: places.Ports
    secrets: places.Secrets

    @property
    def own(self) -> Path:
        return self.lab / self.role


class Company(Protocol):
    """One kind of PBX in one place."""

    name: ClassVar[str]
    """`Asterisk` or `FreeSWITCH`."""

    def write(self) -> None:
        """Write its configuration."""
        ...

    def argv(self) -> list[str]:
        """The command that runs it in the foreground."""
        ...

    def booted(self) -> bool:
        """Whether it has loaded all it will load."""
        ...

    def settle(self) -> None:
        """Do now what it would do at some random time after its start, and keep what the next lab can use."""
        ...

    def reachable(self) -> bool:
        """Whether calls can be made to all phones and through the trunk."""
        ...

    def channels(self) -> int:
        """How many channels it has now."""
        ...

    def facts(self) -> dict[str, Any]:
        """The part `company` of `lab.json`."""
        ...

    def tidy(self) -> None:
        """Delete what a process that was killed leaves outside the lab's folder."""
        ...
