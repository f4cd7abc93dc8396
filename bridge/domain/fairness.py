"""Whose turn it is where callers wait and others wait to be called back. No clock, no I/O.

Whoever waits stands in one line by the time at which they joined it; whoever asked to be called back keeps that time,
as if they were still on the phone. Each agent who is free serves one of them, from the front of the line. So a callback
is begun only where fewer wait before it than agents are free: it overtakes nobody, and there are never more callbacks
in flight than agents that can take them (an agent who is promised to one is not free).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the line. Of those who joined at the same instant callers stand before callbacks, then by `id`."""

    joined_at: datetime
    is_callback: bool
    id: str


def ahead(mine: Place, line: Iterable[Place]) -> int:
    """How many of them stand before me."""
    return len({place for place in line if place < mine})


def may_go(mine: Place, line: Iterable[Place], agents: int) -> bool:
    """Whether one of `agents`, who are free now, is left for this callback; `line` are all others who wait."""
    return ahead(mine, line) < agents
