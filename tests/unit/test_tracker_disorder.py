"""Events in an order, or with a content, that no recording has: nothing is left for ever, and nothing told twice."""

from __future__ import annotations

import pytest
from invariants import Watch, left
from story import told
from test_tracker_asterisk import event as said
from test_tracker_asterisk import fresh as asterisk
from test_tracker_freeswitch import (
    AT,
    TALK,
    A,
    B,
    C,
    D,
    answers,
    bridged,
    caller,
    custom,
    ends,
    fresh,
    parted,
    phone,
    refers_to,
)

from bridge.domain.calls import Expected
from bridge.pbx.ami.codec import Message
from bridge.pbx.esl.hearing import Event
from bridge.pbx.esl.resync import Snapshot, resync, still_news

ATTEMPT = "12345678-0000-4000-8000-000000000000"


def created(birth: Event, at: float = AT) -> Event:
    """As FreeSWITCH tells it: with when the channel was made."""
    return {**birth, "Caller-Channel-Created-Time": str(round(at * 1e6))}


def test_a_birth_told_again_after_the_end_begins_no_call() -> None:
    tracker = fresh()
    watch = Watch(tracker)
    for one in (created(caller()), answers(A), ends(A), created(caller())):
        watch.saw(tracker.feed([one], AT).events)
    watch.over()


def test_a_birth_told_after_its_end_begins_no_call() -> None:
    """With several event threads (`initial-event-threads`) FreeSWITCH's events overtake each other."""
    tracker = fresh()
    tracker.feed([created(ends(A)), created(caller())], AT)
    assert not left(tracker.book)


def test_a_channels_id_that_comes_again_is_another_call() -> None:
    """Where a profile takes the callers' Call-IDs for its channels' ids."""
    tracker = fresh()
    again = created(caller("a@b"), AT + 5)
    made = tracker.feed([created(caller("a@b")), answers("a@b"), ends("a@b"), again, answers("a@b")], AT).events
    assert [one.type.value for one in made] == ["call.started", "call.ended", "call.started"]
    assert len({one.call for one in made}) == 2


def test_who_is_taken_in_late_is_joined_whatever_the_ids_hold() -> None:
    """A caller chooses its Call-ID, and that may hold what we put between two ids."""
    tracker = fresh()
    known = "aaa/bbb@10.0.0.1"
    late = {**answers(B), **{key: phone()[key] for key in ("Call-Direction", "Channel-Name", "variable_dialed_user")}}
    late |= {"variable_originating_leg_uuid": known}
    made = tracker.feed([caller(known), answers(known), bridged(known, B), late], AT).events
    assert "call.connected" in [one.type.value for one in made]


def test_a_dial_of_ours_that_came_to_nothing_while_the_pbx_was_asked_ends() -> None:
    """Its legs' call is no call that ended unseen: it is expected."""
    tracker = fresh()
    tracker.expect(Expected(attempt=ATTEMPT, agent_device="user/101"))
    resync(tracker, Snapshot(()), None, AT)
    gathered = [phone(of="", variable_rb_attempt=ATTEMPT, variable_rb_leg="agent"), ends(B, "USER_BUSY")]
    made = tracker.feed(still_news(tracker, gathered), AT).events
    assert [one.type.value for one in made] == ["call.started", "call.unoffered", "call.ended"]


def test_a_third_leg_with_the_headers_of_a_refer_is_no_part_of_the_wire() -> None:
    """Whoever the REFER led to has read them."""
    tracker = fresh()
    tracker.feed([*TALK, refers_to(C, out=True), refers_to(D, out=False)], AT)
    stranger = "ffffffff-0000-4000-8000-000000000000"
    made = tracker.feed([refers_to(stranger, out=False), answers(stranger)], AT).events
    assert sorted(next(iter(tracker.book.wires.values())).values()) == [C, D]
    assert told(made)
    assert tracker.book.channels[stranger].real


def test_who_is_taken_out_of_a_conference_was_transferred_by_nobody() -> None:
    """An administrator moves both into a conference and then the caller on, by `uuid_transfer`."""
    tracker = fresh()

    def sent(uid: str, when: int, to: str) -> Event:
        return {"Caller-Transfer-Source": f"{when}:{uid}:bl_xfer:{to}/default/XML"}

    def room(uid: str, action: str, where: Event) -> Event:
        return {**custom("conference::maintenance", uid, Action=action), "Conference-Unique-ID": "room", **where}

    first, second = sent(A, 1_795_330_000, "800"), sent(B, 1_795_330_000, "800")
    on = sent(A, 1_795_330_005, "102")
    heard = [*TALK, {**parted(), **first}, room(A, "add-member", first), room(B, "add-member", second)]
    heard += [room(A, "del-member", on), phone(C, "102"), answers(C), {**bridged(A, C), **on}]
    made = [one.type.value for one in tracker.feed(heard, AT).events]
    assert made[-2:] == ["call.offered", "call.connected"]
    assert "call.transferred" not in made


def test_who_answers_in_a_bridge_is_connected() -> None:
    """An application of somebody's (ARI) bridges a phone that still rings, for its early media."""
    tracker = asterisk()
    leg, bridge = "1700000000.2", {"BridgeUniqueid": "b", "BridgeType": "basic"}
    heard = [
        said("Newchannel", Channel="PJSIP/trunk-00000001", ChannelState="4", CallerIDNum="+15553001001", Exten="1"),
        said("Newstate", ChannelState="6"),
        said("Newchannel", leg, Channel="PJSIP/101-1", ChannelState="0", Linkedid="1700000000.1"),
        said("DialBegin", DestUniqueid=leg, DialString="101"),
        said("Newstate", leg, ChannelState="5"),
        said("BridgeEnter", **bridge),
        said("BridgeEnter", leg, **bridge),
        said("Newstate", leg, ChannelState="6"),
    ]
    watch = Watch(tracker)
    for one in heard:
        watch.saw(tracker.feed([one], 1.7e9).events)
    assert [one.type.value for one in watch.said] == ["call.started", "call.offered", "call.connected"]


def test_a_wire_whose_far_half_is_told_first_leaves_no_call_without_a_leg() -> None:
    tracker = asterisk()
    watch = Watch(tracker)
    link = {"Linkedid": "1700000000.1", "ChannelState": "4"}
    heard = [
        said("Newchannel", "1700000000.3", Channel="Local/101@agents-1;2", **link),
        said("Newchannel", Channel="PJSIP/trunk-00000001", CallerIDNum="+15553001001", Exten="1", **link),
        said("Newchannel", "1700000000.2", Channel="Local/101@agents-1;1", **{**link, "ChannelState": "0"}),
        said("DialBegin", DestUniqueid="1700000000.2", DialString="101"),
        *(said("Hangup", f"1700000000.{leg}", Cause="16") for leg in (2, 3, 1)),
    ]
    for one in heard:
        watch.saw(tracker.feed([one], 1.7e9).events)
    watch.over()


@pytest.mark.parametrize("cause", ["9" * 5000, "٣", "²", "-1", "", "16;"])
def test_whatever_a_cause_says_the_channel_has_ended(cause: str) -> None:
    tracker = asterisk()
    birth = said("Newchannel", Channel="PJSIP/trunk-00000001", ChannelState="4", CallerIDNum="+15553001001")
    end = Message([("Event", "Hangup"), ("Uniqueid", "1700000000.1"), ("Cause", cause)])
    assert [one.type.value for one in tracker.feed([birth, end], 1.7e9).events][-1:] == ["call.ended"]
    assert not tracker.faults
    assert not left(tracker.book)
