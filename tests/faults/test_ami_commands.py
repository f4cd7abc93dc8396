"""What the AMI link sends: each command at most once, and never to be mistaken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from doubles.ami_links import ATTEMPT, QUICK, channel, events_until, linked, order, pbx
from doubles.sink import Sink
from recorded import wire
from rig import until

from bridge.domain.calls import CallEventType, Directory
from bridge.pbx.open import open_link
from bridge.pbx.port import Reason, Receipts
from bridge.pbx.sim.ami import FakeAsterisk, message
from bridge.uptime import uptime


@pytest.fixture
def server() -> Iterator[FakeAsterisk]:
    with FakeAsterisk() as fake:
        yield fake


def test_an_unanswered_originate_is_unknown_and_never_repeated(server: FakeAsterisk) -> None:
    server.answers["originate"] = lambda fields: None
    sink = Sink()
    with linked(server, sink) as link:
        assert link.dial(order(until=uptime() + 0.3)).reason is Reason.TIMEOUT
        session = link._commander._session
        assert session is not None
        until(lambda: session._wire.responses == {}, what="nothing to be waited for, no ping either")
    assert len(server.asked("Originate")) == 1


def test_the_originate_goes_through_our_context(server: FakeAsterisk) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        assert link.dial(order(caller_id="+12125550100")).ok
    [fields] = server.asked("Originate")
    assert fields["Channel"] == "Local/first@ringbridge-leg"
    assert (fields["ChannelId"], fields["OtherChannelId"]) == (ATTEMPT, f"{ATTEMPT}-2")
    assert (fields["Context"], fields["Exten"], fields["Priority"]) == ("ringbridge-go", "second", "1")
    assert fields["Async"] == "true"
    assert "Application" not in fields and "Data" not in fields
    assert "RB_CALLER=+12125550100" in fields["Variable"].split("\n")
    assert [user for user, f in server.actions if f["Action"] == "Originate"] == ["ringbridge-dial"]


@pytest.mark.parametrize(
    "bad",
    [
        {"number": "+1646555010a"},
        {"number": "+16465550101\r\nAction: Originate"},
        {"number": "12"},
        {"dial_string": "PJSIP/1,2@trunk"},
        {"dial_string": "PJSIP/1@trunk&PJSIP/2"},
        {"agent_device": "PJSIP/101,tT"},
        {"agent_device": "Console/dsp"},
        {"caller_id": "Anna <1>"},
        {"attempt": "a b"},
        {"first": "both"},
        {"agent_ring_seconds": 0},
    ],
)
def test_what_does_not_match_its_pattern_never_leaves(server: FakeAsterisk, bad: dict[str, object]) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        outcome = link.dial(order(**bad))
        assert (outcome.ok, outcome.reason) == (False, Reason.REFUSED)
        assert "555" not in outcome.detail
    assert server.asked("Originate") == []


def test_a_refused_originate_says_so_without_numbers(server: FakeAsterisk) -> None:
    server.answers["originate"] = lambda fields: message(
        {"Response": "Error", "Message": "Extension 16465550101 does not exist."}, fields
    )
    sink = Sink()
    with linked(server, sink) as link:
        outcome = link.dial(order())
        assert outcome.reason is Reason.REFUSED
        assert "6465550101" not in outcome.detail
        assert link.live_attempts() == frozenset()


def test_a_refused_command_user_leaves_the_events_alive(server: FakeAsterisk) -> None:
    server.users["ringbridge-dial"] = "another"
    sink = Sink()
    with linked(server, sink) as link:
        assert "login refused" in sink.ups[0]
        outcome = link.dial(order())
        assert outcome.reason is Reason.LINK_DOWN
        assert "login refused" in outcome.detail
        assert link.receipts(ATTEMPT) == Receipts(None, None)


def test_observe_mode_uses_one_user_only(server: FakeAsterisk) -> None:
    sink = Sink()
    settings = pbx(server.port, command_secret=None)
    link = open_link(settings, sink, observe=True)
    link.start()
    try:
        until(lambda: sink.facts)
        assert link.dial(order()).reason is Reason.REFUSED
        assert link.hangup("x", None).reason is Reason.REFUSED
        assert link.receipts(ATTEMPT) == Receipts(None, None)
    finally:
        link.stop()
    assert {user for user, _ in server.actions} == {"ringbridge"}


def test_receipts(server: FakeAsterisk) -> None:
    server.database[f"ringbridge/{ATTEMPT}-agent"] = "1795330380"
    sink = Sink()
    with linked(server, sink) as link:
        assert link.receipts(ATTEMPT) == Receipts(True, False)
        for held, answered in (("1795330380", None), ("1795330380-dialed", False), ("1795330381-answered", True)):
            server.database[f"ringbridge/{ATTEMPT}-customer"] = held
            assert link.receipts(ATTEMPT) == Receipts(True, True, answered)


def test_hangup_finds_the_agents_leg(server: FakeAsterisk) -> None:
    server.answers["hangup"] = lambda fields: message(
        {"Response": "Success", "Message": "Channel Hungup"}, fields
    )
    sink = Sink()
    with linked(server, sink) as link:
        link.set_directory(Directory(agents={"PJSIP/101": "anna"}))
        data = b"".join(events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest"))
        server.send(data)
        until(lambda: "call.connected" in sink.kinds())
        call = sink.heard[0].call
        assert call is not None
        assert link.hangup(call, "bert").reason is Reason.NOT_FOUND
        assert link.hangup("lab-no-such", "anna").reason is Reason.NOT_FOUND
        assert link.hangup(call, "anna").ok
        [fields] = server.asked("Hangup")
        assert fields["Channel"] == "PJSIP/101-00000001"
        assert link.hangup(call, None).ok
        assert len(server.asked("Hangup")) == 3


def test_an_attempt_from_before_this_process_is_recognised(server: FakeAsterisk) -> None:
    server.channels = [
        channel(ATTEMPT, "Local/first@ringbridge-leg-00000001;1", ChannelState="0"),
        channel(f"{ATTEMPT}-2", "Local/first@ringbridge-leg-00000001;2", link=ATTEMPT, Application="Dial"),
    ]
    sink = Sink()
    with linked(server, sink) as link:
        assert link.live_attempts() == {ATTEMPT}
    assert sink.heard[0].type is CallEventType.STARTED
    assert sink.heard[0].data["attempt"] == ATTEMPT


def test_a_dial_that_never_became_a_channel_is_a_call_that_failed(server: FakeAsterisk) -> None:
    """What a PBX says whose dialplan lacks our context."""
    sink = Sink()
    with linked(server, sink) as link:
        assert link.dial(order()).ok
        [fields] = server.asked("Originate")
        failure = {"ActionID": fields["ActionID"], "Response": "Failure", "Uniqueid": "<null>", "Reason": "0"}
        server.event("OriginateResponse", **failure)
        server.event("OriginateResponse", **failure)
        until(lambda: "call.ended" in sink.kinds())
        assert link.live_attempts() == frozenset()
    assert sink.kinds() == ["call.started", "call.ended"]
    assert sink.heard[0].data["attempt"] == ATTEMPT
    assert sink.heard[1].data["cause"] == "failed"


def test_what_is_told_of_the_link_follows_the_command_user(server: FakeAsterisk) -> None:
    secret = server.users.pop("ringbridge-dial")
    sink = Sink()
    quick = replace(QUICK, refused_first=0.05, refused_most=0.05)
    with linked(server, sink, timings=quick):
        until(lambda: sink.ups and sink.ups[-1].startswith("connected for events only"))
        server.users["ringbridge-dial"] = secret
        until(lambda: sink.ups[-1] == "connected", what="the command user's sign-in to be told")
        server.users.pop("ringbridge-dial")
        server.cut()
        until(lambda: "login refused" in sink.ups[-1], what="its refusal to be told")
