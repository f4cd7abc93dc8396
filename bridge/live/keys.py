"""Every Redis key that Ringbridge uses, in one place."""

from __future__ import annotations

CALLS = "rb:calls"
"""Stream of call events (contract)."""
SCREENS = "rb:screens"
"""Stream of what goes to browsers; fields `v`, `to`, `event`, `id`, `data`."""
CHANGED = "rb:changed"
"""Pub/sub: the name of a collection whose rows were changed, so that caches reload."""


def commands(pbx: str) -> str:
    """Stream: the command mailbox of one PBX."""
    return f"rb:commands:{pbx}"


def reply(command: str) -> str:
    """List: the one reply to a command; expires."""
    return f"rb:reply:{command}"


def epoch(pbx: str) -> str:
    """The epoch of the lease whose holder may publish for this PBX."""
    return f"rb:epoch:{pbx}"


def live(pbx: str) -> str:
    """Hash, call id to the tracker's state of that call, written with the events that made it."""
    return f"rb:live:{pbx}"


def dialed(attempt: str) -> str:
    """Set once when a dial leaves for the PBX."""
    return f"rb:dialed:{attempt}"


def pops(agent: str) -> str:
    """Hash, pop id to the pop as last sent: what a page that reloads is shown."""
    return f"rb:pops:{agent}"
