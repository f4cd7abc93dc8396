"""Scenarios: who does what on a real PBX, and what follows from it for a tracker of calls.

Each is written once for every kind of PBX and used three ways: played before a link
(`tests/pbx/test_scenarios_live.py`), recorded for the corpus (`scenarios.record`), and counted in the table of
`tests/README.md` (`scenarios.matrix`).

    @scenario("busy", "Inbound DID to 101, which is busy (486).", family="direct")
    def busy(stage: Stage) -> Expected: ...

plays the people on the stage and returns what must come of it. That is written from the story and the rulings on call
events, and bound to lines of the witness's diary; no tracker is asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scenarios.expected import Expected
    from scenarios.stage import Stage

FAMILIES = ("direct", "queues", "forwards", "callers", "blind", "attended", "sharing", "wires", "dials", "races")
"""Modules of scenarios, in the order of the table."""

Play = Callable[["Stage"], "Expected"]


@dataclass(frozen=True)
class Scenario:
    """One story, and how it is played."""

    name: str
    what: str
    family: str
    play: Play
    cannot: Mapping[str, str] = field(default_factory=dict)
    """PBXs on which it cannot be played (`asterisk`, `freeswitch`, `asterisk-16`), each with the reason."""

    def why_not(self, pbx: str) -> str | None:
        """Why it is not for that PBX (`asterisk-22-lab`); None where it is."""
        return next((why for name, why in self.cannot.items() if pbx.startswith(name)), None)


_found: dict[str, Scenario] = {}


def scenario(
    name: str, what: str, *, family: str, cannot: Mapping[str, str] | None = None
) -> Callable[[Play], Play]:
    """Register the decorated function as that scenario."""

    def register(play: Play) -> Play:
        if name in _found:
            raise ValueError(f"there are two scenarios {name}")
        _found[name] = Scenario(name, what, family, play, cannot or {})
        return play

    return register


def every() -> dict[str, Scenario]:
    """All scenarios by name, families in their order."""
    for family in FAMILIES:
        importlib.import_module(f"scenarios.{family}")
    return dict(sorted(_found.items(), key=lambda item: FAMILIES.index(item[1].family)))
