"""A consultation by feature code on Asterisk, in each order in which its events can come."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from story import side

from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.tracker import Tracker

ONE, TWO, WIRE, FAR, PHONE = (f"1700000000.{n}" for n in range(1, 6))


def event(name: str, uid: str, **headers: str) -> Message:
    return Message({"Event": name, "Uniqueid": uid, "Linkedid": ONE, **headers}.items())


def born(uid: str, channel: str, state: str, number: str = "", exten: str = "s") -> Message:
    return event("Newchannel", uid, Channel=channel, ChannelState=state, CallerIDNum=number, Exten=exten)


def enters(uid: str, bridge: str) -> Message:
    return event("BridgeEnter", uid, BridgeUniqueid=bridge, BridgeType="basic")


def leaves(uid: str, bridge: str) -> Message:
    return event("BridgeLeave", uid, BridgeUniqueid=bridge)


TALKING = [
    born(ONE, "PJSIP/trunk-00000001", "4", "+15553001001", "+15550001260"),
    born(TWO, "PJSIP/101-00000002", "0", "101"),
    event("DialBegin", ONE, DestUniqueid=TWO, DialString="101"),
    event("Newstate", TWO, ChannelState="5"),
    event("Newstate", TWO, ChannelState="6"),
    event("DialEnd", ONE, DestUniqueid=TWO, DialStatus="ANSWER"),
    enters(TWO, "b1"),
    enters(ONE, "b1"),
]
BIRTH = [
    born(WIRE, "Local/102@from-internal-00000001;1", "0", exten="102"),
    born(FAR, "Local/102@from-internal-00000001;2", "4", exten="102"),
]
CALLS = [
    born(PHONE, "PJSIP/102-00000003", "0", "102"),
    event("DialBegin", FAR, DestUniqueid=PHONE, DialString="102"),
    event("Newstate", PHONE, ChannelState="5"),
]
"""One thread of Asterisk's calls the target..."""
MOVES = [enters(WIRE, "b2"), leaves(TWO, "b1"), enters(TWO, "b2")]
"""... and another puts the wire, and then the agent, into a bridge of their own."""


def orders() -> list[tuple[int, ...]]:
    """Every way to mix the two threads: which of the six places are the first thread's."""
    return [tuple(sorted(chosen)) for chosen in permutations(range(6), 3) if list(chosen) == sorted(chosen)]


def mixed(places: tuple[int, ...]) -> list[Message]:
    calls, moves = iter(CALLS), iter(MOVES)
    return [next(calls) if place in places else next(moves) for place in range(6)]


def play(heard: list[Message]) -> list[tuple[str, str, dict[str, Any]]]:
    tracker = side("asterisk").tracker()
    assert isinstance(tracker, Tracker)
    events = tracker.feed(heard, 1.7e9).events
    assert tracker.faults == 0
    return [(item.call, item.type.value.removeprefix("call."), dict(item.data)) for item in events]


@pytest.mark.parametrize("places", orders(), ids=str)
def test_the_target_rings_in_the_consultation_whoever_is_first(places: tuple[int, ...]) -> None:
    said = play([*TALKING, *BIRTH, *mixed(places)])
    customer = said[0][0]
    assert [kind for call, kind, _ in said if call == customer] == ["started", "offered", "connected"]
    [(_, begun, start), (_, rings, offer)] = [row for row in said if row[0] != customer]
    assert (begun, rings) == ("started", "offered")
    assert start["from"]["device"] == "PJSIP/101" and start["to"]["extension"] == "102"
    assert offer["party"]["device"] == "PJSIP/102"


@pytest.mark.parametrize("first", ["wire", "phone"])
def test_a_dialled_wire_is_no_consultation(first: str) -> None:
    wire = event("DialBegin", ONE, DestUniqueid=WIRE, DialString="102@from-internal")
    order = [wire, *CALLS] if first == "wire" else [*CALLS, wire]
    said = play([TALKING[0], *BIRTH, *order])
    assert len({call for call, *_ in said}) == 1
    assert [(kind, data["party"]["device"]) for _, kind, data in said[1:]] == [("offered", "PJSIP/102")]


PARKED = event("ParkedCall", "", ParkeeUniqueid=ONE, ParkerDialString="PJSIP/101", ParkingSpace="701")
TO_PARK = [leaves(ONE, "b1"), event("BridgeEnter", ONE, BridgeUniqueid="p1", BridgeType="parking")]
BLIND = event("BlindTransfer", "", TransfererUniqueid=TWO, Extension="700", Result="Success")


@pytest.mark.parametrize("place", range(3))
def test_who_parks_by_a_command_leaves_the_call(place: int) -> None:
    """AMI's Park and a one-touch key say no transfer: else the agent's page would count the call as theirs for good."""
    gone = [leaves(TWO, "b1"), event("Hangup", TWO, Cause="16")]
    events = play([*TALKING, *TO_PARK[:place], PARKED, *TO_PARK[place:], *gone])
    [(_, _, told)] = [item for item in events if item[1] == "transferred"]
    assert (told["kind"], told["from"]["device"], told["to"]["extension"]) == ("blind", "PJSIP/101", "701")


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("parked", range(3))
def test_who_transfers_to_park_leaves_once(place: int, parked: int) -> None:
    """The transfer is told by another thread of Asterisk than the parking: before it, in its middle or after it."""
    heard = [*TO_PARK[:parked], PARKED, *TO_PARK[parked:]]
    heard.insert(place, BLIND)
    gone = [leaves(TWO, "b1"), event("Hangup", TWO, Cause="16")]
    [(_, _, told)] = [item for item in play([*TALKING, *heard, *gone]) if item[1] == "transferred"]
    assert told["to"]["extension"] == "700"


def test_a_caller_whom_the_dialplan_parks_was_transferred_by_nobody() -> None:
    heard = [TALKING[0], PARKED, event("BridgeEnter", ONE, BridgeUniqueid="p1", BridgeType="parking")]
    assert "transferred" not in [kind for _, kind, _ in play(heard)]


def test_who_sent_the_others_on_has_not_ended_their_call() -> None:
    """The transferer's phone says goodbye when the other two talk already (seen on Asterisk 16)."""
    third = "1700000000.6"
    joins = [
        born(third, "PJSIP/102-00000006", "0", "102"),
        event("DialBegin", ONE, DestUniqueid=third, DialString="102"),
        event("Newstate", third, ChannelState="6"),
        enters(third, "b1"),
    ]
    ends = [event("HangupRequest", TWO), event("HangupRequest", ONE)]
    ends += [event("Hangup", uid, Cause="16") for uid in (ONE, TWO, third)]
    said = play([*TALKING, leaves(TWO, "b1"), *joins, *ends])
    assert said[-1][1] == "ended"
    assert said[-1][2]["ended_by"]["number"] == "+15553001001"


def test_the_phone_that_rings_for_a_caller_sent_on_is_cancelled_when_they_leave() -> None:
    third = "1700000000.6"
    sent = [
        event("BlindTransfer", "", TransfererUniqueid=TWO, Extension="102", Result="Success"),
        leaves(TWO, "b1"),
        leaves(ONE, "b1"),
        born(third, "PJSIP/102-00000006", "0", "102"),
        event("DialBegin", ONE, DestUniqueid=third, DialString="102"),
        event("Newstate", third, ChannelState="5"),
        event("DialEnd", ONE, DestUniqueid=third, DialStatus="CANCEL"),
        event("Hangup", third, Cause="0"),
    ]
    said = play([*TALKING, *sent])
    assert said[-1][1:] == ("unoffered", {**said[-1][2], "reason": "cancelled"})


def test_who_hung_up_between_two_bridges_has_ended_the_call() -> None:
    """A wire that optimises itself away takes its ends from one bridge to another."""
    ends = [event("Hangup", TWO, Cause="16"), event("Hangup", ONE, Cause="16")]
    said = play([*TALKING, leaves(TWO, "b1"), event("HangupRequest", TWO), enters(TWO, "b1"), *ends])
    assert said[-1][1] == "ended"
    assert said[-1][2]["ended_by"]["device"] == "PJSIP/101"
