"""Phones in a PBX's queues: entries as the PBX tells of them, one by one, and what they come to for each phone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.domain.mirroring import Member, Standing

REFRESH_SECONDS = 30.0
"""How often the PBX is asked for the whole list: a reload of its queues takes members away without a word."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One membership. `handle` is how the PBX calls it in commands."""

    device: str
    handle: str
    member: Member


class Members:
    """All memberships of one PBX, by a key of its own. Read from any thread: what is given out is never changed."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self.changes = 0
        """How many events changed it: a list that was asked for before one of them is old."""
        self.by_device: Mapping[str, Member] = {}

    def take(self, entries: Iterable[tuple[str, Entry]]) -> None:
        """The whole list."""
        self._entries = dict(entries)
        self._reckon()

    def put(self, key: str, entry: Entry) -> None:
        self._entries[key] = entry
        self._reckon()

    def drop(self, key: str) -> None:
        if self._entries.pop(key, None) is not None:
            self._reckon()

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def handles(self, device: str) -> list[str]:
        """How the PBX calls this phone."""
        return list(dict.fromkeys(entry.handle for entry in self._entries.values() if entry.device == device))

    def _reckon(self) -> None:
        self.changes += 1
        found: dict[str, Member] = {}
        for entry in self._entries.values():
            before = found.get(entry.device)
            if before is None or _RANK[entry.member.standing] < _RANK[before.standing]:
                found[entry.device] = entry.member
        self.by_device = found


_RANK = {Standing.AVAILABLE: 0, Standing.PAUSED: 1, Standing.OUT: 2}
