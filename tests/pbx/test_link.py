"""The link against a real PBX: calls as they happen, gaps, restarts, dials."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from links import Link, Relay, Sink, link_to
from rig import until

from bridge.domain.calls import CallEventType, Directory, Expected
from bridge.pbx.port import DialOrder, Reason, Receipts
from bridge.uptime import uptime
from ringbridge_lab.lab import Behaviour, Lab

pytestmark = pytest.mark.pbx

CALLER = "+16465550111"
DID = "+12125550101"


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def link(lab: Lab, sink: Sink) -> Iterator[Link]:
    made = link_to(lab, sink)
    made.set_directory(Directory(agents={lab.device("101"): "anna"}, clients={DID: "acme"}))
    made.start()
    try:
        until(lambda: sink.facts, what="the resync")
        yield made
    finally:
        made.stop()
        assert made.tracker.faults == 0


def test_an_answered_call(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", answer_after=0.5)
    lab.call(DID, caller=CALLER, name="Smith & Söns", hangup_after=1)
    until(lambda: sink.of(CallEventType.ENDED))
    assert sink.kinds() == ["started", "offered", "connected", "ended"]
    started, offered, _, ended = sink.heard
    assert started.data["direction"] == "inbound"
    assert started.data["from"]["number"] == CALLER
    assert started.data["from"]["name"] == "Smith & Söns"
    assert started.data["to"]["number"] == DID
    assert started.data["client"] == "acme"
    assert offered.data["party"]["agent"] == "anna"
    assert (ended.data["cause"], ended.data["answered_by"]) == ("completed", "person")
    # A second, and whatever the lab is late by.
    assert ended.data["talk_ms"] > 500
    assert sink.live == {}


def test_a_busy_phone(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", Behaviour.BUSY)
    lab.call(DID, caller=CALLER)
    until(lambda: sink.of(CallEventType.ENDED))
    [unoffered] = sink.of(CallEventType.UNOFFERED)
    assert unoffered.data["reason"] == "busy"
    assert sink.of(CallEventType.OFFERED) == []


def test_a_caller_who_gives_up(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    caller = lab.call(DID, caller=CALLER)
    until(lambda: sink.of(CallEventType.OFFERED))
    caller.hang_up()
    until(lambda: sink.of(CallEventType.ENDED))
    assert sink.kinds() == ["started", "offered", "unoffered", "ended"]
    assert sink.heard[2].data["reason"] == "cancelled"
    assert sink.heard[3].data["cause"] == "cancelled"


def test_a_phone_that_rings_out(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("102", Behaviour.NO_ANSWER)
    wanted = order(lab, first="customer", number="+16465550150")
    assert link.dial(wanted).ok
    until(lambda: sink.of(CallEventType.ENDED))
    assert [e.data["reason"] for e in sink.of(CallEventType.UNOFFERED)] == ["no_answer"]
    assert sink.heard[-1].data["cause"] == "no_answer"


def test_an_internal_call(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("102", answer_after=0.2)
    lab.call("102", phone="101", hangup_after=1)
    until(lambda: sink.of(CallEventType.ENDED))
    assert sink.kinds() == ["started", "offered", "connected", "ended"]
    ended = sink.heard[-1].data
    assert (ended["direction"], ended["cause"]) == ("internal", "completed")
    assert (ended["from"]["agent"], ended["to"]["extension"]) == ("anna", "102")


def test_a_withheld_number_is_never_published(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", answer_after=0.2)
    lab.call(DID, caller=CALLER, name="Mallory", withheld=True, hangup_after=1)
    until(lambda: sink.of(CallEventType.CONNECTED))
    states = dict(sink.live)
    assert states
    second = Sink()
    other = link_to(lab, second)
    other.start()
    until(lambda: second.facts)
    other.stop()
    assert second.heard[0].data["from"]["withheld"] is True
    assert CALLER[1:] not in repr(second.heard)
    until(lambda: sink.of(CallEventType.ENDED))
    assert sink.heard[0].data["from"]["withheld"] is True
    assert CALLER[1:] not in repr(sink.heard)
    assert "Mallory" not in repr(sink.heard)
    assert CALLER[1:] not in repr(states)


def test_a_queue_that_rings_all(lab: Lab, link: Link, sink: Sink) -> None:
    for phone in ("101", "102", "104", "105"):
        lab.phone(phone, Behaviour.NO_ANSWER)
    lab.phone("103", answer_after=1)
    # The talk is counted from the queue's answer on, which comes at once.
    lab.call("+12125550110", caller=CALLER, hangup_after=3)
    until(lambda: sink.of(CallEventType.ENDED))
    assert len({event.call for event in sink.heard}) == 1
    offered = {event.data["party"]["extension"] for event in sink.of(CallEventType.OFFERED)}
    assert offered == {"101", "102", "103", "104", "105"}
    assert {e.data["reason"] for e in sink.of(CallEventType.UNOFFERED)} == {"answered_elsewhere"}
    assert [e.data["reason"] for e in sink.of(CallEventType.UNQUEUED)] == ["answered"]
    [connected] = sink.of(CallEventType.CONNECTED)
    assert connected.data["parties"][1]["extension"] == "103"


def test_an_abandoned_queue(lab: Lab, link: Link, sink: Sink) -> None:
    for phone in ("101", "102", "103", "104", "105"):
        lab.phone(phone, Behaviour.NO_ANSWER)
    caller = lab.call("+12125550110", caller=CALLER)
    until(lambda: len(sink.of(CallEventType.OFFERED)) == 5)
    caller.hang_up()
    until(lambda: sink.of(CallEventType.ENDED))
    assert [e.data["reason"] for e in sink.of(CallEventType.UNQUEUED)] == ["abandoned"]
    assert sink.heard[-1].data["cause"] == "abandoned"


def order(lab: Lab, number: str = "+16465550101", first: str = "agent", **more: object) -> DialOrder:
    attempt = str(uuid.uuid4())
    values: dict[str, object] = {
        "attempt": attempt,
        "first": first,
        "agent_device": lab.device("101"),
        "agent_extension": "101",
        "number": number,
        "dial_string": lab.pbx_settings()["dial"].format(number=number),
        "caller_id": "+12125550100",
        "agent_ring_seconds": 3,
        "customer_ring_seconds": 3,
        "expected": Expected(
            attempt, "anna", lab.device("101"), number, callback="cb-1", agent_first=first == "agent"
        ),
        "until": uptime() + 5.0,
        **more,
    }
    return DialOrder(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", ["agent", "customer"])
def test_a_dial_of_ours(lab: Lab, link: Link, sink: Sink, first: str) -> None:
    lab.phone("101", answer_after=0.2)
    wanted = order(lab, first=first)
    assert link.receipts(wanted.attempt) == Receipts(False, False)
    assert link.dial(wanted).reason is Reason.SENT
    until(lambda: sink.of(CallEventType.CONNECTED))
    assert link.live_attempts() == {wanted.attempt}
    assert link.receipts(wanted.attempt) == Receipts(True, True, answered=True)
    call = sink.heard[0].call
    assert call is not None
    assert link.hangup(call, "anna").ok
    until(lambda: sink.of(CallEventType.ENDED))
    assert {event.call for event in sink.heard} == {call}
    assert sink.heard[0].data["attempt"] == wanted.attempt
    [connected] = sink.of(CallEventType.CONNECTED)
    assert [p["extension"] or p["number"] for p in connected.data["parties"]] == ["101", wanted.number]
    assert sink.heard[-1].data["cause"] == "completed"
    assert sink.heard[-1].data["ended_by"]["agent"] == "anna"
    # One INVITE to the agent, one to the customer.
    assert len(lab.witness(attempt=wanted.attempt)) == 2
    assert link.live_attempts() == frozenset()


def test_a_bad_device_is_a_call_that_ended(lab: Lab, link: Link, sink: Sink) -> None:
    wanted = order(lab, agent_device=lab.device("nobody"))
    assert link.dial(wanted).ok
    until(lambda: sink.of(CallEventType.ENDED))
    assert sink.heard[0].data["attempt"] == wanted.attempt
    assert sink.heard[-1].data["cause"] == "failed"


def test_a_dial_held_up_on_its_way_is_refused_by_the_pbx(lab: Lab, sink: Sink) -> None:
    """As of a listener that was stopped in the middle of sending, or bytes that lay in a network."""
    relay = Relay(lab.info["company"]["port"])
    link = link_to(lab, sink, port=relay.port, patient=True)
    link.start()
    try:
        until(lambda: sink.facts)
        relay.flows.clear()
        late = order(lab, until=uptime() + 1)
        assert link.dial(late).reason is Reason.TIMEOUT
        until(lambda: uptime() > late.until + 1)
        relay.flows.set()
        # Answered behind the originate, on the same line.
        assert link.receipts(late.attempt) == Receipts(False, False)
        until(lambda: sink.of(CallEventType.ENDED))
        assert [event.type.value for event in sink.heard] == ["call.started", "call.ended"]
        assert sink.heard[-1].data["cause"] == "failed"
        assert link.receipts(late.attempt) == Receipts(False, False)
        assert lab.witness(attempt=late.attempt) == []
        # One that comes in time is dialled, whatever the clock of the machine says.
        wanted = order(lab)
        assert link.dial(wanted).ok
        until(lambda: lab.witness(attempt=wanted.attempt))
    finally:
        link.stop()
        relay.close()


def test_a_cut_line_in_a_call(lab: Lab, sink: Sink) -> None:
    relay = Relay(lab.info["company"]["port"])
    link = link_to(lab, sink, port=relay.port)
    link.start()
    try:
        until(lambda: sink.facts)
        lab.phone("101", answer_after=0.2)
        lab.phone("102", answer_after=0.2)
        stays = lab.call(DID, caller=CALLER)
        until(lambda: len(sink.of(CallEventType.CONNECTED)) == 1)
        goes = lab.call("+12125550102", caller="+16465550112")
        until(lambda: len(sink.of(CallEventType.CONNECTED)) == 2)
        first, second = (event.call for event in sink.of(CallEventType.STARTED))
        relay.open = False
        relay.cut()
        until(lambda: sink.downs)
        goes.hang_up()
        until(lambda: lab.channels() == 2)
        relay.open = True
        until(lambda: len(sink.facts) == 2)
        assert (sink.facts[1].appeared, sink.facts[1].vanished) == (0, 1)
        assert sink.facts[0].started_at is not None and sink.facts[1].started_at is not None
        assert abs((sink.facts[0].started_at - sink.facts[1].started_at).total_seconds()) < 3
        [ended] = sink.of(CallEventType.ENDED)
        assert (ended.call, ended.data["cause"]) == (second, "uncertain")
        assert {event.call for event in sink.of(CallEventType.UNCERTAIN)} == {first, second}
        stays.hang_up()
        until(lambda: len(sink.of(CallEventType.ENDED)) == 2)
        assert sink.heard[-1].call == first
        assert sink.heard[-1].data["cause"] == "completed"
        mine = [event.seq for event in sink.heard if event.call == first]
        assert mine == list(range(1, len(mine) + 1))
    finally:
        link.stop()
        relay.close()


def test_a_standby_adopts_what_it_was_left(lab: Lab, sink: Sink) -> None:
    lab.phone("101", answer_after=0.2)
    holder = link_to(lab, sink)
    holder.start()
    until(lambda: sink.facts)
    wanted = order(lab)
    assert holder.dial(wanted).ok
    until(lambda: sink.of(CallEventType.CONNECTED))
    holder.stop()
    second = Sink()
    standby = link_to(lab, second)
    standby.restore(sink.live)
    standby.start()
    try:
        until(lambda: second.facts)
        assert standby.live_attempts() == {wanted.attempt}
        assert (second.facts[0].appeared, second.facts[0].vanished) == (0, 0)
        lab.hang_up_phone("101")
        until(lambda: second.of(CallEventType.ENDED))
    finally:
        standby.stop()
    assert second.kinds() == ["uncertain", "ended"]
    assert second.heard[0].call == sink.heard[0].call
    assert second.heard[0].seq == (sink.heard[-1].seq or 0) + 1
    assert second.heard[1].data["cause"] == "completed"


def test_one_without_anything_left_still_recognises_the_attempt(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", answer_after=0.2)
    wanted = order(lab)
    assert link.dial(wanted).ok
    until(lambda: sink.of(CallEventType.CONNECTED))
    second = Sink()
    other = link_to(lab, second)
    other.start()
    try:
        until(lambda: second.facts)
        assert other.live_attempts() == {wanted.attempt}
        assert second.facts[0].appeared == 1
        assert second.of(CallEventType.CONNECTED)
    finally:
        other.stop()
        lab.hang_up_phone("101")


def test_a_pbx_killed_in_a_call(lab: Lab, link: Link, sink: Sink) -> None:
    lab.phone("101", answer_after=0.2)
    lab.call(DID, caller=CALLER)
    until(lambda: sink.of(CallEventType.CONNECTED))
    lab.restart_company(kill=True)
    until(lambda: len(sink.facts) == 2, seconds=60)
    [ended] = sink.of(CallEventType.ENDED)
    assert ended.data["cause"] == "uncertain"
    assert sink.kinds()[-2:] == ["uncertain", "ended"]
    before, after = sink.facts[0].started_at, sink.facts[1].started_at
    assert before is not None and after is not None and after > before
    assert sink.live == {}
