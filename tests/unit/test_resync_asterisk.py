"""The picture after a gap on Asterisk: what Status adds to CoreShowChannels."""

from __future__ import annotations

import pytest
from story import side, told

from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.resync import Snapshot, resync

NOW = 1_795_400_000.0
CALLER, DID = "+15553001001", "+15550001260"
CHANNEL = {
    "Channel": "PJSIP/trunk-00000000",
    "Uniqueid": "1795399990.1",
    "Linkedid": "1795399990.1",
    "ChannelState": "6",
    "CallerIDNum": CALLER,
    "CallerIDName": "Rosa",
    "Context": "menu",
    "Exten": "s",
    "Duration": "00:00:10",
}
"""A caller whom the dialplan has led elsewhere since."""
STATUS = {"Uniqueid": CHANNEL["Uniqueid"], "DNID": DID, "Variable": "CALLERID(pres)=allowed\nTRANSFERERNAME=(null)"}


def test_who_came_unseen_has_the_number_that_was_dialled_and_its_client() -> None:
    tracker = side("asterisk-22").tracker()
    batch = resync(tracker, Snapshot((CHANNEL,), status=(STATUS,)), None, NOW).batch
    assert list(told(batch.events).values()) == [[f"started inbound {CALLER} > {DID}", "uncertain"]]
    assert batch.events[0].data["client"] == "acme"


@pytest.mark.parametrize(
    "status",
    [
        ({**STATUS, "Variable": "CALLERID(pres)=prohib_passed_screen\nTRANSFERERNAME=(null)"},),
        ({**STATUS, "Variable": "TRANSFERERNAME=(null)"},),
        (),
    ],
    ids=["restricted", "not told", "gone since"],
)
def test_who_must_not_be_shown_is_not(status: tuple[dict[str, str], ...]) -> None:
    tracker = side("asterisk-22").tracker()
    batch = resync(tracker, Snapshot((CHANNEL,), status=status), None, NOW).batch
    assert batch.events[0].data["from"]["withheld"] is True
    assert CALLER not in repr(batch) and "Rosa" not in repr(batch)


TALK, ASKS = "bridge-1", "bridge-2"
CONSULTING = (
    {**CHANNEL, "Application": "Dial", "ApplicationData": "PJSIP/101,60", "BridgeId": TALK},
    {
        "Channel": "PJSIP/102-00000002",
        "Uniqueid": "1795399995.5",
        "Linkedid": CHANNEL["Uniqueid"],
        "ChannelState": "5",
        "CallerIDNum": "102",
        "Application": "AppDial",
        "Duration": "00:00:05",
    },
    {
        "Channel": "PJSIP/101-00000001",
        "Uniqueid": "1795399990.2",
        "Linkedid": CHANNEL["Uniqueid"],
        "ChannelState": "6",
        "CallerIDNum": "101",
        "Application": "AppDial",
        "Duration": "00:00:10",
        "BridgeId": ASKS,
    },
    {
        "Channel": "Local/102@inside-00000000;2",
        "Uniqueid": "1795399995.4",
        "Linkedid": CHANNEL["Uniqueid"],
        "ChannelState": "4",
        "Exten": "102",
        "Application": "Dial",
        "ApplicationData": "PJSIP/102,60",
        "Duration": "00:00:05",
    },
    {
        "Channel": "Local/102@inside-00000000;1",
        "Uniqueid": "1795399995.3",
        "Linkedid": CHANNEL["Uniqueid"],
        "ChannelState": "5",
        "Exten": "102",
        "Duration": "00:00:05",
        "BridgeId": ASKS,
    },
)
"""101 asks 102, whose phone rings, and the customer waits: as a real Asterisk lists it, in the order of its hash."""


def consulting(by: str, at: str = ASKS, customer: str = TALK) -> Snapshot:
    """`at` is the bridge in which 101 is, empty while it is on its way; `customer` is the customer's."""
    places = {"PJSIP/101-00000001": at, CHANNEL["Channel"]: customer}
    rows = tuple({**row, "BridgeId": places.get(row["Channel"], row.get("BridgeId", ""))} for row in CONSULTING)
    wires = [
        {"Uniqueid": row["Uniqueid"], "Variable": f"CALLERID(pres)=allowed\nTRANSFERERNAME={by}"}
        for row in CONSULTING
        if row["Channel"].startswith("Local/")
    ]
    bridges = ({"BridgeUniqueid": TALK, "BridgeType": "basic"}, {"BridgeUniqueid": ASKS, "BridgeType": "basic"})
    return Snapshot(rows, bridges, (), (STATUS, *wires))


def test_a_phone_that_is_asked_in_a_consultation_rings_for_that_and_not_for_the_customer() -> None:
    tracker = side("asterisk-22").tracker()
    batch = resync(tracker, consulting("PJSIP/101-00000001"), None, NOW).batch
    assert list(told(batch.events).values()) == [
        [f"started inbound {CALLER} > {DID}", "offered 101", "uncertain"],
        ["started internal 101 > 102", "offered 102", "uncertain"],
    ]


def test_one_who_is_on_the_way_to_a_consultation_is_known_to_be_who_asks() -> None:
    """The wire enters its bridge first: looked at in between, whoever consults is in none."""
    tracker = side("asterisk-22").tracker()
    events = resync(tracker, consulting("PJSIP/101-00000001", at=""), None, NOW).batch.events
    enters = {"Event": "BridgeEnter", "Uniqueid": "1795399990.2", "BridgeUniqueid": ASKS, "BridgeType": "basic"}
    state = {"Event": "Newstate", "Uniqueid": "1795399995.5", "ChannelState": "6"}
    answers = {"Event": "DialEnd", "DestUniqueid": "1795399995.5", "DialStatus": "ANSWER"}
    meets = [
        {"Event": "BridgeEnter", "Uniqueid": uid, "BridgeUniqueid": "bridge-3", "BridgeType": "basic"}
        for uid in ("1795399995.5", "1795399995.4")
    ]
    later = [enters, state, answers, *meets]
    events += tracker.feed([Message(one.items()) for one in later], NOW + 1).events
    assert list(told(events).values())[1] == [
        "started internal 101 > 102",
        "offered 102",
        "uncertain",
        "connected 101 102",
    ]


def test_a_wire_of_somebody_who_has_left_is_no_consultation() -> None:
    """As after an attended transfer that was completed while the target rings."""
    tracker = side("asterisk-22").tracker()
    batch = resync(tracker, consulting("PJSIP/109-00000009"), None, NOW).batch
    assert len(told(batch.events)) == 1


def test_a_wire_at_which_the_customer_is_already_is_no_consultation_of_somebody_who_leaves() -> None:
    tracker = side("asterisk-22").tracker()
    batch = resync(tracker, consulting("PJSIP/101-00000001", at="", customer=ASKS), None, NOW).batch
    assert len(told(batch.events)) == 1


def leg(uid: str, name: str, state: str, **more: str) -> dict[str, str]:
    """As a Newchannel and as an item of CoreShowChannels."""
    return {"Channel": name, "Uniqueid": uid, "Linkedid": CHANNEL["Uniqueid"], "ChannelState": state, **more}


@pytest.mark.parametrize("first", ["Local/101@inside-00000000;1", "PJSIP/trunk-00000000"], ids=["originate", "caller"])
def test_a_call_whose_first_leg_went_unseen_did_not_end_for_a_reason_that_nobody_saw(first: str) -> None:
    """Whether a foreign application's originate ran out of patience, or was taken back, is not known."""
    tracker = side("asterisk-22").tracker()
    phone = leg("1795399990.2", "PJSIP/101-00000001", "5", Application="AppDial")
    caller = leg(CHANNEL["Uniqueid"], first, "0" if "Local" in first else "4", CallerIDNum=CALLER, Exten=DID)
    heard = [
        {"Event": "Newchannel", **caller},
        {"Event": "Newchannel", **phone, "ChannelState": "0"},
        {"Event": "DialBegin", "Uniqueid": caller["Uniqueid"], "DestUniqueid": phone["Uniqueid"]},
        {"Event": "Newstate", **phone},
    ]
    tracker.feed([Message(one.items()) for one in heard], NOW)
    resync(tracker, Snapshot((phone,)), NOW, NOW + 5)
    over = {"Event": "Hangup", "Uniqueid": phone["Uniqueid"], "Cause": "16"}
    ended = tracker.feed([Message(over.items())], NOW + 6).events[-1]
    assert (ended.type, ended.data["cause"], ended.data["q850"]) == ("call.ended", "uncertain", None)
