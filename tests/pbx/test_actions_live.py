"""What is done to a call, on a real PBX: people say by what they hear that it happened, and the tracker says it too."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import insides
import pytest
from hands import CALLER_HZ, Hands, Keys, directory, phone_hz
from links import Link, Relay, Sink, link_to
from rig import until

from bridge.domain.actions import Action, Side
from bridge.domain.calls import CallEventType
from bridge.pbx.port import Reason
from ringbridge_lab import tones
from ringbridge_lab.lab import Behaviour, Lab

pytestmark = pytest.mark.pbx

OUTSIDE, OUTSIDE_HZ = "+16465550101", 1010
AGENT_HZ, SECOND_HZ, LEADER_HZ = phone_hz("101"), phone_hz("102"), phone_hz("103")


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def line(lab: Lab) -> Iterator[Relay]:
    """The line of the link to the PBX, to be cut."""
    relay = Relay(int(lab.info["company"]["port"]))
    try:
        yield relay
    finally:
        relay.close()


@pytest.fixture
def link(lab: Lab, sink: Sink, line: Relay) -> Iterator[Link]:
    made = link_to(lab, sink, port=line.port)
    made.set_directory(directory(lab))
    made.start()
    try:
        until(lambda: sink.facts and made.counts(), what="the resync")
        yield made
    finally:
        made.stop()
        assert made.tracker.faults == 0


@pytest.fixture
def hands(lab: Lab, link: Link, sink: Sink) -> Hands:
    lab.phone("101", answer_after=0.3)
    lab.phone("102", answer_after=0.3)
    lab.phone("103", answer_after=0.3)
    return Hands(lab, link, sink)


def test_a_held_caller_hears_music_and_not_the_agent(hands: Hands) -> None:
    caller = hands.calls()
    hands.hears(caller, AGENT_HZ)
    hands.does(Action.HOLD)
    [held] = hands.told(CallEventType.HELD)
    assert held.data["by"]["agent"] == "anna"
    hands.waits(caller)
    hands.does(Action.RESUME)
    hands.told(CallEventType.RESUMED)
    hands.hear((caller, (AGENT_HZ,)), (hands.phone("101"), (CALLER_HZ,)))
    hands.channels(2)
    caller.hang_up()
    hands.idle()
    assert hands.sink.kinds() == ["started", "offered", "connected", "held", "resumed", "ended"]


def test_a_caller_is_sent_on_unannounced(hands: Hands) -> None:
    caller = hands.calls()
    hands.does(Action.TRANSFER, to="102")
    hands.told(CallEventType.CONNECTED, 2)
    [sent] = hands.sink.of(CallEventType.TRANSFERRED)
    assert sent.data["kind"] == "blind"
    assert sent.data["by"]["agent"] == "anna"
    hands.hears(caller, SECOND_HZ)
    caller.hang_up()
    hands.idle()


def test_a_caller_is_sent_outside(hands: Hands) -> None:
    caller = hands.calls()
    hands.does(Action.TRANSFER, to=OUTSIDE)
    hands.told(CallEventType.CONNECTED, 2)
    hands.hears(caller, OUTSIDE_HZ)
    caller.hang_up()
    hands.idle()


def test_keys_reach_the_other_side(lab: Lab, hands: Hands) -> None:
    # Not #: who records what is heard outside stops at it.
    with Keys(lab) as keys:
        caller = hands.calls()
        hands.does(Action.DTMF, digits="12*a")
        until(lambda: keys.pressed == "12*A", what=f"the keys; there came {keys.pressed}")
        caller.hang_up()
    hands.idle()


def test_somebody_is_asked_first_and_then_has_the_caller(hands: Hands) -> None:
    caller = hands.calls()
    hands.does(Action.CONSULT, to="102")
    hands.hear((caller, (tones.MUSIC,)), (hands.phone("101"), (SECOND_HZ,)))
    hands.does(Action.COMPLETE)
    [sent] = hands.told(CallEventType.TRANSFERRED)
    assert (sent.call, sent.data["kind"]) == (hands.call, "attended")
    assert (sent.data["by"]["agent"], sent.data["to"]["agent"]) == ("anna", "ben")
    hands.hears(caller, SECOND_HZ)
    hands.channels(insides.LEFT_TOGETHER[hands.lab.pbx])
    caller.hang_up()
    hands.idle()
    assert len(hands.sink.of(CallEventType.ENDED)) == len(hands.sink.of(CallEventType.MERGED)) == 1


def test_somebody_is_asked_and_the_agent_comes_back(hands: Hands) -> None:
    caller = hands.calls()
    hands.does(Action.CONSULT, to="102")
    hands.hears(hands.phone("101"), SECOND_HZ)
    hands.does(Action.RETURN)
    hands.hears(caller, AGENT_HZ)
    hands.channels(2)
    assert not hands.sink.of(CallEventType.TRANSFERRED)
    caller.hang_up()
    hands.idle()


def test_a_caller_is_handed_over_while_it_still_rings(lab: Lab, hands: Hands) -> None:
    lab.phone("102", answer_after=4)
    caller = hands.calls()
    hands.does(Action.CONSULT, to="102")
    hands.does(Action.COMPLETE)
    hands.told(CallEventType.TRANSFERRED)
    hands.hears(caller, SECOND_HZ)
    caller.hang_up()
    hands.idle()


def test_the_agent_comes_back_while_it_still_rings(lab: Lab, hands: Hands) -> None:
    lab.phone("102", Behaviour.NO_ANSWER)
    caller = hands.calls()
    hands.does(Action.CONSULT, to="102")
    hands.does(Action.RETURN)
    hands.hears(caller, AGENT_HZ)
    hands.channels(2)
    caller.hang_up()
    hands.idle()


def test_three_hear_each_other_in_one_call(lab: Lab, hands: Hands) -> None:
    caller = hands.calls()
    hands.does(Action.CONFERENCE, to="102")
    hands.hear(
        (caller, (AGENT_HZ, SECOND_HZ)),
        (hands.phone("101"), (CALLER_HZ, SECOND_HZ)),
        (hands.phone("102"), (CALLER_HZ, AGENT_HZ)),
    )
    assert hands.sink.kinds() == ["started", "offered", "connected", "offered", "connected"]
    lab.hang_up_phone("101")
    hands.hears(caller, SECOND_HZ)
    caller.hang_up()
    hands.idle()
    assert hands.sink.kinds()[5:] == ["ended"]


def test_nobody_comes_to_the_conference(lab: Lab, hands: Hands) -> None:
    lab.phone("102", Behaviour.BUSY)
    caller = hands.calls()
    outcome = hands.act(Action.CONFERENCE, to="102")
    assert (outcome.ok, outcome.reason) == (False, Reason.FAILED)
    hands.channels(2)
    hands.hears(caller, AGENT_HZ)
    caller.hang_up()
    hands.idle()


def test_a_parked_caller_comes_to_another_phone(lab: Lab, hands: Hands) -> None:
    caller = hands.calls()
    outcome = hands.does(Action.PARK)
    assert outcome.data["slot"].isdigit()
    hands.channels(1)
    hands.does(Action.RETRIEVE, agent=None, device=lab.device("102"), extension="102")
    hands.told(CallEventType.CONNECTED, 2)
    hands.hears(caller, SECOND_HZ)
    hands.channels(2)
    caller.hang_up()
    hands.idle()
    assert len(hands.sink.of(CallEventType.STARTED)) == 1


def test_a_parked_caller_stays_where_nobody_fetches_it(lab: Lab, hands: Hands) -> None:
    lab.phone("102", Behaviour.REJECT)
    caller = hands.calls()
    hands.does(Action.PARK)
    outcome = hands.act(Action.RETRIEVE, agent=None, device=lab.device("102"), extension="102")
    assert (outcome.ok, outcome.reason) == (False, Reason.FAILED)
    hands.channels(1)
    caller.hang_up()
    hands.idle()


def test_a_ringing_call_comes_to_another_phone(lab: Lab, hands: Hands) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    caller = hands.rings()
    hands.does(Action.PICKUP, agent=None, device=lab.device("102"), extension="102")
    [taken] = hands.told(CallEventType.TRANSFERRED)
    assert (taken.data["kind"], taken.data["by"]["agent"]) == ("pickup", "ben")
    hands.hears(caller, SECOND_HZ)
    hands.channels(2)
    caller.hang_up()
    hands.idle()
    assert len(hands.sink.of(CallEventType.ENDED)) == 1


def test_a_ringing_caller_is_sent_elsewhere(lab: Lab, hands: Hands) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    caller = hands.rings()
    hands.does(Action.REDIRECT, agent=None, to="102")
    hands.told(CallEventType.CONNECTED)
    hands.hears(caller, SECOND_HZ)
    caller.hang_up()
    hands.idle()
    assert [event.data["reason"] for event in hands.sink.of(CallEventType.UNOFFERED)] == ["cancelled"]


@pytest.mark.parametrize("side", list(Side))
def test_a_sound_is_heard_by_whom_it_is_for(hands: Hands, side: Side) -> None:
    caller = hands.calls()
    hands.does(Action.PLAY, sound=insides.LONG_SOUND, side=side)
    hands.hear(
        (caller, (AGENT_HZ, *((tones.NOTICE,) if side is not Side.AGENT else ()))),
        (hands.phone("101"), (CALLER_HZ, *((tones.NOTICE,) if side is not Side.CUSTOMER else ()))),
    )
    hands.does(Action.STOP)
    hands.hear((caller, (AGENT_HZ,)), (hands.phone("101"), (CALLER_HZ,)))
    hands.channels(2)
    caller.hang_up()
    hands.idle()


def test_a_sound_that_is_not_there(hands: Hands) -> None:
    caller = hands.calls()
    outcome = hands.act(Action.PLAY, sound="lab/missing", side=Side.BOTH)
    assert (outcome.ok, outcome.reason) == (False, Reason.FAILED)
    hands.channels(2)
    until(lambda: hands.act(Action.STOP).reason is Reason.REFUSED, what="nothing to be played")
    caller.hang_up()
    hands.idle()


def test_a_recording_holds_both_voices_and_none_while_it_is_paused(lab: Lab, hands: Hands) -> None:
    caller = hands.calls()
    file = hands.does(Action.RECORD).data["file"]
    hands.hears(caller, AGENT_HZ)
    assert hands.does(Action.RECORD).data["file"] == file
    hands.does(Action.PAUSE)
    hands.hears(caller, AGENT_HZ)
    hands.does(Action.UNPAUSE)
    hands.hears(caller, AGENT_HZ)
    assert hands.does(Action.UNRECORD).data["file"] == file
    hands.channels(2)
    whole = tones.heard(insides.record_file(lab, file))
    both, none = frozenset({CALLER_HZ, AGENT_HZ}), frozenset[int]()
    first, last = whole.index(none, 1), len(whole) - 1 - whole[::-1].index(none, 1)
    assert last - first > 3 and set(whole[first : last + 1]) == {none}
    assert whole[1 : first - 1].count(both) > 3 and whole[last + 2 : -1].count(both) > 3
    assert hands.act(Action.PAUSE).reason is Reason.REFUSED
    caller.hang_up()
    hands.idle()


def test_a_supervisor_listens_whispers_and_barges_in(lab: Lab, hands: Hands) -> None:
    caller = hands.calls()
    leader = {"device": lab.device("103"), "extension": "103"}
    hands.does(Action.LISTEN, **leader)
    hands.hear((hands.phone("103"), (CALLER_HZ, AGENT_HZ)), (hands.phone("101"), (CALLER_HZ,)))
    hands.does(Action.WHISPER, **leader)
    hands.hear((hands.phone("101"), (CALLER_HZ, LEADER_HZ)), (caller, (AGENT_HZ,)))
    hands.does(Action.BARGE, **leader)
    hands.hear((hands.phone("101"), (CALLER_HZ, LEADER_HZ)), (caller, (AGENT_HZ, LEADER_HZ)))
    hands.does(Action.LISTEN, **leader)
    hands.hears(caller, AGENT_HZ)
    assert len(hands.invites("103")) == 1
    caller.hang_up()
    hands.idle()
    assert hands.sink.kinds() == ["started", "offered", "connected", "ended"]


def test_a_supervisor_hangs_up_and_the_call_goes_on(lab: Lab, hands: Hands) -> None:
    caller = hands.calls()
    hands.does(Action.WHISPER, device=lab.device("103"), extension="103")
    lab.hang_up_phone("103")
    hands.channels(2)
    hands.hears(caller, AGENT_HZ)
    caller.hang_up()
    hands.idle()


def test_a_supervisor_who_does_not_answer(lab: Lab, hands: Hands) -> None:
    lab.phone("103", Behaviour.NO_ANSWER)
    caller = hands.calls()
    outcome = hands.act(Action.LISTEN, device=lab.device("103"), extension="103", ring_seconds=2)
    assert (outcome.ok, outcome.reason) == (False, Reason.FAILED)
    hands.channels(2)
    caller.hang_up()
    hands.idle()


def test_who_is_held_stays_held_through_a_gap(hands: Hands, line: Relay, sink: Sink) -> None:
    caller = hands.calls()
    hands.does(Action.HOLD)
    for gap in (2, 3):
        line.cut()
        until(lambda gap=gap: len(sink.facts) == gap, what="the resync")
    hands.waits(caller)
    assert hands.act(Action.HOLD).ok
    until(lambda: hands.act(Action.RESUME).ok, what="to be taken back")
    hands.hears(caller, AGENT_HZ)
    caller.hang_up()
    hands.idle()
    kinds = [kind for kind in sink.kinds() if kind != "uncertain"]
    assert kinds == ["started", "offered", "connected", "held", "resumed", "ended"]


def test_a_hold_that_ends_in_a_gap_is_resumed_after_it(hands: Hands, line: Relay, sink: Sink) -> None:
    caller = hands.calls()
    hands.does(Action.HOLD)
    line.open = False
    line.cut()
    insides.end_hold(hands.lab)
    line.open = True
    hands.told(CallEventType.RESUMED)
    caller.hang_up()
    hands.idle()


def test_another_process_finds_who_is_held(lab: Lab, hands: Hands, link: Link) -> None:
    caller = hands.calls()
    hands.does(Action.HOLD)
    until(lambda: hands.sink.of(CallEventType.HELD))
    link.stop()
    sink = Sink()
    other = link_to(lab, sink)
    other.set_directory(directory(lab))
    other.restore(hands.sink.live)
    other.start()
    try:
        until(lambda: sink.facts, what="the resync")
        after = Hands(lab, other, sink)
        after.call = hands.call
        until(lambda: after.act(Action.RESUME).ok, what="to be taken back")
        after.hears(caller, AGENT_HZ)
        after.told(CallEventType.RESUMED)
        caller.hang_up()
        after.idle()
    finally:
        other.stop()


def test_nothing_is_left_over_when_the_listener_dies(lab: Lab, hands: Hands, link: Link) -> None:
    caller = hands.calls()
    hands.does(Action.RECORD)
    hands.does(Action.LISTEN, device=lab.device("103"), extension="103")
    hands.does(Action.HOLD)
    link.stop()
    caller.hang_up()
    lab.wait_idle()


def test_who_is_held_is_sent_on_without_music(hands: Hands) -> None:
    caller = hands.calls()
    hands.does(Action.HOLD)
    hands.does(Action.TRANSFER, to="102")
    hands.hears(caller, SECOND_HZ)
    hands.channels(2)
    caller.hang_up()
    hands.idle()


def test_the_agent_who_holds_hangs_up(lab: Lab, hands: Hands) -> None:
    hands.calls()
    hands.does(Action.HOLD)
    lab.hang_up_phone("101")
    hands.idle()
    assert hands.sink.kinds()[-1] == "ended"


@pytest.mark.parametrize("action", [Action.RESUME, Action.STOP, Action.UNRECORD, Action.COMPLETE, Action.RETRIEVE])
def test_what_was_not_begun_cannot_be_ended(lab: Lab, hands: Hands, action: Action) -> None:
    caller = hands.calls()
    device = lab.device("102") if action is Action.RETRIEVE else None
    outcome = hands.act(action, device=device)
    assert (outcome.ok, outcome.reason) == (False, Reason.REFUSED), outcome
    hands.hears(caller, AGENT_HZ)
    caller.hang_up()
    hands.idle()


def test_what_comes_too_late_is_not_begun(hands: Hands) -> None:
    caller = hands.calls()
    outcome = hands.act(Action.HOLD, seconds=-1)
    assert (outcome.ok, outcome.reason) == (False, Reason.STALE)
    caller.hang_up()
    hands.idle()
    assert not hands.sink.of(CallEventType.HELD)


def test_a_call_that_ends_in_the_same_instant(lab: Lab, hands: Hands) -> None:
    """Whatever is said of it, it is one of the outcomes, and nothing is left over."""
    for action, values in (
        (Action.HOLD, {}),
        (Action.RECORD, {}),
        (Action.CONSULT, {"to": "102"}),
        (Action.PARK, {}),
        (Action.PLAY, {"sound": "lab/notice", "side": Side.BOTH}),
    ):
        caller = hands.calls()
        ending = threading.Thread(target=caller.hang_up)
        ending.start()
        outcome = hands.act(action, seconds=5, **values)  # type: ignore[arg-type]
        ending.join()
        assert outcome.reason in (Reason.DONE, Reason.FAILED, Reason.NOT_FOUND, Reason.REFUSED, Reason.TIMEOUT)
        hands.idle()


def test_nothing_is_done_to_a_call_that_is_over(hands: Hands) -> None:
    caller = hands.calls()
    call = hands.call
    caller.hang_up()
    hands.idle()
    outcome = hands.act(Action.HOLD, call=call)
    assert (outcome.ok, outcome.reason) == (False, Reason.NOT_FOUND)
