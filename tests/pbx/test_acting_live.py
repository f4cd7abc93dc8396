"""Call actions on FreeSWITCH that `test_actions_live.py` does not play on each PBX: races, queues, hostile values."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from insides import record_file, sound_file, without_permission
from labs import freeswitch_only
from links import Link, Sink, link_to
from rig import until

from bridge.domain.actions import Action, Side
from bridge.domain.calls import CallEventType, Directory
from bridge.pbx.port import ActionOrder, Outcome, Reason
from bridge.uptime import uptime
from ringbridge_lab.lab import Behaviour, Caller, Lab
from ringbridge_lab.tones import heard, write

pytestmark = [pytest.mark.pbx, freeswitch_only]

DID = "+12125550101"
QUEUE = "+12125550110"
BEHIND = "+12125550121"
"""A queue whose one agent, 101, is behind a loopback leg."""
CALLER = "+16465550111"
CUSTOMER, ANNA, BERT, CARL = 800, 330, 370, 410
"""The tones that the caller and the phones 101 to 103 play."""


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def link(lab: Lab, sink: Sink) -> Iterator[Link]:
    made = link_to(lab, sink)
    made.set_directory(_directory(lab))
    made.start()
    try:
        until(lambda: sink.facts, what="the resync")
        yield made
    finally:
        made.stop()


def _directory(lab: Lab) -> Directory:
    names = {"101": "anna", "102": "bert", "103": "carl"}
    return Directory(agents={lab.device(phone): name for phone, name in names.items()}, clients={DID: "acme"})


def act(lab: Lab, link: Link, call: str, action: Action, *, seconds: float = 40.0, **values: object) -> Outcome:
    order = {
        "action": action,
        "call": call,
        "command": str(uuid.uuid4()),
        "context": lab.info["company"]["context"],
        "ring_seconds": 15,
        "until": uptime() + seconds,
        **values,
    }
    return link.act(ActionOrder(**order))  # type: ignore[arg-type]


def seconds_of(path: Path, hertz: int) -> float:
    """For how long that tone sounds, alone or beside others."""
    return 0.2 * sum(bool(tones) for tones in heard(path, candidates=(hertz,)))


class Talk:
    """A customer talks with 101, and things are done to that call."""

    def __init__(self, lab: Lab, link: Link, sink: Sink, to: str = DID, seconds: float | None = None) -> None:
        self.lab, self.link, self.sink = lab, link, sink
        self.caller: Caller = lab.call(to, caller=CALLER, hangup_after=seconds)
        self.call = until(self._connected, what="the two to be connected")

    def _connected(self) -> str | None:
        found = self.sink.of(CallEventType.CONNECTED)
        return found[-1].call if found else None

    def do(self, action: Action, **values: object) -> Outcome:
        return act(self.lab, self.link, self.call, action, **values)  # type: ignore[arg-type]

    def done(self, action: Action, **values: object) -> Outcome:
        outcome = self.do(action, **values)
        assert (outcome.ok, outcome.reason) == (True, Reason.DONE), outcome
        return outcome

    def refused(self, action: Action, words: str, **values: object) -> None:
        outcome = self.do(action, **values)
        assert (outcome.ok, outcome.reason) == (False, Reason.REFUSED), outcome
        assert words in outcome.detail

    def said(self) -> list[str]:
        """What was said of the call since it was connected."""
        own = [event for event in list(self.sink.heard) if event.call == self.call]
        kinds = [event.type.value.removeprefix("call.") for event in own]
        return kinds[kinds.index("connected") + 1 :]

    def until_said(self, kind: str) -> None:
        until(lambda: kind in self.said(), what=f"{kind} to be said of the call")

    def end(self) -> None:
        """The customer hangs up; nobody is left."""
        self.caller.hang_up()
        self.run_out()

    def run_out(self) -> None:
        """The customer talks until he is done; nobody is left."""
        self.caller.wait_for("ended", seconds=60)
        self.lab.wait_idle()
        until(lambda: self.link.live_calls() == frozenset(), what="the picture to be empty")
        assert self.link.tracker.faults == 0

    def heard(self, who: str, tone: int) -> float:
        """For how many seconds the customer, or a phone, heard a tone; whole once the call is over."""
        path = self.caller.recording() if who == "customer" else self.lab.recording(f"phone-{who}-")
        return seconds_of(path, tone)


@pytest.fixture
def talk(lab: Lab, link: Link, sink: Sink) -> Talk:
    lab.phone("101", answer_after=0.3)
    return Talk(lab, link, sink)


@pytest.fixture
def short(lab: Lab, link: Link, sink: Sink) -> Talk:
    """The customer hangs up of himself, after some seconds in which what is heard is recorded."""
    lab.phone("101", answer_after=0.3)
    return Talk(lab, link, sink, seconds=9)


# --- sent elsewhere ---


def test_a_transfer_of_a_queue_s_caller_to_the_outside(lab: Lab, link: Link, sink: Sink) -> None:
    for phone in ("102", "103", "104", "105"):
        lab.phone(phone, Behaviour.NO_ANSWER)
    talk = Talk(lab, link, sink, to=QUEUE)
    talk.done(Action.TRANSFER, to="+16465550100")
    until(lambda: len(sink.of(CallEventType.CONNECTED)) == 2, what="the outside to answer")
    assert [event.data["kind"] for event in sink.of(CallEventType.TRANSFERRED)] == ["blind"]
    assert {event.call for event in sink.heard} == {talk.call}
    talk.end()


def test_a_transfer_by_who_called(lab: Lab, link: Link, sink: Sink) -> None:
    """The agent's is the first leg, and the customer the one who was called."""
    lab.call("+16465550100", phone="101")
    [connected] = until(lambda: sink.of(CallEventType.CONNECTED))
    assert connected.call is not None
    outcome = act(lab, link, connected.call, Action.TRANSFER, to="102", agent="anna")
    assert outcome.reason is Reason.DONE, outcome
    until(lambda: len(sink.of(CallEventType.CONNECTED)) == 2, what="the other agent")
    assert sink.kinds() == ["started", "offered", "connected", "transferred", "offered", "connected"]
    assert "bert" in [party["agent"] for party in sink.of(CallEventType.CONNECTED)[1].data["parties"]]
    lab.hang_up_phone("102")
    lab.wait_idle()
    until(lambda: link.live_calls() == frozenset())


def test_a_caller_who_has_nobody_yet_is_redirected(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    caller = lab.call(DID, caller=CALLER)
    [offered] = until(lambda: sink.of(CallEventType.OFFERED))
    assert offered.call is not None
    assert act(lab, link, offered.call, Action.TRANSFER, to="102").reason is Reason.REFUSED
    assert act(lab, link, offered.call, Action.REDIRECT, to="102").reason is Reason.DONE
    [connected] = until(lambda: sink.of(CallEventType.CONNECTED))
    assert (connected.call, connected.data["parties"][1]["agent"]) == (offered.call, "bert")
    assert [event.data["reason"] for event in sink.of(CallEventType.UNOFFERED)] == ["cancelled"]
    assert act(lab, link, offered.call, Action.REDIRECT, to="103").reason is Reason.REFUSED
    caller.hang_up()
    lab.wait_idle()


def test_park_and_retrieve(lab: Lab, short: Talk) -> None:
    assert short.done(Action.PARK).data["slot"].isdecimal()
    assert not short.do(Action.HOLD).ok
    me = {"device": lab.device("103"), "extension": "103"}
    lab.phone("103", Behaviour.BUSY)
    outcome = short.do(Action.RETRIEVE, **me)
    assert (outcome.reason, outcome.detail) == (Reason.FAILED, "the phone is busy")
    lab.phone("103", answer_after=0.3)
    short.done(Action.RETRIEVE, **me)
    short.until_said("connected")
    assert short.said() == ["transferred", "unoffered", "offered", "connected"]
    short.refused(Action.RETRIEVE, "not parked", **me)
    short.run_out()
    assert len({event.call for event in short.sink.heard}) == 1
    assert short.heard("customer", CARL) > 0


def test_pickup(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    caller = lab.call(DID, caller=CALLER, hangup_after=4)
    [offered] = until(lambda: sink.of(CallEventType.OFFERED))
    assert offered.call is not None
    outcome = act(lab, link, offered.call, Action.PICKUP, device=lab.device("103"), extension="103")
    assert outcome.reason is Reason.DONE, outcome
    [connected] = until(lambda: sink.of(CallEventType.CONNECTED))
    assert (connected.call, connected.data["parties"][1]["agent"]) == (offered.call, "carl")
    [told] = sink.of(CallEventType.TRANSFERRED)
    assert (told.data["kind"], told.data["by"]["agent"], told.data["from"]["agent"]) == ("pickup", "carl", "anna")
    assert [event.data["reason"] for event in sink.of(CallEventType.UNOFFERED)] == ["answered_elsewhere"]
    caller.wait_for("ended")
    lab.wait_idle()
    until(lambda: sink.of(CallEventType.ENDED))
    assert {event.call for event in sink.heard} == {offered.call}
    assert seconds_of(caller.recording(), CARL) > 0


def test_pickup_of_a_queued_caller(lab: Lab, link: Link, sink: Sink) -> None:
    for phone in ("101", "102", "103", "104", "105"):
        lab.phone(phone, Behaviour.NO_ANSWER)
    caller = lab.call(QUEUE, caller=CALLER)
    until(lambda: len(sink.of(CallEventType.OFFERED)) == 5)
    call = sink.heard[0].call
    assert call is not None
    lab.phone("103", answer_after=0.2)
    outcome = act(lab, link, call, Action.PICKUP, device=lab.device("103"), extension="103")
    assert outcome.reason is Reason.DONE, outcome
    [connected] = until(lambda: sink.of(CallEventType.CONNECTED))
    assert connected.data["parties"][1]["agent"] == "carl"
    until(lambda: sink.of(CallEventType.UNQUEUED))
    assert [event.data["kind"] for event in sink.of(CallEventType.TRANSFERRED)] == ["pickup"]
    caller.hang_up()
    lab.wait_idle()
    until(lambda: sink.of(CallEventType.ENDED))
    assert {event.call for event in sink.heard} == {call}
    assert sink.heard[-1].data["cause"] == "completed"


def test_a_pickup_that_comes_too_late(lab: Lab, link: Link, sink: Sink) -> None:
    """The phone answers while the picker's own still rings: nobody loses the call."""
    lab.phone("101", answer_after=2)
    lab.phone("103", answer_after=5)
    caller = lab.call(DID, caller=CALLER)
    [offered] = until(lambda: sink.of(CallEventType.OFFERED))
    assert offered.call is not None
    outcome = act(lab, link, offered.call, Action.PICKUP, device=lab.device("103"), extension="103")
    assert outcome.reason is Reason.FAILED, outcome
    [connected] = sink.of(CallEventType.CONNECTED)
    assert connected.data["parties"][1]["agent"] == "anna"
    assert sink.of(CallEventType.TRANSFERRED) == []
    caller.hang_up()
    lab.wait_idle()


# --- asking somebody first ---


def test_who_waits_does_not_hear_the_consultation(lab: Lab, short: Talk) -> None:
    lab.phone("102", answer_after=0.1)
    short.done(Action.CONSULT, to="102", agent="anna")
    short.caller.wait_for("ended")
    # The two go on talking; when one hangs up, the other is not left alone.
    assert lab.hang_up_phone("101") == 1
    short.run_out()
    assert short.heard("102", ANNA) > 0
    assert short.heard("102", CUSTOMER) == 0
    assert short.heard("customer", BERT) == 0


def test_a_consultation_from_a_queue(lab: Lab, link: Link, sink: Sink) -> None:
    for phone in ("102", "103", "104", "105"):
        lab.phone(phone, Behaviour.NO_ANSWER)
    talk = Talk(lab, link, sink, to=QUEUE)
    lab.phone("102", answer_after=0.3)
    talk.done(Action.CONSULT, to="102", agent="anna")
    until(lambda: len(sink.of(CallEventType.CONNECTED)) == 2, what="the two agents to talk")
    talk.done(Action.COMPLETE, agent="anna")
    until(lambda: len(sink.of(CallEventType.CONNECTED)) == 3, what="customer and target to talk")
    assert sink.of(CallEventType.CONNECTED)[2].call == talk.call
    talk.end()
    assert sink.heard[-1].data["cause"] == "completed"


def test_a_consultation_that_is_busy(lab: Lab, talk: Talk) -> None:
    lab.phone("102", Behaviour.BUSY)
    outcome = talk.do(Action.CONSULT, to="102", agent="anna")
    assert outcome.reason is Reason.FAILED, outcome
    talk.done(Action.HOLD)
    talk.done(Action.RESUME)
    talk.end()
    assert talk.said() == ["held", "resumed", "ended"]


# --- supervisors ---


def test_a_supervisors_phone_stops_ringing_when_the_call_ends(lab: Lab, short: Talk) -> None:
    lab.phone("103", Behaviour.NO_ANSWER)
    me = {"device": lab.device("103"), "extension": "103"}
    outcome = short.do(Action.LISTEN, **me, ring_seconds=100, seconds=110)
    assert outcome.reason is Reason.FAILED, outcome
    short.run_out()


# --- sounds ---


def test_a_sound_is_stopped(lab: Lab, talk: Talk) -> None:
    write(sound_file(lab, "tests/long"), 1500, 60)
    assert not talk.do(Action.STOP).ok
    talk.done(Action.PLAY, sound="tests/long", side=Side.BOTH)
    talk.done(Action.STOP)
    assert not talk.do(Action.STOP).ok
    missing = talk.do(Action.PLAY, sound="tests/none", side=Side.BOTH)
    assert not missing.ok and "sound" in missing.detail
    talk.end()
    assert talk.heard("customer", 1500) < 30


# --- bad input ---

TARGETS = ("102 XML evil", "102\n\napi status", "${system(id)}", "102,103", "1'2", "102;;status", "&park", "-bleg", "")
SOUNDS = ("../../etc/passwd", "/etc/passwd", "a b", "x'y", "${x}", "tone_stream://x", "a&b")
PHONES = ("user/101,user/102", "user/1 &park", "{a=b}user/101", "loopback/102/default", "Local/102@x", "SIP/1&SIP/2")


def test_hostile_values_go_nowhere(lab: Lab, talk: Talk) -> None:
    before = len(lab.witness())
    for to in TARGETS:
        for action in (Action.TRANSFER, Action.CONSULT, Action.CONFERENCE):
            talk.refused(action, "", to=to)
    for sound in SOUNDS:
        talk.refused(Action.PLAY, "", sound=sound, side=Side.BOTH)
    for digits in ("1 2", "1w2", "x", "1" * 33):
        talk.refused(Action.DTMF, "", digits=digits)
    for device in PHONES:
        talk.refused(Action.LISTEN, "", device=device)
    talk.refused(Action.TRANSFER, "", to="102", context="default inline")
    talk.refused(Action.CONSULT, "", to="102", context="a,b")
    talk.refused(Action.LISTEN, "", device=lab.device("103"), command="x y")
    talk.refused(Action.HOLD, "not in the call", agent="carl")
    assert len(lab.witness()) == before
    assert talk.said() == []
    talk.end()


@pytest.mark.parametrize(
    ("action", "values"),
    [
        (Action.HOLD, {}),
        (Action.TRANSFER, {"to": "102"}),
        (Action.PARK, {}),
        (Action.RECORD, {}),
        (Action.CONSULT, {"to": "102"}),
    ],
)
def test_a_call_that_ends_in_the_same_moment(talk: Talk, action: Action, values: dict[str, str]) -> None:
    """Whatever comes first: an answer in time, and nothing left."""
    talk.caller.hang_up()
    talk.do(action, seconds=5, **values)
    talk.run_out()


# --- queues behind a wire, and permissions ---


def test_what_is_done_to_a_queue_s_caller_behind_a_wire(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", answer_after=0.3)
    lab.phone("102", answer_after=0.3)
    talk = Talk(lab, link, sink, to=BEHIND)
    talk.done(Action.HOLD)
    talk.done(Action.RESUME)
    file = talk.done(Action.RECORD).data["file"]
    until(lambda: record_file(lab, file).stat().st_size > 32_000, what="two seconds to be recorded")
    talk.done(Action.UNRECORD)
    assert seconds_of(record_file(lab, file), CUSTOMER) > 0.5
    talk.done(Action.TRANSFER, to="102")
    until(lambda: len(sink.of(CallEventType.CONNECTED)) == 2, what="the other agent")
    assert [event.data["kind"] for event in sink.of(CallEventType.TRANSFERRED)] == ["blind"]
    assert {event.call for event in sink.heard} == {talk.call}
    talk.end()


def test_a_consultation_from_a_queue_behind_a_wire(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", answer_after=0.3)
    lab.phone("102", answer_after=0.3)
    talk = Talk(lab, link, sink, to=BEHIND)
    talk.done(Action.CONSULT, to="102", agent="anna")
    until(lambda: len(sink.of(CallEventType.CONNECTED)) == 2, what="the two agents to talk")
    talk.done(Action.COMPLETE, agent="anna")
    until(lambda: len(sink.of(CallEventType.CONNECTED)) == 3, what="customer and target to talk")
    talk.end()


def test_a_permission_that_is_missing_is_named(lab: Lab, sink: Sink) -> None:
    with without_permission(lab, "uuid_hold"):
        link = link_to(lab, sink)
        link.set_directory(_directory(lab))
        link.start()
        try:
            until(lambda: sink.facts, what="the resync")
            talk = Talk(lab, link, sink)
            outcome = talk.do(Action.HOLD)
            assert (outcome.ok, outcome.reason) == (False, Reason.REFUSED), outcome
            assert "uuid_hold" in outcome.detail and "esl-allowed-api" in outcome.detail
            talk.done(Action.RECORD)
            talk.end()
        finally:
            link.stop()
