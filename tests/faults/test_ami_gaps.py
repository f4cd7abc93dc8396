"""The AMI link after a gap, and while it does not know yet what it may show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from doubles.ami_links import QUICK, channel, events_until, linked, order, pbx
from doubles.sink import Sink
from real_gaps import record
from recorded import TRACES, wire
from rig import until

from bridge.domain.calls import CallEventType
from bridge.pbx.ami.link import AmiLink
from bridge.pbx.port import Reason
from bridge.pbx.sim.ami import FakeAsterisk, Fields, after_login, message, trace


@pytest.fixture
def server() -> Iterator[FakeAsterisk]:
    with FakeAsterisk() as fake:
        yield fake


def test_after_a_gap_the_picture_is_the_pbxs_and_the_gap_is_said(server: FakeAsterisk) -> None:
    sink = Sink()
    with linked(server, sink):
        server.send(b"".join(events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest")))
        until(lambda: "call.connected" in sink.kinds())
        server.channels = [
            channel("1795000000.1", "PJSIP/102-00000009", CallerIDNum="102", Exten="103", Application="Dial"),
            channel(
                "1795000000.2",
                "PJSIP/103-0000000a",
                link="1795000000.1",
                ChannelState="5",
                Application="AppDial",
            ),
        ]
        server.cut()
        until(lambda: len(sink.facts) >= 2)
    assert sink.kinds()[3:] == [
        "call.uncertain",
        "call.ended",
        "call.started",
        "call.offered",
        "call.uncertain",
    ]
    ended = sink.heard[4]
    assert ended.data["cause"] == "uncertain"
    assert [event.seq for event in sink.heard[:5]] == [1, 2, 3, 4, 5]
    assert set(sink.heard[3].data) == {"since", "until"}
    assert (sink.facts[1].appeared, sink.facts[1].vanished) == (1, 1)
    assert sink.order.index("down") < sink.order.index("call.uncertain")
    assert sink.order[-1] == "resynced"
    [live] = sink.live
    assert live.endswith("-1795000000.1")


def test_a_call_that_lives_on_goes_on_with_its_id_and_number(server: FakeAsterisk) -> None:
    sink = Sink()
    with linked(server, sink):
        data = b"".join(events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest"))
        server.send(data)
        until(lambda: "call.connected" in sink.kinds())
        bridge = data.split(b"BridgeUniqueid: ")[1].split(b"\r\n")[0].decode()
        server.bridges = [{"BridgeUniqueid": bridge, "BridgeType": "basic"}]
        server.channels = [
            channel("lab22-1795330380.0", "PJSIP/trunk-00000000", BridgeId=bridge),
            channel("lab22-1795330380.1", "PJSIP/101-00000001", link="lab22-1795330380.0", BridgeId=bridge),
        ]
        server.cut()
        until(lambda: len(sink.facts) >= 2)
        server.event("Hangup", Uniqueid="lab22-1795330380.1", Cause="16")
        server.event("Hangup", Uniqueid="lab22-1795330380.0", Cause="16")
        until(lambda: "call.ended" in sink.kinds())
    assert sink.kinds()[3:] == ["call.uncertain", "call.ended"]
    assert sink.heard[-1].data["cause"] == "completed"
    assert sink.heard[-1].seq == 5
    assert len({event.call for event in sink.heard}) == 1


@pytest.mark.parametrize(
    "answer", [{"Response": "Success"}, {"Response": "Error", "Message": "Invalid/unknown command"}]
)
def test_what_is_no_list_is_no_empty_list_and_ends_no_call(server: FakeAsterisk, answer: Fields) -> None:
    """Of a server that knows the question not at all, or says nothing but yes."""
    sink = Sink()
    data = b"".join(events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest"))
    with linked(server, sink):
        server.send(data)
        until(lambda: "call.connected" in sink.kinds())
        server.answers["coreshowchannels"] = lambda fields: message(answer, fields)
        server.cut()
        until(lambda: len(sink.ups) >= 2)
        assert "does not list its channels" in sink.ups[-1]
        server.event("Hangup", Uniqueid="lab22-1795330380.1", Cause="16")
        server.event("Hangup", Uniqueid="lab22-1795330380.0", Cause="16")
        until(lambda: "call.ended" in sink.kinds())
    assert sink.kinds()[3:] == ["call.uncertain", "call.ended"]
    assert sink.heard[-1].data["cause"] == "completed"
    assert len(sink.facts) == 1


def test_once_the_pbx_lists_its_channels_they_are_taken_in(server: FakeAsterisk) -> None:
    sink = Sink()
    server.answers["coreshowchannels"] = lambda fields: message({"Response": "Success"}, fields)
    with linked(server, sink, timings=replace(QUICK, refused_first=0.2), wait=False) as link:
        until(lambda: sink.ups)
        assert link.dial(order()).reason is Reason.LINK_DOWN
        assert not sink.facts
        server.channels = [channel("1795000000.1", "PJSIP/102-00000009", CallerIDNum="102", Exten="103")]
        del server.answers["coreshowchannels"]
        until(lambda: sink.facts)
        assert sink.kinds() == ["call.started", "call.uncertain"]


def test_a_standby_goes_on_where_the_holder_ended(server: FakeAsterisk) -> None:
    first, second = Sink(), Sink()
    data = b"".join(events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest"))
    with linked(server, first):
        server.send(data)
        until(lambda: "call.connected" in first.kinds())
    server.channels = [channel("lab22-1795330380.0", "PJSIP/trunk-00000000")]
    link = AmiLink(pbx(server.port), second, timings=QUICK)
    link.restore(first.live)
    link.start()
    try:
        until(lambda: second.facts)
        server.event("Hangup", Uniqueid="lab22-1795330380.0", Cause="16")
        until(lambda: "call.ended" in second.kinds())
    finally:
        link.stop()
    assert second.kinds() == ["call.uncertain", "call.ended"]
    assert [event.seq for event in second.heard] == [4, 5]
    assert second.heard[0].call == first.heard[0].call
    assert second.heard[-1].data["from"]["number"] == "+15553001001"


def test_events_during_the_snapshot_come_after_it_in_order(server: FakeAsterisk) -> None:
    data = b"".join(events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest"))

    def busy_moment(fields: Fields) -> bytes:
        server.send(data)
        return server._on_coreshowchannels(fields)

    server.answers["coreshowchannels"] = busy_moment
    sink = Sink()
    with linked(server, sink):
        until(lambda: "call.connected" in sink.kinds())
    assert sink.order == ["up", "resynced", "call.started", "call.offered", "call.connected"]


@pytest.mark.parametrize("question", ["coresettings", "coreshowchannels"])
def test_a_phone_that_rang_for_a_call_of_the_gap_rings_on_nobodys_screen(
    server: FakeAsterisk, question: str
) -> None:
    """It began and ended before the PBX listed its channels, and its caller ended with it."""
    data = after_login(trace(wire("asterisk-22", "caller_cancels")))
    born = [at for at in range(len(data)) if data.startswith(b"Event: Newchannel", at)]
    known, rest = data[: born[1]], data[born[1] :]

    def busy_moment(fields: Fields) -> bytes:
        server.send(rest)
        return bytes(getattr(server, f"_on_{question}")(fields))

    sink = Sink()
    with linked(server, sink) as link:
        server.send(known)
        until(link.live_calls)
        server.answers[question] = busy_moment
        server.cut()
        until(lambda: len(sink.facts) >= 2)
        server.event("Newchannel", **channel("1795000000.9", "PJSIP/102-00000009", CallerIDNum="102", Exten="103"))
        server.event("Hangup", Uniqueid="1795000000.9", Cause="16")
        until(lambda: sink.kinds().count("call.ended") == 2)
    assert sink.kinds() == ["call.started", "call.uncertain", "call.ended", "call.started", "call.ended"]


def test_what_the_answers_hold_is_not_heard_again(server: FakeAsterisk) -> None:
    """Signed in, and before the first question, as while the command user does: two phones' wires come and go."""
    recording = record(TRACES / "asterisk-22-lab" / "wire_optimised_attended" / "wire.jsonl.gz")
    asked, _, shot = recording.shots[5]
    snapshot = shot.snapshot()
    server.channels, server.bridges = [dict(one) for one in snapshot.channels], [dict(one) for one in snapshot.bridges]

    def settings(fields: Fields) -> bytes:
        for one in recording.heard:
            if one.at < asked:
                server.event(one.event.event, **{name: value for name, value in one.event.items() if name != "Event"})
        return server._on_coresettings(fields)

    server.answers["coresettings"] = settings
    sink = Sink()
    with linked(server, sink):
        server.event("Newchannel", **channel("1795000000.9", "PJSIP/102-00000009", CallerIDNum="102", Exten="103"))
        server.event("Hangup", Uniqueid="1795000000.9", Cause="16")
        until(lambda: "call.ended" in sink.kinds())
    rang = [event.data["party"]["device"] for event in sink.heard if event.type is CallEventType.OFFERED]
    assert len(rang) == len(set(rang))


def test_a_restricted_caller_is_not_shown_and_order_is_kept(server: FakeAsterisk) -> None:
    server.presentation = "prohib_not_screened"
    sink = Sink()
    with linked(server, sink):
        server.replay(wire("asterisk-22", "two_interleaved"), chunk=50)
        until(lambda: sink.kinds().count("call.ended") == 2)
    assert len(server.asked("Getvar")) == 2
    assert all(e.data["from"]["withheld"] for e in sink.heard if e.type is CallEventType.STARTED)
    assert "3001001" not in repr(sink.heard)
    assert sink.heard[-1].data["cause"] == "completed"


def test_without_an_answer_the_number_is_not_shown_and_nobody_waits_for_ever(server: FakeAsterisk) -> None:
    server.answers["getvar"] = lambda fields: None
    sink = Sink()
    with linked(server, sink, timings=replace(QUICK, presentation=0.2)):
        server.replay(wire("asterisk-22", "simple"))
        until(lambda: "call.ended" in sink.kinds())
    assert sink.heard[0].data["from"]["withheld"] is True


@pytest.mark.parametrize("said", ["Permission denied", "Invalid/unknown command"])
def test_a_user_who_may_not_ask_shows_numbers_and_says_so(
    server: FakeAsterisk, caplog: pytest.LogCaptureFixture, said: str
) -> None:
    server.answers["getvar"] = lambda fields: message({"Response": "Error", "Message": said}, fields)
    sink = Sink()
    with linked(server, sink):
        server.replay(wire("asterisk-22", "simple"))
        until(lambda: "call.ended" in sink.kinds())
    assert sink.heard[0].data["from"]["number"] == "+15553001001"
    assert "write = reporting" in caplog.text
