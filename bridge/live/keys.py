"""Every Redis key that Ringbridge uses, in one place."""

from __future__ import annotations

CALLS = "rb:calls"
"""Stream of call events (contract)."""
SCREENS = "rb:screens"
"""Stream of what goes to browsers; fields `v`, `to`, `event`, `id`, `data`."""
CHANGED = "rb:changed"
"""Pub/sub: the name of a collection whose rows were changed, so that caches reload."""

POPS_LEASE = "rb:lease:pops"
"""Which process builds pops now; expires within seconds."""


def story(call: str) -> str:
    """What the pop builder knows of one call, so that a restart goes on where it was."""
    return f"rb:story:{call}"


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


def published(pbx: str) -> str:
    """Hash `epoch`, `batch`, `id`: the last batch of call events published for this PBX, so that none is put twice."""
    return f"rb:published:{pbx}"


CALLS_CUT = "rb:calls:cut"
"""Hash `count`, `at`: entries of `rb:calls` cut at its hard cap before the recorder had them."""


def listen_metrics(pbx: str) -> str:
    """Hash, counter to value: what the listener of this PBX counts, for /metrics."""
    return f"rb:metrics:listen:{pbx}"


def reading(group: str) -> str:
    """Set while a consumer of this group of `rb:calls` reads; expires within seconds."""
    return f"rb:reading:{group}"
