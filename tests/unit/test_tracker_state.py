"""What holds for every trace, however it is cut, restored, repeated or spoilt."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import TRACES, name_of, scenario_of, wire
from story import heard, play, play_cut, side, side_of, told

from bridge.domain.calls import CallEvent, CallEventType

FILES = sorted(path for ending in ("jsonl", "jsonl.gz") for path in TRACES.glob(f"**/*.{ending}"))
PATHS = [path for path in FILES if path.name != "snapshots.jsonl.gz"]
WHOLE = [path for path in PATHS if scenario_of(path) != "no_answer"]
NAMES = [name_of(path) for path in PATHS]
LAST = {CallEventType.ENDED, CallEventType.MERGED}


def check(events: list[CallEvent]) -> None:
    """The contract's rules that hold for any call."""
    seen: dict[str, list[CallEvent]] = {}
    for event in events:
        assert event.call is not None
        seen.setdefault(event.call, []).append(event)
        assert event.at.tzinfo is not None
    for call in seen.values():
        assert [event.seq for event in call] == list(range(1, len(call) + 1))
        assert call[0].type is CallEventType.STARTED
        assert [event.type in LAST for event in call] == [False] * (len(call) - 1) + [True]
        merged = {e.call for e in events if e.type is CallEventType.MERGED and e.data["into"] == call[0].call}
        named: list[object] = []
        for event in events:
            if event.call == call[0].call or event.call in merged:
                party = event.data.get("party") if event.type is CallEventType.OFFERED else None
                started = event.data["from"] if event.type is CallEventType.STARTED else None
                named += [p["device"] for p in (party, started) if p]
            if event.type is CallEventType.CONNECTED and event.call == call[0].call:
                assert all(p["device"] in named for p in event.data["parties"])


def empty(tracker: Any) -> bool:
    book = tracker.book
    return not (book.calls or book.channels or book.bridges or book.links or book.wires or book.expected)


@pytest.mark.parametrize("path", WHOLE, ids=name_of)
def test_every_rule_holds_and_nothing_is_left(path: Path) -> None:
    tracker = side_of(path).tracker()
    check(play(path, tracker))
    assert empty(tracker)


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_the_same_however_it_is_cut(path: Path) -> None:
    stamped = "ours" not in path.parts
    whole = play(path)
    dice = random.Random(scenario_of(path))

    def randomly(chunk: bytes) -> list[bytes]:
        edges = sorted({0, len(chunk), *(dice.randrange(len(chunk) + 1) for _ in range(5))})
        return [chunk[a:b] for a, b in pairwise(edges)]

    def bytewise(chunk: bytes) -> list[bytes]:
        return [chunk[i : i + 1] for i in range(len(chunk))]

    # A FreeSWITCH conversation is a megabyte or two: one in each encoding is enough.
    small = side_of(path).agents == side("asterisk").agents or scenario_of(path) == "busy"
    for cut in (bytewise, randomly) if small else (randomly,):
        again = play_cut(path, cut)
        assert told(again) == told(whole)
        if stamped:
            assert again == whole


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_tracker_restored_after_every_event_says_the_same(path: Path) -> None:
    """A dump holds all there is to know: another process goes on with the same id and seq."""
    events: list[CallEvent] = []
    tracker = side_of(path).tracker()
    for at, item in heard(path):
        batch = tracker.feed([item], at)
        events += batch.events
        successor = side_of(path).tracker()
        states = {call: tracker.book.dump(call) for call in tracker.book.calls}
        assert successor.restore({call: state for call, state in states.items() if state}) == 0
        tracker = successor
    assert events == play(path)


@pytest.mark.parametrize("pbx", ["asterisk", "freeswitch"])
def test_a_dump_that_is_none_is_counted(pbx: str) -> None:
    dumps = {"a": "{}", "b": "rubbish", "c": '{"v":1,"call":{}}', "d": '{"v":2,"call":{}}'}
    assert side(pbx).tracker().restore(dumps) == 4


@pytest.mark.parametrize("path", WHOLE, ids=name_of)
def test_every_start_meets_one_end_wherever_the_link_is_lost(path: Path) -> None:
    whole, pbx = heard(path), side_of(path)
    for stop in range(0, len(whole), max(1, len(whole) // 12)):
        tracker = pbx.tracker()
        events: list[CallEvent] = []
        for at, item in whole[:stop]:
            events += tracker.feed([item], at).events
        lost = whole[stop][0]
        events += pbx.left_alone(tracker, lost, lost + 1).batch.events
        check(events)
        assert empty(tracker)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(WHOLE), st.randoms(use_true_random=False))
def test_lost_doubled_and_reordered_events_break_no_rule(path: Path, dice: random.Random) -> None:
    whole, pbx = heard(path), side_of(path)
    spoilt = []
    for item in whole:
        roll = dice.random()
        if roll < 0.1:
            continue
        spoilt.append(item)
        if roll > 0.9:
            spoilt.append(item)
    for _ in range(len(spoilt) // 10):
        i = dice.randrange(len(spoilt) - 1)
        spoilt[i], spoilt[i + 1] = spoilt[i + 1], spoilt[i]
    tracker = pbx.tracker()
    events: list[CallEvent] = []
    for at, event in spoilt:
        events += tracker.feed([event], at).events
    events += pbx.left_alone(tracker, whole[-1][0], whole[-1][0] + 1).batch.events
    for call in {event.call for event in events}:
        mine = [event for event in events if event.call == call]
        assert [event.seq for event in mine] == list(range(1, len(mine) + 1))
        assert sum(event.type in LAST for event in mine) == 1
        assert mine[-1].type in LAST
    assert not tracker.book.channels and not tracker.book.calls


@pytest.mark.parametrize("version", ["asterisk-22", "freeswitch-1.11-json"])
def test_a_hundred_calls_after_each_other_leave_nothing(version: str) -> None:
    tracker = side(version).tracker()
    for _ in range(100):
        play(wire(version, "attended_code"), tracker)
    assert empty(tracker)
