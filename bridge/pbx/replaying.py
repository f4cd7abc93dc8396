"""Serves a recording as the PBX would: any client signs in, subscribes and asks, and then hears what was recorded.

The answers to questions are the stand-in's own (no channel is up); of the recording only the events are played, cut
as they came or smaller.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from bridge.domain.errors import Invalid
from bridge.pbx.ami.codec import AmiProtocolError
from bridge.pbx.ami.codec import Decoder as AmiDecoder
from bridge.pbx.sim.ami import FakeAsterisk
from bridge.pbx.sim.esl import FakeFreeSWITCH, frames
from bridge.pbx.trace import Row, rows
from bridge.uptime import uptime

_BEFORE = 0.3
"""Seconds between the first subscription and the first event."""
_POLL = 0.02
Piece = tuple[bytes, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Recording:
    """What is played of a file."""

    kind: Literal["asterisk", "freeswitch"]
    steps: tuple[tuple[float, tuple[Piece, ...]], ...]
    """When, and what came in one piece then: (part of an event, that event)."""
    events: int

    @property
    def seconds(self) -> float:
        """From the first event to the last."""
        return self.steps[-1][0] - self.steps[0][0] if self.steps else 0.0


def read(path: Path) -> Recording:
    """Raises Invalid where it is no recording of a PBX, OSError where it cannot be read."""
    received = [row for row in rows(path) if row.received]
    data = b"".join([row.data for row in received])
    if data.startswith(b"Asterisk Call Manager/"):
        return _recording("asterisk", received, list(_ami_events(data)))
    if data.startswith(b"Content-"):
        found = []
        position = 0
        for raw, frame in frames(data):
            if frame.event is not None:
                found.append((position, position + len(raw), frame.event))
            position += len(raw)
        return _recording("freeswitch", received, found)
    raise Invalid(f"{path}: what it holds was said neither by an Asterisk nor by a FreeSWITCH")


def _ami_events(data: bytes) -> Iterator[tuple[int, int, Mapping[str, str]]]:
    """Where each event stands that came unasked for."""
    start = data.find(b"\r\n") + 2
    decoder = AmiDecoder()
    lists: set[str] = set()
    try:
        decoder.feed(data[:start])
        while (end := data.find(b"\r\n\r\n", start)) >= 0:
            end += 4
            for message in decoder.feed(data[start:end]):
                if message.get("EventList", "").lower() == "start":
                    lists.add(message.get("ActionID", ""))
                # The stand-in greets by itself, and answers what is asked.
                elif message.get("Event", "FullyBooted") != "FullyBooted" and message.get("ActionID") not in lists:
                    yield start, end, message
            start = end
    except AmiProtocolError:
        return


def _recording(
    kind: Literal["asterisk", "freeswitch"],
    received: Sequence[Row],
    events: Sequence[tuple[int, int, Mapping[str, str]]],
) -> Recording:
    """Cut the events where the rows were cut."""
    ends = list(accumulate(len(row.data) for row in received))
    data = b"".join([row.data for row in received])
    pieces: list[list[Piece]] = [[] for _ in received]
    for start, end, event in events:
        while start < end:
            row = bisect_right(ends, start)
            upto = min(end, ends[row])
            pieces[row].append((data[start:upto], event))
            start = upto
    steps = tuple((row.t, tuple(parts)) for row, parts in zip(received, pieces, strict=True) if parts)
    return Recording(kind, steps, len(events))


class Replay:
    """The stand-in with its recording."""

    def __init__(self, recording: Recording, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._recording = recording
        kind = FakeFreeSWITCH if recording.kind == "freeswitch" else FakeAsterisk
        self.server: FakeAsterisk | FakeFreeSWITCH = kind(port=port, host=host)
        self.server.any_secret = True
        self._stopped = threading.Event()

    def stop(self) -> None:
        """From a signal handler or another thread."""
        self._stopped.set()

    def wait(self) -> None:
        """Until `stop`."""
        self._stopped.wait()

    def play(self, *, speed: float | None = 1.0, chunk: int = 65536) -> bool:
        """Wait for somebody who hears events, then play all once; None is as fast as it goes. False where stopped."""
        while not self.server.listeners:
            if self._stopped.wait(_POLL):
                return False
        steps = self._recording.steps
        began = uptime() + _BEFORE
        for at, pieces in steps:
            due = began + (at - steps[0][0]) / speed if speed else began
            if self._stopped.wait(max(0.0, due - uptime())):
                return False
            self.server.tell(pieces, chunk)
        return True
