"""Reads a trace through codec and tracker of its PBX, and writes call events as short lines for tests to compare."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from invariants import Watch
from recorded import pbx_of, story_of, zero_of

from bridge.domain.calls import CallEvent, Directory, Expected
from bridge.pbx.ami import codec as ami_codec
from bridge.pbx.ami import resync as ami_resync
from bridge.pbx.ami import tracker as ami_tracker
from bridge.pbx.ami.hearing import UNHEARD
from bridge.pbx.calls.gap import Resynced
from bridge.pbx.esl import codec as esl_codec
from bridge.pbx.esl import resync as esl_resync
from bridge.pbx.esl import tracker as esl_tracker
from bridge.pbx.trace import rows

Tracker = ami_tracker.Tracker | esl_tracker.Tracker
Cut = Callable[[bytes], list[bytes]]


class Side(Protocol):
    """What tests need of one kind of PBX."""

    agents: Directory

    def tracker(self) -> Any:
        """One that knows nothing yet."""

    def decoder(self) -> Callable[[bytes], list[Any]]:
        """From bytes to events, counting nothing as lost."""

    def left_alone(self, tracker: Any, since: float, now: float) -> Resynced:
        """A resync that finds no channel alive."""


class Asterisk:
    agents = Directory(agents={"PJSIP/101": "anna", "PJSIP/102": "bert"}, clients={"+15550001260": "acme"})

    def tracker(self) -> ami_tracker.Tracker:
        return ami_tracker.Tracker("lab", ("PJSIP/trunk",), self.agents)

    def decoder(self) -> Callable[[bytes], list[Any]]:
        decoder = ami_codec.Decoder(UNHEARD)

        def decode(data: bytes) -> list[Any]:
            found = decoder.feed(data)
            assert decoder.skipped == 0
            return found

        return decode

    def left_alone(self, tracker: ami_tracker.Tracker, since: float, now: float) -> Resynced:
        return ami_resync.resync(tracker, ami_resync.Snapshot(()), since, now)


class FreeSwitch:
    agents = Directory(agents={"user/101": "anna", "user/102": "bert"}, clients={"+15550001260": "acme"})

    def tracker(self) -> esl_tracker.Tracker:
        return esl_tracker.Tracker("lab", ("sofia/gateway/*", "sofia/external"), self.agents)

    def decoder(self) -> Callable[[bytes], list[Any]]:
        decoder = esl_codec.Decoder()

        def decode(data: bytes) -> list[Any]:
            frames = decoder.feed(data)
            assert not decoder.refused
            return [frame.event for frame in frames if frame.event is not None]

        return decode

    def left_alone(self, tracker: esl_tracker.Tracker, since: float, now: float) -> Resynced:
        return esl_resync.resync(tracker, esl_resync.Snapshot(()), since, now)


def side_of(path: Path) -> Side:
    """The kind of PBX that spoke here."""
    return side(pbx_of(path))


def side(pbx: str) -> Side:
    """By the name of its folder."""
    return FreeSwitch() if pbx.startswith("freeswitch") else Asterisk()


def wrote(path: Path) -> list[tuple[float, bytes]]:
    """(seconds since the epoch, bytes) of what the PBX sent."""
    start = zero_of(path).timestamp()
    return [(start + row.t, row.data) for row in rows(path) if row.received]


@cache
def heard(path: Path) -> tuple[tuple[float, Any], ...]:
    """(when it came, event), decoded."""
    decode = side_of(path).decoder()
    return tuple((at, event) for at, chunk in wrote(path) for event in decode(chunk))


def expected(path: Path) -> Expected:
    """The dial of ours that this recording is of; the trace's story names it."""
    text = story_of(path)
    attempt = re.search(r"attempt (\S+);", text)
    number = re.search(r"the customer is (\+\d+)", text)
    device = re.search(r"- Who: \d+ is ([\w/]+);", text)
    assert attempt is not None and number is not None
    return Expected(
        attempt[1],
        agent="anna",
        agent_device=device[1] if device else "PJSIP/101",
        number=number[1],
        callback="callback-1",
        client="acme",
        agent_first="agent first" in text,
    )


def play(path: Path, tracker: Any = None, shown: Callable[[Any], Any] = lambda event: event) -> list[CallEvent]:
    """Every call event of a trace; after each of the PBX's events the invariants hold.

    `shown` gives each event as a link would hand it on.
    """
    tracker = tracker or side_of(path).tracker()
    watch = Watch(tracker)
    for at, item in heard(path):
        watch.saw(tracker.feed([shown(item)], at).events)
    return watch.said


def play_cut(path: Path, cut: Cut) -> list[CallEvent]:
    """Every call event of a trace; `cut` divides each received chunk further."""
    tracker, decode = side_of(path).tracker(), side_of(path).decoder()
    events: list[CallEvent] = []
    for at, chunk in wrote(path):
        for piece in cut(chunk):
            events += tracker.feed(decode(piece), at).events
    assert tracker.faults == 0
    return events


def who(party: Any) -> str:
    """A party's shortest name: extension, else number, else device."""
    if party is None:
        return "-"
    if party.get("withheld"):
        return "withheld"
    return str(party["extension"] or party["number"] or party["device"])


def line(event: CallEvent) -> str:
    """One event as a line."""
    data = event.data
    kind = event.type.value.removeprefix("call.")
    match kind:
        case "started":
            return f"started {data['direction'] or '-'} {who(data['from'])} > {who(data['to'])}"
        case "queued":
            return f"queued {data['queue']} {data['position']}"
        case "unqueued":
            return f"unqueued {data['queue']} {data['reason']}"
        case "offered":
            return f"offered {who(data['party'])}"
        case "unoffered":
            return f"unoffered {who(data['party'])} {data['reason']}"
        case "connected":
            return f"connected {' '.join(who(party) for party in data['parties'])}"
        case "held" | "resumed":
            return f"{kind} {who(data['by'])}"
        case "transferred":
            return f"transferred {data['kind']} {who(data['by'])} {who(data['from'])} > {who(data['to'])}"
        case "ended":
            return (
                f"ended {data['cause']} {data['q850']} {data['direction'] or '-'} "
                f"{who(data['from'])} > {who(data['to'])} "
                f"{data['answered_by'] or '-'} by {who(data['ended_by'])}"
            )
    return kind


def told(events: Iterable[CallEvent]) -> dict[str, list[str]]:
    """Lines by call, calls in the order of their first event."""
    calls: dict[str, list[str]] = {}
    for event in events:
        assert event.call is not None
        calls.setdefault(event.call, []).append(line(event))
    return calls
