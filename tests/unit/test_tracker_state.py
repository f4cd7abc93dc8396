"""What holds for every trace, however it is cut, restored, repeated or spoilt."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from ami_story import AGENTS, messages, play, told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import TRACES, name_of, scenario_of, wire

from bridge.domain.calls import CallEvent, CallEventType, Expected
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.resync import Snapshot, resync
from bridge.pbx.ami.tracker import Tracker

PATHS = sorted(TRACES.glob("**/*.jsonl"))
WHOLE = [path for path in PATHS if scenario_of(path) != "no_answer"]
NAMES = [name_of(path) for path in PATHS]
LAST = {CallEventType.ENDED, CallEventType.MERGED}


def fresh() -> Tracker:
    return Tracker("lab", ("PJSIP/trunk",), AGENTS)


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


def empty(tracker: Tracker) -> bool:
    book = tracker.book
    return not (book.calls or book.channels or book.bridges or book.links or book.wires or book.expected)


@pytest.mark.parametrize("path", WHOLE, ids=name_of)
def test_every_rule_holds_and_nothing_is_left(path: Path) -> None:
    tracker = fresh()
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

    for cut in (lambda chunk: [chunk[i : i + 1] for i in range(len(chunk))], randomly):
        again = play(path, cut=cut)
        assert told(again) == told(whole)
        if stamped:
            assert again == whole


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_tracker_restored_after_every_event_says_the_same(path: Path) -> None:
    """A dump holds all there is to know: another process goes on with the same id and seq."""
    events: list[CallEvent] = []
    tracker = fresh()
    for at, message in messages(path):
        batch = tracker.feed([message], at)
        events += batch.events
        successor = fresh()
        states = {call: tracker.book.dump(call) for call in tracker.book.calls}
        assert successor.restore({call: state for call, state in states.items() if state}) == 0
        tracker = successor
    assert events == play(path)


def test_a_dump_that_is_none_is_counted() -> None:
    assert fresh().restore({"a": "{}", "b": "rubbish", "c": '{"v":2}', "d": '{"v":1,"call":{}}'}) == 4


@pytest.mark.parametrize("path", WHOLE, ids=name_of)
def test_every_start_meets_one_end_wherever_the_link_is_lost(path: Path) -> None:
    heard = messages(path)
    for stop in range(0, len(heard), max(1, len(heard) // 12)):
        tracker = fresh()
        events: list[CallEvent] = []
        for at, message in heard[:stop]:
            events += tracker.feed([message], at).events
        lost = heard[stop][0]
        events += resync(tracker, Snapshot(()), lost, lost + 1).batch.events
        check(events)
        assert empty(tracker)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(WHOLE), st.randoms(use_true_random=False))
def test_lost_doubled_and_reordered_events_break_no_rule(path: Path, dice: random.Random) -> None:
    heard = messages(path)
    spoilt = []
    for item in heard:
        roll = dice.random()
        if roll < 0.1:
            continue
        spoilt.append(item)
        if roll > 0.9:
            spoilt.append(item)
    for _ in range(len(spoilt) // 10):
        i = dice.randrange(len(spoilt) - 1)
        spoilt[i], spoilt[i + 1] = spoilt[i + 1], spoilt[i]
    tracker = fresh()
    events: list[CallEvent] = []
    for at, message in spoilt:
        events += tracker.feed([message], at).events
    events += resync(tracker, Snapshot(()), heard[-1][0], heard[-1][0] + 1).batch.events
    for call in {event.call for event in events}:
        mine = [event for event in events if event.call == call]
        assert [event.seq for event in mine] == list(range(1, len(mine) + 1))
        assert sum(event.type in LAST for event in mine) == 1
        assert mine[-1].type in LAST
    assert not tracker.book.channels and not tracker.book.calls


def event(name: str, uid: str = "1700000000.1", **headers: str) -> Message:
    return Message({"Event": name, "Uniqueid": uid, **headers}.items())


def new_caller(number: str, **headers: str) -> Message:
    values = {"Channel": "PJSIP/trunk-00000001", "ChannelState": "4", "CallerIDName": "Mallory", **headers}
    return event("Newchannel", CallerIDNum=number, Linkedid="1700000000.1", Exten="+15550001260", **values)


def test_a_number_that_turns_out_withheld_is_never_shown() -> None:
    tracker = fresh()
    heard = [
        new_caller("+15553001001"),
        event(
            "NewCallerid",
            CallerIDNum="+15553001001",
            **{"CID-CallingPres": "35 (Presentation Prohibited, Network Number)"},
        ),
        event("Hangup", Cause="16"),
    ]
    batches = [tracker.feed([message], 1.7e9) for message in heard]
    events = [item for batch in batches for item in batch.events]
    assert events[0].data["from"]["withheld"] is True
    assert events[0].data["from"]["number"] is None
    assert "3001001" not in repr([(item.data) for item in events])
    assert "3001001" not in repr([batch.live for batch in batches])
    assert "Mallory" not in repr(events)


def test_anonymous_is_withheld_too() -> None:
    [started, ended] = fresh().feed([new_caller("Anonymous"), event("Hangup", Cause="16")], 1.7e9).events
    assert started.data["from"]["withheld"] is True
    assert ended.data["from"]["number"] is None


def test_a_caller_id_set_before_anything_else_is_the_one_published() -> None:
    heard = [
        new_caller("5553001001"),
        event("NewCallerid", CallerIDNum="+15553001001", CallerIDName="Mallory"),
        event("Hangup", Cause="16"),
    ]
    started = fresh().feed(heard, 1.7e9).events[0]
    assert started.data["from"]["number"] == "+15553001001"


def test_nothing_is_said_of_a_caller_who_has_not_acted_yet() -> None:
    assert fresh().feed([new_caller("+15553001001")], 1.7e9).events == []


def test_a_caller_served_by_the_pbx_alone_completed() -> None:
    heard = [new_caller("+15553001001"), event("Newstate", ChannelState="6"), event("Hangup", Cause="16")]
    ended = fresh().feed(heard, 1.7e9).events[-1]
    assert (ended.data["cause"], ended.data["answered_by"]) == ("completed", "pbx")


@pytest.mark.parametrize(
    ("cause", "offered", "expected"),
    [
        ("17", True, "busy"),
        ("21", True, "rejected"),
        ("18", True, "no_answer"),
        ("19", True, "no_answer"),
        ("16", True, "no_answer"),
        ("16", False, "failed"),
        ("1", True, "failed"),
        ("3", True, "failed"),
        ("20", True, "failed"),
        ("27", True, "failed"),
        ("34", True, "failed"),
        ("38", True, "failed"),
        ("41", True, "failed"),
        ("99", True, "failed"),
    ],
)
def test_the_callers_own_leg_decides(cause: str, offered: bool, expected: str) -> None:
    leg = "1700000000.2"
    heard = [new_caller("+15553001001")]
    if offered:
        heard += [
            event("Newchannel", leg, Channel="PJSIP/101-1", ChannelState="0", Linkedid="1700000000.1"),
            event("DialBegin", DestUniqueid=leg, DialString="101"),
            event("Newstate", leg, ChannelState="5"),
            event("DialEnd", DestUniqueid=leg, DialStatus="NOANSWER"),
            event("Hangup", leg, Cause="0"),
        ]
    heard.append(event("Hangup", Cause=cause))
    ended = fresh().feed(heard, 1.7e9).events[-1]
    assert (ended.data["cause"], ended.data["q850"]) == (expected, int(cause))


@pytest.mark.parametrize(
    ("status", "cause", "reason"),
    [
        ("BUSY", "17", "busy"),
        ("NOANSWER", "21", "rejected"),
        ("NOANSWER", "19", "no_answer"),
        ("NOANSWER", "18", "no_answer"),
        ("NOANSWER", "1", "unreachable"),
        ("NOANSWER", "127", "no_answer"),
        ("CHANUNAVAIL", "20", "unreachable"),
        ("CHANUNAVAIL", "0", "unreachable"),
        ("CANCEL", "26", "answered_elsewhere"),
        ("CANCEL", "127", "cancelled"),
    ],
)
def test_the_devices_own_leg_says_why(status: str, cause: str, reason: str) -> None:
    leg = "1700000000.2"
    heard = [
        new_caller("+15553001001"),
        event("Newchannel", leg, Channel="PJSIP/101-1", ChannelState="0", Linkedid="1700000000.1"),
        event("DialBegin", DestUniqueid=leg, DialString="101"),
        event("DialEnd", DestUniqueid=leg, DialStatus=status),
        event("Hangup", leg, Cause=cause),
    ]
    events = fresh().feed(heard, 1.7e9).events
    assert [item.type for item in events] == [CallEventType.STARTED, CallEventType.UNOFFERED]
    assert events[1].data["reason"] == reason


def test_call_ids_hold_safe_characters_only() -> None:
    uid = "büro;x/1700000000.1"
    started = (
        fresh()
        .feed(
            [
                event("Newchannel", uid, Channel="PJSIP/101-1", ChannelState="4", Linkedid=uid),
                event("Hangup", uid, Cause="16"),
            ],
            1.7e9,
        )
        .events[0]
    )
    assert started.call == "lab-b_ro_x_1700000000.1"


def test_expectations_are_bounded() -> None:
    tracker = fresh()
    for number in range(10_050):
        tracker.expect(Expected(str(number)))
    assert len(tracker.book.expected) == 10_000


def test_a_hundred_calls_after_each_other_leave_nothing() -> None:
    tracker = fresh()
    for _ in range(100):
        play(wire("asterisk-22", "attended_code"), tracker)
    assert empty(tracker)
