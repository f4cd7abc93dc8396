"""The ESL link when the PBX is slow, silent, gone, another service, or another user's."""

from __future__ import annotations

import gc
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gevent
import pytest
from doubles.esl_links import ATTEMPT, DIALLER, HASTY, QUICK, READER, USERS, linked, order, pbx
from doubles.sink import Sink
from rig import until

from bridge.domain.errors import SettingsError, Unavailable
from bridge.pbx.connecting import ConnectFailed
from bridge.pbx.esl import session as esl_session
from bridge.pbx.esl.link import EslLink, read_status
from bridge.pbx.open import open_link
from bridge.pbx.port import Reason, Receipts
from bridge.pbx.sim.esl import FakeFreeSWITCH

TRACES = Path(__file__).parent.parent / "traces" / "freeswitch-1.11-json"
SIMPLE, RINGALL = (TRACES / scenario / "wire.jsonl.gz" for scenario in ("simple", "queue_ringall"))


@pytest.fixture
def server() -> Iterator[FakeFreeSWITCH]:
    with FakeFreeSWITCH(users=USERS) as fake:
        yield fake


def test_two_users_each_for_its_own(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        assert link.receipts(ATTEMPT) == Receipts(False, False)
    heard = [command for user, command, _ in server.commands if user == READER]
    assert any(command.startswith("event json CHANNEL_CREATE ") for command in heard)
    assert any("CUSTOM callcenter::info" in command for command in heard)
    assert not any(command.startswith("bgapi") for command in heard)
    sent = [command for user, command, _ in server.commands if user == DIALLER]
    assert "event json BACKGROUND_JOB" in sent
    assert sink.ups == ["connected"]
    assert sink.facts[0].version == "1.11.3-sim"
    assert sink.facts[0].started_at is not None


def test_one_user_without_a_name_does_both_with_the_sockets_password(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    settings = pbx(server.port, username="", secret="socket-secret")
    settings = type(settings).model_validate(
        settings.model_dump(exclude={"command_username", "command_secret", "command_secret_file"})
        | {"secret": "socket-secret"}
    )
    link = EslLink(settings, sink, timings=QUICK)
    link.start()
    try:
        until(lambda: sink.facts)
        assert link.receipts(ATTEMPT) == Receipts(False, False)
    finally:
        link.stop()
    assert b"auth socket-secret\n\n" in server.raw
    assert b"userauth" not in server.raw


def test_the_default_password_is_refused_unless_allowed(server: FakeFreeSWITCH) -> None:
    server.users[""] = "ClueCon"
    plain = {"username": "", "command_username": "", "command_secret": None, "secret": "ClueCon"}
    with pytest.raises(SettingsError, match="allow_default_password = true"):
        open_link(pbx(server.port, **plain), Sink())
    assert server.accepted == 0
    sink = Sink()
    link = open_link(pbx(server.port, **plain, allow_default_password=True), sink)
    link.start()
    until(lambda: sink.facts)
    link.stop()


def test_a_cut_link_comes_back_and_sends_nothing_twice(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        server.silent = True
        outcome = []
        dialler = threading.Thread(target=lambda: outcome.append(link.dial(order())))
        dialler.start()
        until(lambda: b"bgapi expand originate" in server.raw)
        server.silent = False
        server.cut()
        dialler.join(20)
        assert outcome[0].reason is Reason.TIMEOUT
        for round_ in (2, 3):
            until(lambda n=round_: len(sink.facts) >= n)  # type: ignore[misc]
            until(lambda: link.receipts(ATTEMPT) == Receipts(False, False), what="commands again")
            if round_ == 2:
                server.cut()
    assert bytes(server.raw).count(b"expand originate") == 1


def test_a_wrong_secret_is_said_loudly_and_not_tried_at_a_fixed_pace(
    server: FakeFreeSWITCH, caplog: pytest.LogCaptureFixture
) -> None:
    server.users[READER] = "another"
    sink = Sink()
    with caplog.at_level(logging.INFO), linked(server, sink, wait=False):
        until(lambda: sink.downs)
        until(lambda: server.refused == 1)
        assert sink.downs[0].startswith("login refused")
        # The command user is fine and stays; the event user waits long before it tries again.
        until(lambda: server.logins >= 1)
        assert server.refused == 1
    assert "reader-secret" not in caplog.text


def test_an_address_that_is_not_let_in_is_told_where_to_add_it(server: FakeFreeSWITCH) -> None:
    server.rejects = True
    sink = Sink()
    with linked(server, sink, wait=False):
        until(lambda: sink.downs)
        assert "apply-inbound-acl" in sink.downs[0]
        # Both users have asked once, and wait for half a minute at least.
        until(lambda: server.accepted == 2)
        assert len(sink.downs) == 1


def test_a_user_who_may_not_hear_is_told_which_events_to_add(server: FakeFreeSWITCH) -> None:
    server.allowed_events[READER] = {"CHANNEL_CREATE", "CHANNEL_ANSWER"}
    sink = Sink()
    with linked(server, sink, wait=False):
        until(lambda: sink.downs)
        assert "esl-allowed-events" in sink.downs[0]
        assert "CHANNEL_BRIDGE" in sink.downs[0] and "callcenter::info" in sink.downs[0]
        assert "CHANNEL_CREATE" not in sink.downs[0]


def test_a_user_who_may_not_list_channels_is_told_what_to_change(server: FakeFreeSWITCH) -> None:
    server.allowed_api[READER] = {"status", "strepoch"}
    sink = Sink()
    with linked(server, sink, wait=False):
        until(lambda: sink.downs)
        assert "show" in sink.downs[0] and "esl-allowed-api" in sink.downs[0]


def test_a_refused_command_user_leaves_the_events_alive(server: FakeFreeSWITCH) -> None:
    server.users[DIALLER] = "another"
    sink = Sink()
    with linked(server, sink) as link:
        assert "login refused" in sink.ups[0]
        outcome = link.dial(order())
        assert outcome.reason is Reason.LINK_DOWN
        assert "login refused" in outcome.detail
        assert link.receipts(ATTEMPT) == Receipts(None, None)


def test_what_is_told_of_the_link_follows_the_command_user(server: FakeFreeSWITCH) -> None:
    secret = server.users.pop(DIALLER)
    sink = Sink()
    quick = replace(QUICK, refused_first=0.05, refused_most=0.05)
    with linked(server, sink, timings=quick):
        until(lambda: sink.ups and sink.ups[-1].startswith("connected for events only"))
        server.users[DIALLER] = secret
        until(lambda: sink.ups[-1] == "connected", what="the command user's sign-in to be told")
        server.users.pop(DIALLER)
        server.cut()
        until(lambda: "login refused" in sink.ups[-1], what="its refusal to be told")


def test_a_dead_peer_is_noticed(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink, timings=HASTY):
        server.silent = True
        until(lambda: any("ping" in reason for reason in sink.downs))
        server.silent = False
        until(lambda: len(sink.facts) >= 2)


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.2\r\n", b"Asterisk Call Manager/9.0.0\r\n"])
def test_another_service_on_the_port(server: FakeFreeSWITCH, banner: bytes) -> None:
    server.greeting = banner
    sink = Sink()
    with linked(server, sink, wait=False):
        until(lambda: any("not a FreeSWITCH event socket" in reason for reason in sink.downs))


def test_a_port_that_says_nothing(server: FakeFreeSWITCH) -> None:
    server.greeting = b""
    sink = Sink()
    with linked(server, sink, timings=HASTY, wait=False):
        until(lambda: any("does not answer the login" in reason for reason in sink.downs))


def test_a_peer_that_asks_who_we_are_and_never_answers(server: FakeFreeSWITCH) -> None:
    server.silent = True
    sink = Sink()
    with linked(server, sink, timings=HASTY, wait=False):
        until(lambda: any("no answer to the login" in reason for reason in sink.downs))


def test_nothing_listens_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sink = Sink()
        link = EslLink(pbx(taken.getsockname()[1]), sink, timings=QUICK)
        link.start()
        until(lambda: any("cannot be reached" in reason for reason in sink.downs))
        link.stop()


def test_a_link_over_ipv6() -> None:
    try:
        fake = FakeFreeSWITCH(users=USERS, host="::1")
        fake.start()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    sink = Sink()
    link = EslLink(pbx(fake.port, host="::1"), sink, timings=QUICK)
    link.start()
    until(lambda: sink.facts)
    link.stop()
    fake.stop()


def test_a_listener_with_a_fault_does_not_end_the_link(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    sink.raises = True
    with linked(server, sink) as link:
        link._say(lambda: sink.events([], {}))
        assert link.sink_faults == 1
    assert sink.downs == []


def test_stopping_in_an_outage_is_final(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        assert link.is_running()
        server.stop()
        until(lambda: sink.downs)
    # Without its thread there is nothing that could connect again.
    assert not any(thread.name == "esl-lab" for thread in threading.enumerate())


def test_stopping_outlasts_waits_that_swallow_a_kill(
    server: FakeFreeSWITCH, monkeypatch: pytest.MonkeyPatch
) -> None:
    swallowed = []

    def connect(*args: object, **more: object) -> None:
        try:
            gevent.sleep(60)
        except gevent.GreenletExit:
            swallowed.append(args)
            if len(swallowed) <= 4:
                raise ConnectFailed("a moment before the kill") from None
            raise

    monkeypatch.setattr(esl_session.Session, "open", connect)
    with linked(server, Sink(), wait=False) as link:
        pass
    assert len(swallowed) >= 2
    assert not link.is_running()


def test_observe_mode_uses_one_user_only(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    link = open_link(pbx(server.port, command_secret=None), sink, observe=True)
    link.start()
    try:
        until(lambda: sink.facts)
        assert link.dial(order()).reason is Reason.REFUSED
        assert link.hangup("x", None).reason is Reason.REFUSED
        assert link.receipts(ATTEMPT) == Receipts(None, None)
    finally:
        link.stop()
    assert {user for user, _, _ in server.commands} == {READER}


def test_before_start_and_after_stop_nothing_blocks(server: FakeFreeSWITCH) -> None:
    link = EslLink(pbx(server.port), Sink(), timings=QUICK)
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


def test_a_link_that_died_says_so(
    server: FakeFreeSWITCH, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    link = EslLink(pbx(server.port), Sink(), timings=QUICK)
    assert not link.is_running()

    class Fault(BaseException):
        """What no `except Exception` catches."""

    def broken(_session: object) -> None:
        raise Fault

    monkeypatch.setattr(link, "_come_up", broken)
    link.start()
    until(lambda: not link.is_running(), what="the link to be dead")
    assert "died of a fault (Fault)" in caplog.text
    link.stop()


def test_a_pbx_at_its_start_says_so() -> None:
    text = "UP 0 years, 1 day, 2 hours, 3 minutes, 4 seconds, 500 milliseconds, 1 microsecond\n"
    version, started = read_status(text + "FreeSWITCH (Version 1.10.12 -release 64bit) is ready\n", 1e9)
    assert version == "1.10.12"
    assert started is not None and started.timestamp() == 1e9 - 93784
    _, started = read_status(text + "FreeSWITCH (Version 1.10.12 -release 64bit) is not ready\n", 1e9)
    assert started is not None and started.timestamp() == 1e9
    assert read_status("-ERR status Command not found!\n", 1e9) == ("", None)


@pytest.mark.parametrize("chunk", [1 << 16, 61])
def test_a_call_is_heard_and_kept_and_forgotten(server: FakeFreeSWITCH, chunk: int) -> None:
    sink = Sink()
    with linked(server, sink):
        server.replay(SIMPLE, chunk=chunk)
        until(lambda: "call.ended" in sink.kinds())
    assert sink.kinds() == ["call.started", "call.offered", "call.connected", "call.ended"]
    assert sink.live == {}
    assert sink.threads == {"esl-lab"}
    assert sink.order[:2] == ["up", "resynced"]


def test_events_during_the_snapshot_come_after_it_in_order(server: FakeFreeSWITCH) -> None:
    once = threading.Event()

    def busy_moment(arguments: str) -> str:
        if not once.is_set():
            once.set()
            server.replay(SIMPLE)
        return server._api_show(arguments)

    server.answers["show"] = busy_moment
    sink = Sink()
    with linked(server, sink):
        until(lambda: "call.ended" in sink.kinds())
    assert sink.order == ["up", "resynced", *(f"call.{kind}" for kind in ("started", "offered", "connected", "ended"))]


def test_nothing_of_a_call_is_in_the_log(server: FakeFreeSWITCH, caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    with caplog.at_level(logging.DEBUG), linked(server, sink) as link:
        link.dial(order())
        server.replay(RINGALL)
        until(lambda: "call.ended" in sink.kinds())
        server.cut()
        until(lambda: len(sink.facts) >= 2)
    for secret in ("5553001", "6465550101", "reader-secret", "dialler-secret"):
        assert secret not in caplog.text


@contextmanager
def tunnel(to: int, folder: Path) -> Iterator[tuple[int, Path]]:
    """A TLS tunnel in front of that port, and the certificate that it made for itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    cert, key = folder / "cert.pem", folder / "key.pem"
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pbx"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*request, *names, "-out", cert, "-keyout", key], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    threads: list[threading.Thread] = []

    def begin(work: Callable[..., None], *args: object) -> None:
        threads.append(threading.Thread(target=work, args=args))
        threads[-1].start()

    def accept() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                near = context.wrap_socket(plain, server_side=True)
            except OSError:
                plain.close()
                continue
            begin(pump, near, socket.create_connection(("127.0.0.1", to)))

    def pump(near: ssl.SSLSocket, far: socket.socket) -> None:
        # One thread for both directions, since a TLS socket is not for two.
        near.settimeout(0.02)
        far.settimeout(0.02)
        with near, far:
            while True:
                for source, sink in ((near, far), (far, near)):
                    try:
                        data = source.recv(65536)
                    except TimeoutError:
                        continue
                    except OSError:
                        return
                    if not data:
                        return
                    sink.settimeout(20)
                    try:
                        sink.sendall(data)
                    except OSError:
                        # Gone meanwhile, as a link goes that is stopped.
                        return
                    sink.settimeout(0.02)

    listening = socket.create_server(("127.0.0.1", 0))
    begin(accept)
    try:
        yield listening.getsockname()[1], cert
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for thread in threads:
            thread.join(20)


def test_through_a_tls_tunnel_with_its_own_authority_only(server: FakeFreeSWITCH, tmp_path: Path) -> None:
    with tunnel(server.port, tmp_path) as (port, cert):
        trusting = EslLink(pbx(port, tls=True, tls_ca=cert), (sink := Sink()), timings=QUICK)
        trusting.start()
        until(lambda: sink.facts)
        assert trusting.receipts(ATTEMPT) == Receipts(False, False)
        trusting.stop()
        logins = server.logins
        doubting = EslLink(pbx(port, tls=True), (other := Sink()), timings=QUICK)
        doubting.start()
        until(lambda: any("not trusted" in reason for reason in other.downs))
        doubting.stop()
        assert server.logins == logins
        missing = EslLink(pbx(port, tls=True, tls_ca=cert / "no"), (third := Sink()), timings=QUICK)
        missing.start()
        until(lambda: any("tls_ca cannot be read" in reason for reason in third.downs))
        missing.stop()


def test_a_stop_in_the_middle_of_a_tls_handshake_leaves_no_socket(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = EslLink(pbx(silent.getsockname()[1], tls=True), Sink(), timings=QUICK)
        link.start()
        silent.settimeout(20)
        near, _ = silent.accept()
        with near:
            near.settimeout(20)
            # The first bytes of a handshake that nobody answers.
            assert near.recv(5)
            link.stop()
            assert not link.is_running()
    # A socket that was left open would say so now, and a warning is an error.
    gc.collect()
