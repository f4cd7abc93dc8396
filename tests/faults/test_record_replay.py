"""`ringbridge record` and `replay`: what a PBX says goes to a file and comes back, for both kinds of PBX."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from recorded import wire
from rig import until

from bridge.domain.errors import Forbidden, Invalid, Unavailable
from bridge.pbx.recording import Recorder
from bridge.pbx.replaying import Replay, read
from bridge.pbx.sim.ami import FakeAsterisk
from bridge.pbx.sim.esl import FakeFreeSWITCH
from bridge.pbx.trace import Row, line, rows
from bridge.settings import Pbx

KINDS = {"asterisk": ("asterisk-22", "hold_resume"), "freeswitch": ("freeswitch-1.11-json", "hold_resume")}
SECRET = "a-secret-of-some-length"
kinds = pytest.mark.parametrize("kind", KINDS)


def pbx(kind: str, port: int, **more: object) -> Pbx:
    return Pbx.model_validate({"name": "lab", "kind": kind, "port": port, "secret": SECRET, **more})


def source(kind: str) -> Path:
    return wire(*KINDS[kind])


def fake(kind: str) -> FakeAsterisk | FakeFreeSWITCH:
    return FakeFreeSWITCH({"": SECRET}) if kind == "freeswitch" else FakeAsterisk({"ringbridge": SECRET})


def told(path: Path) -> list[Mapping[str, str]]:
    """The events of a recording."""
    events: list[Mapping[str, str]] = []
    for _, pieces in read(path).steps:
        for _, event in pieces:
            if not events or events[-1] is not event:
                events.append(event)
    return events


def save(path: Path, kept: Sequence[Row]) -> Path:
    path.write_bytes(b"".join(line(row) for row in kept))
    return path


@contextmanager
def recording(settings: Pbx, kept: list[Row], **options: bool) -> Iterator[Recorder]:
    recorder = Recorder(settings, kept.append, everything=True, **options)
    thread = threading.Thread(target=recorder.run)
    thread.start()
    try:
        until(lambda: recorder.ready, what="the sign-in")
        yield recorder
    finally:
        recorder.stop()
        thread.join(60)
    assert not thread.is_alive()


@kinds
@pytest.mark.parametrize("chunk", [1, 1000, 65536])
def test_replayed_and_recorded_again_it_is_the_same(kind: str, chunk: int, tmp_path: Path) -> None:
    recorded = read(source(kind))
    kept: list[Row] = []
    replay = Replay(recorded)
    with replay.server as server, recording(pbx(kind, server.port), kept) as recorder:
        assert replay.play(speed=None, chunk=chunk)
        until(lambda: recorder.events >= recorded.events, seconds=30)
    again = save(tmp_path / "again.jsonl", kept)
    assert read(again).kind == kind
    assert told(again) == told(source(kind))
    assert len(told(again)) == recorded.events
    # It left in good manners, and both ends of that are there.
    sent = [row.data for row in kept if not row.received]
    assert sent[-1].startswith((b"exit", b"Action: Logoff")) and kept[-1].received


@kinds
def test_the_secret_is_nowhere_in_a_recording(kind: str, tmp_path: Path) -> None:
    kept: list[Row] = []
    with fake(kind) as server:
        with recording(pbx(kind, server.port), kept):
            until(lambda: server.listeners)
        assert SECRET.encode() in server.raw
    written = save(tmp_path / "r.jsonl", kept)
    data = b"".join(row.data for row in rows(written))
    assert SECRET.encode() not in data
    # As long as it was, so that the bytes stand where they stood.
    assert b"x" * len(SECRET) in data


@kinds
def test_times_go_on_as_they_were(kind: str) -> None:
    recorded = read(source(kind))
    kept: list[Row] = []
    replay = Replay(recorded)
    with replay.server as server, recording(pbx(kind, server.port), kept) as recorder:
        assert replay.play(speed=4.0)
        until(lambda: recorder.events >= recorded.events, seconds=30)
    heard = [row.t for row in kept if row.received and b"Event" in row.data]
    # No sooner than four times as fast: a machine may be slow, and never early.
    assert heard[-1] - heard[0] >= recorded.seconds / 4 * 0.8


def test_each_client_of_a_replay_hears_what_it_subscribed_to() -> None:
    replay = Replay(read(source("freeswitch")))
    with replay.server as server:
        sock = socket.create_connection(("127.0.0.1", server.port), 60)
        with sock, sock.makefile("rb") as heard:
            for command in (b"auth whatever", b"event json CHANNEL_CREATE CHANNEL_HOLD CUSTOM sofia::register"):
                sock.sendall(command + b"\n\n")
            assert replay.play(speed=None)
            sock.sendall(b"exit\n\n")
            data = heard.read()
    assert data.count(b'"Event-Name":"CHANNEL_CREATE"') == 2
    assert data.count(b'"Event-Name":"CHANNEL_HOLD"') == 1
    assert b"CHANNEL_ANSWER" not in data


@kinds
def test_numbers_are_masked_on_request(kind: str, tmp_path: Path) -> None:
    recorded = read(source(kind))
    kept: list[Row] = []
    replay = Replay(recorded)
    with (
        replay.server as server,
        recording(pbx(kind, server.port), kept, mask_numbers=True) as recorder,
    ):
        assert replay.play(speed=None, chunk=100)
        until(lambda: recorder.events >= recorded.events, seconds=30)
    data = b"".join(row.data for row in rows(save(tmp_path / "r.jsonl", kept)))
    before = b"".join(row.data for row in rows(source(kind)))
    assert b"15550001260" in before
    assert b"15550001260" not in data
    assert len(told(tmp_path / "r.jsonl")) == recorded.events


@kinds
def test_who_refuses_us_is_said_plainly(kind: str) -> None:
    kept: list[Row] = []
    with fake(kind) as server, pytest.raises(Forbidden, match="does not take"):
        Recorder(pbx(kind, server.port, secret="wrong"), kept.append).run()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match="cannot be reached"):
            Recorder(pbx(kind, nobody.getsockname()[1]), kept.append).run()
    other = fake("asterisk" if kind == "freeswitch" else "freeswitch")
    with other as server, pytest.raises(Unavailable, match="is not a"):
        Recorder(pbx(kind, server.port), kept.append).run()


def test_an_access_list_and_missing_permissions_are_said_plainly() -> None:
    with FakeFreeSWITCH({"": SECRET, "ringbridge@default": SECRET}) as server:
        server.rejects = True
        with pytest.raises(Forbidden, match="apply-inbound-acl"):
            Recorder(pbx("freeswitch", server.port), lambda row: None).run()
        server.rejects = False
        server.allowed_events["ringbridge@default"] = {"HEARTBEAT"}
        with pytest.raises(Forbidden, match="esl-allowed-events"):
            Recorder(pbx("freeswitch", server.port, username="ringbridge@default"), lambda row: None).run()


@kinds
def test_a_pbx_that_talks_rubbish_later_is_recorded_all_the_same(kind: str) -> None:
    kept: list[Row] = []
    with fake(kind) as server, recording(pbx(kind, server.port), kept):
        until(lambda: server.listeners)
        server.send(b"\x00rubbish\n\n\r\n\r\n" + b"y" * 300_000)
        until(lambda: sum(len(row.data) for row in kept) > 300_000)
    assert b"\x00rubbish" in b"".join(row.data for row in kept)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b"not json\n",
        b'{"t":0,"dir":"in","b64":"!"}\n',
        b'{"t":0,"dir":"in","b64":"SFRUUC8xLjE="}\n',
    ],
)
def test_a_file_that_is_no_recording(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(text)
    with pytest.raises(Invalid):
        read(path)


def test_a_damaged_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    whole = source("freeswitch").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Invalid, match="gzip"):
        read(path)


# --- the commands ---


class Command:
    """`ringbridge ...` in a folder with settings."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RINGBRIDGE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bridge.cli", *arguments],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> dict[str, object]:
        """Its next line of JSON."""
        assert self.process.stdout is not None
        found: dict[str, object] = json.loads(self.process.stdout.readline() or '{"none": true}')
        return found

    def end(self) -> tuple[int, str]:
        """Exit code and what it complained of."""
        _, complaint = self.process.communicate(timeout=60)
        return self.process.returncode, complaint


def settings_of(folder: Path, kind: str, port: int) -> None:
    (folder / "ringbridge.toml").write_text(
        f'[[pbx]]\nname = "lab"\nkind = "{kind}"\nport = {port}\nsecret = "{SECRET}"\n', encoding="utf-8"
    )


@kinds
def test_the_commands_together(kind: str, tmp_path: Path) -> None:
    replay = Command(tmp_path, "replay", str(source(kind)), "--fast", "--exit", "--chunk", "7", "--json")
    serving = replay.line()
    assert serving["kind"] == kind
    port = serving["port"]
    assert isinstance(port, int)
    settings_of(tmp_path, kind, port)
    record = Command(tmp_path, "record", "out.jsonl.gz", "--everything", "--json")
    assert record.line()["pbx"] == "lab"
    assert record.line()["events"] == serving["events"]
    assert record.end() == (0, "")
    assert replay.line() == {"played": 1}
    assert replay.end()[0] == 0
    assert told(tmp_path / "out.jsonl.gz") == told(source(kind))
    assert (tmp_path / "out.jsonl.gz").stat().st_mode & 0o077 == 0


@kinds
def test_a_signal_ends_a_recording_in_good_manners(kind: str, tmp_path: Path) -> None:
    with fake(kind) as server:
        settings_of(tmp_path, kind, server.port)
        record = Command(tmp_path, "record", "out.jsonl", "--json")
        assert record.line()["pbx"] == "lab"
        server.event("CHANNEL_CREATE" if kind == "freeswitch" else "Newchannel")
        until(lambda: b"CREATE" in (data := read_all(tmp_path / "out.jsonl")) or b"Newchannel" in data)
        record.process.send_signal(signal.SIGINT)
        assert record.end() == (0, "")
    assert read(tmp_path / "out.jsonl").events == 1


def read_all(path: Path) -> bytes:
    return b"".join(row.data for row in rows(path) if row.received)


def test_nothing_is_written_over_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with FakeFreeSWITCH({"": "another"}) as server:
        settings_of(tmp_path, "freeswitch", server.port)
        code, complaint = Command(tmp_path, "record", "new.jsonl").end()
        assert (code, "does not take us" in complaint) == (5, True)
        assert not (tmp_path / "new.jsonl").exists()
        (tmp_path / "old.jsonl").write_text("precious", encoding="utf-8")
        assert Command(tmp_path, "record", "old.jsonl").end()[0] == 6
        assert Command(tmp_path, "record", "old.jsonl", "--overwrite").end()[0] == 5
        assert (tmp_path / "old.jsonl").read_text(encoding="utf-8") == "precious"
    assert Command(tmp_path, "record", "new.jsonl").end()[0] == 4


def test_a_replay_ends_by_a_signal(tmp_path: Path) -> None:
    replay = Command(tmp_path, "replay", str(source("asterisk")), "--json")
    assert replay.line()["events"]
    replay.process.send_signal(signal.SIGTERM)
    assert replay.line() == {"played": 0}
    assert replay.end() == (0, "")
    code, complaint = Command(tmp_path, "replay", str(Path(__file__))).end()
    assert (code, "not a row of recorded traffic" in complaint) == (2, True)
