"""`ringbridge bench listener` plays both PBXs' traffic to a real listener: nothing is lost, no call is left."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bridge.commands.bench import traffic
from bridge.commands.bench.traffic import TRACES, Traffic

pytestmark = pytest.mark.load
WANTED = {
    "pbx", "events", "events_per_second", "lost", "cpu_us_per_event", "bare_cpu_us_per_event", "ratio",
    "rss_mb_start", "rss_mb_end", "lag_p99_ms",
}  # fmt: skip


def test_it_says_what_was_measured() -> None:
    bench = subprocess.run(
        [sys.executable, "-P", "-m", "bridge.cli", "bench", "listener", "--json",
         "--rounds", "1", "--rate", "4000", "--seconds", "4"],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    told = json.loads(bench.stdout)
    assert told.keys() >= WANTED
    assert (told["pbx"], told["lost"], told["call_events_lost"], told["calls_left"]) == ("both", 0, 0, 0)
    for kind in ("asterisk", "freeswitch"):
        one = told[kind]
        assert one.keys() >= WANTED
        assert one["events"] >= 16_000
        assert (one["lost"], one["call_events_lost"], one["calls_left"]) == (0, 0, 0)
        assert one["calls"] > 100 and one["call_events"] > 1_000
    assert told["rss_mb_end"] == max(told[kind]["rss_mb_end"] for kind in ("asterisk", "freeswitch"))
    # All that a listener does, Redis included, beside a mere parse of the same bytes, in one run on one machine.
    assert told["freeswitch"]["ratio"] < 1
    assert told["asterisk"]["ratio"] < 3


@pytest.mark.parametrize("kind", ["asterisk", "freeswitch"])
def test_each_pass_plays_other_calls_and_as_many_events(kind: str) -> None:
    played = traffic.asterisk(TRACES) if kind == "asterisk" else traffic.freeswitch(TRACES)
    for bare in (False, True):
        first, second = passes(played, bare=bare)
        assert len(first) == len(second)
        assert first != second
    ids = [{event.call for event in said(played, data)} for data in passes(played, bare=False)]
    assert len(ids[0]) == len(ids[1]) == played.calls
    assert not ids[0] & ids[1]


def passes(played: Traffic, *, bare: bool) -> list[bytes]:
    """The bytes of two passes."""
    found, data, events = [], b"", 0
    for group in played.play(1000, 7, bare=bare):
        data += group.data(played.kind, 1.8e9 + group.due)
        events += group.events
        if events == played.events:
            found.append(data)
            data, events = b"", 0
        if len(found) == 2:
            return found
    raise AssertionError


def said(played: Traffic, data: bytes) -> list[traffic.CallEvent]:
    """What our tracker says of these bytes."""
    events, left = traffic.tracked(played.kind, data)
    assert not left
    return events
