"""What is done to a call, on a real PBX: people say by what they hear that it happened, and the tracker says it too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hands import CALLER_HZ, Hands, Keys, directory, phone_hz
from links import Link, Relay, Sink, link_to
from rig import until

from bridge.domain.actions import Action
from bridge.domain.calls import CallEventType
from bridge.pbx.port import Reason
from ringbridge_lab import tones
from ringbridge_lab.lab import Lab

pytestmark = pytest.mark.pbx

OUTSIDE, OUTSIDE_HZ = "+16465550101", 1010
AGENT_HZ = phone_hz("101")


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
    hands.hears(caller, tones.MUSIC)
    hands.hears(hands.phone("101"))
    hands.does(Action.RESUME)
    hands.told(CallEventType.RESUMED)
    hands.hears(caller, AGENT_HZ)
    hands.hears(hands.phone("101"), CALLER_HZ)
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
    hands.hears(caller, phone_hz("102"))
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


def test_nothing_is_done_to_a_call_that_is_over(hands: Hands) -> None:
    caller = hands.calls()
    call = hands.call
    caller.hang_up()
    hands.idle()
    outcome = hands.act(Action.HOLD, call=call)
    assert (outcome.ok, outcome.reason) == (False, Reason.NOT_FOUND)
