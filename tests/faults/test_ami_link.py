"""The AMI link when the PBX is slow, silent, gone, another service, or another user's."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles.ami_links import ATTEMPT, HASTY, QUICK, linked, order, pbx
from doubles.sink import Sink
from recorded import wire
from rig import until

from bridge.domain.errors import Unavailable
from bridge.pbx.ami import commands as ami_commands
from bridge.pbx.ami import link as ami_link
from bridge.pbx.ami.link import AmiLink
from bridge.pbx.connecting import ConnectFailed, Pause, Timings
from bridge.pbx.port import Reason, Receipts
from bridge.pbx.sim.ami import FakeAsterisk, Fields, message
from bridge.uptime import uptime


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


def test_a_user_who_may_not_list_channels_is_told_what_to_change(server: FakeAsterisk) -> None:
    server.answers["coreshowchannels"] = lambda fields: message(
        {"Response": "Error", "Message": "Permission denied"}, fields
    )
    sink = Sink()
    with linked(server, sink, wait=False):
        until(lambda: any("write = reporting" in reason for reason in sink.downs))


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
