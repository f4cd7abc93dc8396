"""The AMI link when the PBX is slow, silent, gone, another service, or another user's."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from recorded import wire
from rig import until

from bridge.domain.calls import CallEvent, CallEventType, Directory, Expected
from bridge.domain.errors import Unavailable
from bridge.pbx.ami import commands as ami_commands
from bridge.pbx.ami import link as ami_link
from bridge.pbx.ami.link import AmiLink
from bridge.pbx.connecting import ConnectFailed, Pause, Timings
from bridge.pbx.open import open_link
from bridge.pbx.port import DialOrder, PbxFacts, Reason, Receipts
from bridge.pbx.sim.ami import FakeAsterisk, Fields, after_login, message, trace
from bridge.settings import Pbx
from bridge.uptime import uptime

ATTEMPT = "5f0c6a52-7d1b-4f4e-9e65-0f6b2f7f9a01"
QUICK = Timings(
    connect=20,
    login=20,
    ping_every=0.1,
    ping_deadline=20,
    action=20,
    resync=20,
    presentation=20,
    commands=20,
    retry_first=0.02,
    retry_most=0.1,
    refused_first=30,
    refused_most=60,
)
"""Tries again at once, and waits for an answer longer than a busy machine needs."""
HASTY = replace(QUICK, connect=2, login=1, ping_deadline=0.3, action=1, resync=1, presentation=0.5, commands=1)
"""For a peer that does not answer; against one that does, a busy machine may cut the link."""


class Sink:
    """Hears a link and keeps all."""

    def __init__(self) -> None:
        self.heard: list[CallEvent] = []
        self.live: dict[str, str] = {}
        self.ups: list[str] = []
        self.downs: list[str] = []
        self.facts: list[PbxFacts] = []
        self.order: list[str] = []
        self.threads: set[str] = set()
        self.raises = False

    def events(self, batch: Sequence[CallEvent], live: Mapping[str, str | None]) -> None:
        self.threads.add(threading.current_thread().name)
        self.heard.extend(batch)
        self.order.extend(event.type.value for event in batch)
        for call, state in live.items():
            if state is None:
                self.live.pop(call, None)
            else:
                self.live[call] = state
        if self.raises:
            raise ValueError("the listener has a fault")

    def link_up(self, detail: str) -> None:
        self.ups.append(detail)
        self.order.append("up")

    def link_detail(self, detail: str) -> None:
        self.ups.append(detail)

    def link_down(self, reason: str) -> None:
        self.downs.append(reason)
        self.order.append("down")

    def resynced(self, facts: PbxFacts) -> None:
        self.facts.append(facts)
        self.order.append("resynced")

    def kinds(self) -> list[str]:
        return [event.type.value for event in list(self.heard)]


def pbx(port: int, **more: object) -> Pbx:
    values = {
        "name": "lab",
        "port": port,
        "secret": "reader-secret",
        "command_secret": "dialler-secret",
        **more,
    }
    return Pbx.model_validate(values)


@contextmanager
def linked(
    server: FakeAsterisk, sink: Sink, timings: Timings = QUICK, observe: bool = False, wait: bool = True
) -> Iterator[AmiLink]:
    link = AmiLink(pbx(server.port), sink, observe=observe, timings=timings)
    link.start()
    try:
        if wait:
            until(lambda: sink.facts, what="the resync")
        yield link
    finally:
        link.stop()


def order(**more: object) -> DialOrder:
    values: dict[str, object] = {
        "attempt": ATTEMPT,
        "first": "agent",
        "agent_device": "PJSIP/101",
        "agent_extension": "101",
        "number": "+16465550101",
        "dial_string": "PJSIP/+16465550101@trunk",
        "caller_id": None,
        "agent_ring_seconds": 15,
        "customer_ring_seconds": 25,
        "expected": Expected(ATTEMPT, agent="anna", agent_device="PJSIP/101", number="+16465550101"),
        "until": uptime() + 20.0,
        **more,
    }
    return DialOrder(**values)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[FakeAsterisk]:
    with FakeAsterisk() as fake:
        yield fake


def test_a_call_is_heard_and_kept_and_forgotten(server: FakeAsterisk) -> None:
    sink = Sink()
    with linked(server, sink):
        server.replay(wire("asterisk-22", "simple"), chunk=7)
        until(lambda: "call.ended" in sink.kinds())
    assert sink.kinds() == ["call.started", "call.offered", "call.connected", "call.ended"]
    assert sink.live == {}
    assert sink.threads == {"ami-lab"}
    assert sink.order[:2] == ["up", "resynced"]
    assert sink.facts[0].version == "22.0.0-sim"
    assert sink.facts[0].started_at is not None


def test_a_cut_link_comes_back_and_sends_nothing_twice(server: FakeAsterisk) -> None:
    asked = threading.Event()

    def no_answer(fields: Fields) -> None:
        asked.set()

    server.answers["originate"] = no_answer
    sink = Sink()
    with linked(server, sink) as link:
        outcome = []
        dialler = threading.Thread(target=lambda: outcome.append(link.dial(order(until=uptime() + 20))))
        dialler.start()
        assert asked.wait(20)
        server.cut()
        dialler.join(20)
        assert outcome[0].reason is Reason.TIMEOUT
        for round_ in (2, 3):
            until(lambda n=round_: len(sink.facts) >= n)  # type: ignore[misc]
            until(lambda: link.receipts(ATTEMPT) == Receipts(False, False), what="commands again")
            if round_ == 2:
                server.cut()
    assert len(server.asked("Originate")) == 1
    assert bytes(server.raw).count(b"Action: Originate") == 1


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


def test_a_wrong_secret_is_said_loudly_and_not_tried_at_a_fixed_pace(
    server: FakeAsterisk, caplog: pytest.LogCaptureFixture
) -> None:
    server.users["ringbridge"] = "another"
    sink = Sink()
    with caplog.at_level(logging.INFO), linked(server, sink, wait=False):
        until(lambda: sink.downs)
        until(lambda: server.refused == 1)
        assert sink.downs[0].startswith("login refused")
        # The command user is fine and stays; the event user waits long before it tries again.
        until(lambda: server.logins >= 1)
        assert server.refused == 1
    assert "reader-secret" not in caplog.text


def test_pauses_double_with_jitter_and_are_long_after_a_refusal() -> None:
    pause = Pause(Timings(retry_first=1, retry_most=8, refused_first=30, refused_most=100))
    tries = [pause.next() for _ in range(6)]
    for wait, most in zip(tries, [1, 2, 4, 8, 8, 8], strict=True):
        assert most / 2 <= wait <= most
    assert [pause.next(refused=True) >= least for least in (15, 30, 50)] == [True] * 3
    pause.reset()
    assert pause.next() <= 1


def test_a_refused_command_user_leaves_the_events_alive(server: FakeAsterisk) -> None:
    server.users["ringbridge-dial"] = "another"
    sink = Sink()
    with linked(server, sink) as link:
        assert "login refused" in sink.ups[0]
        outcome = link.dial(order())
        assert outcome.reason is Reason.LINK_DOWN
        assert "login refused" in outcome.detail
        assert link.receipts(ATTEMPT) == Receipts(None, None)


def test_a_dead_peer_is_noticed(server: FakeAsterisk) -> None:
    sink = Sink()
    with linked(server, sink, timings=HASTY):
        server.silent = True
        until(lambda: any("ping" in reason for reason in sink.downs))
        server.silent = False
        until(lambda: len(sink.facts) >= 2)


def test_another_service_on_the_port(server: FakeAsterisk) -> None:
    server.banner = b"SSH-2.0-OpenSSH_9.2\r\n"
    sink = Sink()
    with linked(server, sink, wait=False):
        until(lambda: any("not an Asterisk manager" in reason for reason in sink.downs))


def test_a_port_that_says_nothing(server: FakeAsterisk) -> None:
    server.silent = True
    sink = Sink()
    with linked(server, sink, timings=HASTY, wait=False):
        until(lambda: any("does not answer the login" in reason for reason in sink.downs))


def test_nothing_listens_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sink = Sink()
        link = AmiLink(pbx(taken.getsockname()[1]), sink, timings=QUICK)
        link.start()
        until(lambda: any("cannot be reached" in reason for reason in sink.downs))
        link.stop()


def test_rubbish_in_the_stream_ends_the_connection_and_the_link_recovers(server: FakeAsterisk) -> None:
    sink = Sink()
    with linked(server, sink):
        server.send(b"Event: A\r\nX: " + b"\xff" * 300_000)
        until(lambda: any("not understood" in reason for reason in sink.downs))
        until(lambda: len(sink.facts) >= 2)


def test_events_that_make_no_sense_are_counted_and_the_next_are_heard(
    server: FakeAsterisk, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        server.event("Newchannel", Channel="PJSIP/101-00000001", CallerIDNum="16465550101")
        server.event("Newchannel", Uniqueid="x.1", Channel="PJSIP/1-1", ChannelState="16465550101x")
        server.replay(wire("asterisk-22", "simple"))
        until(lambda: "call.ended" in sink.kinds())
        assert link.tracker.faults == 2
    assert "5550101" not in caplog.text


def test_a_listener_with_a_fault_does_not_end_the_link(server: FakeAsterisk) -> None:
    sink = Sink()
    sink.raises = True
    with linked(server, sink) as link:
        server.replay(wire("asterisk-22", "simple"))
        until(lambda: "call.ended" in sink.kinds())
        assert link.sink_faults > 0
    assert sink.downs == []


def test_stopping_in_an_outage_is_final(server: FakeAsterisk) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        assert link.is_running()
        server.stop()
        until(lambda: sink.downs)
    # Without its thread there is nothing that could connect again.
    assert not any(thread.name == "ami-lab" for thread in threading.enumerate())


def test_stopping_outlasts_waits_that_swallow_a_cancellation(
    server: FakeAsterisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    swallowed = []

    async def connect(*args: object, **more: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            swallowed.append(args)
            if len(swallowed) <= 4:
                raise ConnectFailed("a moment before the cancellation") from None
            raise

    for module in (ami_link, ami_commands):
        monkeypatch.setattr(module, "connect", connect)
    with linked(server, Sink(), wait=False) as link:
        pass
    assert len(swallowed) > 2
    assert not link.is_running()


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


def test_a_user_who_may_not_list_channels_is_told_what_to_change(server: FakeAsterisk) -> None:
    server.answers["coreshowchannels"] = lambda fields: message(
        {"Response": "Error", "Message": "Permission denied"}, fields
    )
    sink = Sink()
    with linked(server, sink, wait=False):
        until(lambda: any("write = reporting" in reason for reason in sink.downs))


def test_receipts(server: FakeAsterisk) -> None:
    server.database[f"ringbridge/{ATTEMPT}-agent"] = "1795330380"
    sink = Sink()
    with linked(server, sink) as link:
        assert link.receipts(ATTEMPT) == Receipts(True, False)


def test_before_start_and_after_stop_nothing_blocks(server: FakeAsterisk) -> None:
    link = AmiLink(pbx(server.port), Sink(), timings=QUICK)
    calls: list[Callable[[], object]] = [
        lambda: link.dial(order()).reason,
        lambda: link.hangup("x", None).reason,
        lambda: link.receipts(ATTEMPT),
    ]
    expected = [Reason.LINK_DOWN, Reason.LINK_DOWN, Receipts(None, None)]
    assert [call() for call in calls] == expected
    assert link.live_attempts() == frozenset()
    link.start()
    link.stop()
    assert [call() for call in calls] == expected
    with pytest.raises(Unavailable):
        link.live_attempts()


def test_hangup_finds_the_agents_leg(server: FakeAsterisk) -> None:
    server.answers["hangup"] = lambda fields: message(
        {"Response": "Success", "Message": "Channel Hungup"}, fields
    )
    sink = Sink()
    with linked(server, sink) as link:
        link.set_directory(Directory(agents={"PJSIP/101": "anna"}))
        data = b"".join(_events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest"))
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


def _events_until(path: Path, stop: bytes) -> list[bytes]:
    data = after_login(trace(path))
    return [data[: data.index(stop)]]


def channel(uid: str, name: str, **more: str) -> Fields:
    return {
        "Channel": name,
        "Uniqueid": uid,
        "Linkedid": more.pop("link", uid),
        "ChannelState": "6",
        "Duration": "00:00:10",
        **more,
    }


def test_after_a_gap_the_picture_is_the_pbxs_and_the_gap_is_said(server: FakeAsterisk) -> None:
    sink = Sink()
    with linked(server, sink):
        server.send(b"".join(_events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest")))
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
        data = b"".join(_events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest"))
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


def test_a_standby_goes_on_where_the_holder_ended(server: FakeAsterisk) -> None:
    first, second = Sink(), Sink()
    data = b"".join(_events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest"))
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
    data = b"".join(_events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest"))

    def busy_moment(fields: Fields) -> bytes:
        server.send(data)
        return server._on_coreshowchannels(fields)

    server.answers["coreshowchannels"] = busy_moment
    sink = Sink()
    with linked(server, sink):
        until(lambda: "call.connected" in sink.kinds())
    assert sink.order == ["up", "resynced", "call.started", "call.offered", "call.connected"]


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


def test_nothing_of_a_call_is_in_the_log(server: FakeAsterisk, caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    with caplog.at_level(logging.DEBUG), linked(server, sink) as link:
        link.dial(order())
        server.replay(wire("asterisk-22", "queue_ringall"))
        until(lambda: "call.ended" in sink.kinds())
        server.cut()
        until(lambda: len(sink.facts) >= 2)
    for secret in ("3001001", "6465550101", "reader-secret", "dialler-secret"):
        assert secret not in caplog.text


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


def test_a_user_who_may_not_ask_shows_numbers_and_says_so(
    server: FakeAsterisk, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers["getvar"] = lambda fields: message(
        {"Response": "Error", "Message": "Permission denied"}, fields
    )
    sink = Sink()
    with linked(server, sink):
        server.replay(wire("asterisk-22", "simple"))
        until(lambda: "call.ended" in sink.kinds())
    assert sink.heard[0].data["from"]["number"] == "+15553001001"
    assert "write = reporting" in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that a PBX on loopback signed itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pbx"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*request, *names, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return cert, key


def test_over_tls_with_the_pbxs_own_authority_only(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with FakeAsterisk(tls=context) as fake:
        trusting = AmiLink(pbx(fake.port, tls=True, tls_ca=cert), (sink := Sink()), timings=QUICK)
        trusting.start()
        until(lambda: sink.facts)
        trusting.stop()
        logins = fake.logins
        doubting = AmiLink(pbx(fake.port, tls=True), (other := Sink()), timings=QUICK)
        doubting.start()
        until(lambda: any("not trusted" in reason for reason in other.downs))
        doubting.stop()
        assert fake.logins == logins
        missing = AmiLink(pbx(fake.port, tls=True, tls_ca=cert / "no"), (third := Sink()), timings=QUICK)
        missing.start()
        until(lambda: any("tls_ca cannot be read" in reason for reason in third.downs))
        missing.stop()


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


def test_a_link_that_died_says_so(
    server: FakeAsterisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    link = AmiLink(pbx(server.port), Sink(), timings=QUICK)
    assert not link.is_running()

    class Fault(BaseException):
        """What no `except Exception` catches."""

    async def broken(_session: object) -> None:
        raise Fault

    monkeypatch.setattr(link, "_come_up", broken)
    link.start()
    until(lambda: not link.is_running(), what="the link to be dead")
    assert "died of a fault (Fault)" in caplog.text
    link.stop()


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
