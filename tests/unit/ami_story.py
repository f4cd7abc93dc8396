"""Reads a trace through codec and tracker, and writes call events as short lines for tests to compare."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recorded import zero_of

from bridge.domain.calls import CallEvent, Directory
from bridge.pbx.ami.codec import Decoder, Message
from bridge.pbx.ami.hearing import UNHEARD
from bridge.pbx.ami.tracker import Tracker

AGENTS = Directory(agents={"PJSIP/101": "anna", "PJSIP/102": "bert"}, clients={"+15550001260": "acme"})
Cut = Callable[[bytes], list[bytes]]


def rows(path: Path) -> list[tuple[float, bytes]]:
    """(seconds since the epoch, bytes) of what the PBX sent."""
    start = zero_of(path).timestamp()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(start + r["t"], base64.b64decode(r["b64"])) for r in lines if r["dir"] == "in"]


def messages(path: Path) -> list[tuple[float, Message]]:
    """(when it came, event), decoded."""
    decoder = Decoder(UNHEARD)
    return [(at, message) for at, chunk in rows(path) for message in decoder.feed(chunk)]


def play(path: Path, tracker: Tracker | None = None, cut: Cut = lambda chunk: [chunk]) -> list[CallEvent]:
    """Every call event of a trace; `cut` divides each received chunk further."""
    tracker = tracker or Tracker("lab", ("PJSIP/trunk",), AGENTS)
    decoder = Decoder(UNHEARD)
    events: list[CallEvent] = []
    for at, chunk in rows(path):
        for piece in cut(chunk):
            events += tracker.feed(decoder.feed(piece), at).events
    assert tracker.faults == 0
    assert decoder.skipped == 0
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
