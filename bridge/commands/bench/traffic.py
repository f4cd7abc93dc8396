"""Recorded traffic as one stream of events that can be played again and again, each time with other calls in it.

The recordings are played at the same time, not one behind the other, as the calls of a PBX are; each pass over them
gives every channel another id, every event the time at which it is sent, and FreeSWITCH's another number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import bridge
from bridge.domain.calls import CallEvent, CallEventType
from bridge.domain.errors import NotFound
from bridge.pbx.ami.codec import Decoder as AmiDecoder
from bridge.pbx.ami.hearing import UNHEARD
from bridge.pbx.ami.tracker import Tracker as AmiTracker
from bridge.pbx.esl.codec import Decoder as EslDecoder
from bridge.pbx.esl.hearing import CUSTOM, EVENTS, SUBCLASSES
from bridge.pbx.esl.tracker import Tracker as EslTracker
from bridge.pbx.sim.esl import events_of
from bridge.pbx.trace import received

TRACES = Path(bridge.__file__).parent.parent / "tests" / "traces"
NAME = "bench"
"""The PBX's."""
TRUNKS = ("PJSIP/trunk", "sofia/gateway/*", "sofia/external")
Kind = Literal["asterisk", "freeswitch"]
_GREETING = b"Asterisk Call Manager/11.0.0\r\n"
_JSON, _PLAIN = "freeswitch-1.11-json", "freeswitch-1.11-plain"
_NOT_OF_A_CALL = (b"Event: FullyBooted\r\n",)
_NO_TIME = b"0000000000.000000"
_ESL_HEAD = re.compile(rb"Content-Length: ([0-9]+)\n")
_ESL_SEQUENCE = re.compile(rb'(Event-Sequence(?:": ?"|: ))([0-9]+)')
_UUID = rb"(?P<hex>[0-9a-f]{8})(?=-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_SLOTS = {
    # An id holds the second in which its channel began, a channel's name a running number.
    "asterisk": re.compile(
        rb"(?<=\nTimestamp: )(?P<time>[0-9]{10}\.[0-9]{6})|(?P<second>[0-9]{10})(?=\.[0-9]+\r\n)"
        rb"|(?<=-)(?P<number>[0-9a-f]{8})(?=(?:;[12])?\r\n)|" + _UUID
    ),
    "freeswitch": re.compile(
        rb'(?<=Event-Date-Timestamp":")(?P<time>[0-9]{16})|(?<=Event-Sequence":")(?P<sequence>[0-9]{10})'
        rb"|(?<=Event-Date-Timestamp: )(?P<plain_time>[0-9]{16})|(?<=Event-Sequence: )(?P<plain_sequence>[0-9]{10})|"
        + _UUID
    ),
}
"""What is another thing in each pass, always of the same length."""
_TIME, _SEQUENCE = -1, -2
_FIRST_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one PBX said in some calls that ran at the same time; played once it is one pass."""

    kind: Kind
    stream: tuple[tuple[int, bytes], ...]
    """The events in order, each with the number of its recording."""
    bare: tuple[tuple[int, bytes], ...]
    """The same as the bare library reads them: greenswitch knows the plain encoding alone."""
    calls: int
    """So many calls are in it, as Ringbridge counts, and so many events of calls."""
    call_events: int

    @property
    def events(self) -> int:
        return len(self.stream)

    @property
    def bytes_per_event(self) -> int:
        return round(sum(len(event) for _, event in self.stream) / len(self.stream))

    def play(self, rate: int, size: int, *, bare: bool = False) -> Iterator[Group]:
        """Without end, in groups of so many events: what to send, and how long after the first it is due."""
        cut = _Cut(self.kind)
        groups = cut.groups(self.bare if bare else self.stream, size)
        sequence = (b"%010d" % number for number in count(1_000_000))
        sent = 0
        for number in count(1):
            names = cut.names(number)
            for texts, slots, events in groups:
                yield Group(texts, slots, names, sequence, sent / rate, events)
                sent += events


class _Cut:
    """Cuts recordings where another pass says something else, and says what it is."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._pattern = _SLOTS[kind]
        self._numbers: dict[tuple[int, bytes, bool], int] = {}

    def groups(
        self, events: Sequence[tuple[int, bytes]], size: int
    ) -> list[tuple[tuple[bytes, ...], tuple[int, ...], int]]:
        """The events in groups of that size."""
        found = []
        for at in range(0, len(events), size):
            texts, slots, rest = [], [], b""
            for recording, event in events[at : at + size]:
                end = 0
                for match in self._pattern.finditer(event):
                    texts.append(rest + event[end : match.start()])
                    slots.append(self._slot(recording, match))
                    rest, end = b"", match.end()
                rest += event[end:]
            found.append(((*texts, rest), tuple(slots), len(events[at : at + size])))
        return found

    def _slot(self, recording: int, match: re.Match[bytes]) -> int:
        what = match.lastgroup or ""
        if what.endswith("time"):
            return _TIME
        if what.endswith("sequence"):
            return _SEQUENCE
        # What is the same in two recordings is not the same.
        return self._numbers.setdefault((recording, match[0], what == "second"), len(self._numbers))

    def names(self, number: int) -> list[bytes]:
        """By its number what each name is called in that pass."""
        first = number * len(self._numbers)
        return [
            b"%010d" % (_FIRST_SECOND + first + at) if second else b"%08x" % (first + at)
            for at, (_, _, second) in enumerate(self._numbers)
        ]


@dataclass(frozen=True, slots=True)
class Group:
    """Some events that are sent together."""

    texts: tuple[bytes, ...]
    slots: tuple[int, ...]
    names: list[bytes]
    sequence: Iterator[bytes]
    due: float
    """Seconds after the first event of all."""
    events: int

    def data(self, kind: Kind, at: float) -> bytes:
        """The bytes, with `at` (seconds since the epoch) as the time of each event."""
        time = b"%017.6f" % at if kind == "asterisk" else b"%016d" % (at * 1e6)
        names = self.names
        parts = [b""] * (len(self.texts) + len(self.slots))
        parts[::2] = self.texts
        parts[1::2] = [
            names[slot] if slot >= 0 else time if slot == _TIME else next(self.sequence) for slot in self.slots
        ]
        return b"".join(parts)


def asterisk(traces: Path, *, filtered: bool = False) -> Traffic:
    """All recordings of Asterisks; where `filtered`, without the events that nobody hears."""
    calls = []
    for path in _recordings(traces):
        data = b"".join(received(path))
        if data.startswith(b"Asterisk Call Manager/"):
            frames = [frame + b"\r\n\r\n" for frame in data.split(b"\r\n\r\n")[:-1] if frame.startswith(b"Event: ")]
            told = [_timed(frame) for frame in frames if not frame.startswith(_NOT_OF_A_CALL)]
            calls.append([(frame, frame) for frame in told if not filtered or _named(frame) not in UNHEARD])
    return _known("asterisk", calls, traces)


def _named(frame: bytes) -> str:
    return frame.partition(b"\r\n")[0].removeprefix(b"Event: ").decode()


def _timed(frame: bytes) -> bytes:
    """As with `timestampevents = yes`."""
    if b"\r\nTimestamp: " in frame:
        return frame
    first, end, rest = frame.partition(b"\r\n")
    return first + end + b"Timestamp: " + _NO_TIME + end + rest


def freeswitch(traces: Path, *, everything: bool = False) -> Traffic:
    """The calls that were recorded in both encodings at once: what the link subscribes to, or everything."""
    calls = []
    for path in _recordings(traces / _JSON):
        other = traces / _PLAIN / path.parent.name / path.name
        if not other.exists():
            continue
        one, two = (
            [_numbered(raw) for raw, event in events_of(received(trace)) if everything or _heard(event)]
            for trace in (path, other)
        )
        if len(one) == len(two):
            calls.append(list(zip(one, two, strict=True)))
    return _known("freeswitch", calls, traces)


def _numbered(raw: bytes) -> bytes:
    """With an Event-Sequence as long as any, so that it can be replaced."""
    grown = 0

    def longer(match: re.Match[bytes]) -> bytes:
        nonlocal grown
        grown += 10 - len(match[2])
        return match[1] + match[2].rjust(10, b"0")

    changed = _ESL_SEQUENCE.sub(longer, raw)
    return _ESL_HEAD.sub(lambda match: b"Content-Length: %d\n" % (int(match[1]) + grown), changed, count=1)


def _heard(event: Mapping[str, str]) -> bool:
    name = event.get("Event-Name")
    return event.get("Event-Subclass") in SUBCLASSES if name == CUSTOM else name in EVENTS


def _recordings(folder: Path) -> list[Path]:
    found = sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.jsonl.gz")])
    # Beside a recording may lie its PBX's answers to a resync.
    return [path for path in found if not path.name.startswith("snapshots")]


def _known(kind: Kind, recordings: list[list[tuple[bytes, bytes]]], traces: Path) -> Traffic:
    """All calls that were recorded to their end, interleaved."""
    whole, said = [], []
    for recording in recordings:
        events, left = tracked(kind, b"".join([one for one, _ in recording]))
        if recording and not left:
            whole.append(recording)
            said += [event.type for event in events]
    if not whole:
        raise NotFound(f"there is no recorded traffic of {kind} in {traces}; give --traces, in a clone: tests/traces")
    order = sorted(
        (at / len(recording), number, at) for number, recording in enumerate(whole) for at in range(len(recording))
    )
    stream, bare = (tuple((number, whole[number][at][way]) for _, number, at in order) for way in (0, 1))
    started = said.count(CallEventType.STARTED)
    return Traffic(kind, stream, bare, started, len(said))


def tracked(kind: Kind, data: bytes) -> tuple[list[CallEvent], int]:
    """What our tracker says of events, and how many calls are left at their end."""
    tracker: Any
    if kind == "asterisk":
        tracker = AmiTracker(NAME, TRUNKS)
        heard: list[Any] = list(AmiDecoder().feed(_GREETING + data))
    else:
        tracker = EslTracker(NAME, TRUNKS)
        heard = [frame.event for frame in EslDecoder().feed(data) if frame.event is not None]
    return tracker.feed(heard, 0.0).events, len(tracker.book.calls)
