"""Recorded traffic as one stream of events that can be played again and again, each time with other calls in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import bridge
from bridge.domain.errors import NotFound
from bridge.pbx.esl.hearing import CUSTOM, EVENTS, SUBCLASSES
from bridge.pbx.sim.esl import events_of
from bridge.pbx.trace import received

TRACES = Path(bridge.__file__).parent.parent / "tests" / "traces"
Kind = Literal["asterisk", "freeswitch"]
_JSON, _PLAIN = "freeswitch-1.11-json", "freeswitch-1.11-plain"
_ALIKE = 5
"""Passes with the same channels: their calls have ended, and to rename them costs the sender more than to send them."""
_AMI_ID = re.compile(rb"(?:Unique[iI]d|Linkedid): ([^\r\n]*?[0-9]{10}\.[0-9]+)\r\n")
_EPOCH = re.compile(rb"[0-9]{10}(?=\.[0-9]+$)")
_UUID = re.compile(rb"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one PBX said in its recorded calls."""

    kind: Kind
    calls: tuple[tuple[bytes, ...], ...]
    """By recording, the events' bytes."""
    bare: tuple[tuple[bytes, ...], ...]
    """The same as the bare library reads them: greenswitch knows the plain encoding alone."""

    @property
    def events(self) -> int:
        return sum(map(len, self.calls))

    def passes(self) -> Iterator[tuple[bytes, Sequence[int]]]:
        """Without end: all of it, and where each event ends; every few passes the channels are others."""
        flat = [event for call in self.calls for event in call]
        ends = list(accumulate(map(len, flat)))
        parts = self._ids().split(b"".join(flat))
        names = set(parts[1::2])
        number = 0
        while True:
            number += 1
            other = {name: self._renamed(name, number) for name in names}
            parts_now = list(parts)
            parts_now[1::2] = [other[name] for name in parts[1::2]]
            data = b"".join(parts_now)
            for _ in range(_ALIKE):
                yield data, ends

    def _ids(self) -> re.Pattern[bytes]:
        if self.kind == "freeswitch":
            return _UUID
        found = {match[1] for call in self.calls for event in call for match in _AMI_ID.finditer(event)}
        # The longest first: no id is taken for the beginning of another.
        return re.compile(b"(" + b"|".join(map(re.escape, sorted(found, key=len, reverse=True))) + rb")(?![0-9])")

    def _renamed(self, name: bytes, number: int) -> bytes:
        if self.kind == "freeswitch":
            return b"%08x%b" % (int(name[:8], 16) ^ number, name[8:])
        return _EPOCH.sub(lambda match: b"%010d" % (int(match[0]) - number * 100_000 % 1_000_000_000), name)


def asterisk(traces: Path, *, narrow: bool = False) -> Traffic:
    """All recordings of Asterisks; a manager's user cannot subscribe, so `narrow` changes nothing."""
    calls = []
    for path in _recordings(traces):
        data = b"".join(received(path))
        if data.startswith(b"Asterisk Call Manager/"):
            frames = data.split(b"\r\n\r\n")[:-1]
            calls.append(tuple(frame + b"\r\n\r\n" for frame in frames if frame.startswith(b"Event: ")))
    return _known("asterisk", calls, calls, traces)


def freeswitch(traces: Path, *, narrow: bool = False) -> Traffic:
    """The calls that were recorded in both encodings at once; where `narrow`, what the link subscribes to of them."""
    calls, bare = [], []
    for path in _recordings(traces / _JSON):
        other = traces / _PLAIN / path.parent.name / path.name
        if not other.exists():
            continue
        one, two = (
            [raw for raw, event in events_of(received(trace)) if not narrow or _heard(event)] for trace in (path, other)
        )
        if len(one) == len(two):
            calls.append(tuple(one))
            bare.append(tuple(two))
    return _known("freeswitch", calls, bare, traces)


def _heard(event: dict[str, str]) -> bool:
    name = event.get("Event-Name")
    return event.get("Event-Subclass") in SUBCLASSES if name == CUSTOM else name in EVENTS


def _recordings(folder: Path) -> list[Path]:
    return sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.jsonl.gz")])


def _known(
    kind: Kind, calls: list[tuple[bytes, ...]], bare: list[tuple[bytes, ...]], traces: Path
) -> Traffic:
    if not any(calls):
        raise NotFound(f"there is no recorded traffic of {kind} in {traces}; give --traces, in a clone: tests/traces")
    return Traffic(kind, tuple(calls), tuple(bare))
