"""What the tracker makes of Asterisk's events, one by one."""

from __future__ import annotations

import pytest
from story import side

from bridge.domain.calls import CallEventType, Expected
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.tracker import Tracker


def fresh() -> Tracker:
    tracker = side("asterisk").tracker()
    assert isinstance(tracker, Tracker)
    return tracker


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
