"""Small parts of the edge: who is believed, what is passed on, what a stream gets."""

from __future__ import annotations

import os
import socket as native
from pathlib import Path

import pytest

from bridge.api.address import client_address, limit_key
from bridge.api.fanout import QUEUE_ENTRIES, Fanout, Stream, chunk, entry_id, frame
from bridge.api.handover import dump_settings, read_settings
from bridge.api.server import listen
from bridge.api.static_files import StaticFiles
from bridge.api.upstream import passed_on
from bridge.live.screens import ScreenEvent
from bridge.settings import Pbx, RedisSection, Settings

TRUSTED = ("10.0.0.0/8", "127.0.0.1", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.5", "6.6.6.6", "203.0.113.5"),
        ("10.1.1.1", "6.6.6.6, 203.0.113.5", "203.0.113.5"),
        ("10.1.1.1", "203.0.113.5, 10.2.2.2", "203.0.113.5"),
        ("10.1.1.1", "10.9.9.9", "10.9.9.9"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "rubbish", "10.1.1.1"),
        ("10.1.1.1", "203.0.113.5:4711", "203.0.113.5"),
        ("10.1.1.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:10.1.1.1", "203.0.113.5", "203.0.113.5"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_an_address_is_believed_as_far_as_proxies_are_ours(peer: str, forwarded: str, expected: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == expected


def test_one_household_is_one_sender() -> None:
    assert limit_key("2001:db8::1") == limit_key("2001:db8::ffff")
    assert limit_key("203.0.113.5") == "203.0.113.5"


def test_headers_of_one_hop_and_ours_are_not_passed_on() -> None:
    sent = [
        ("Host", "x"),
        ("Connection", "keep-alive, X-Private"),
        ("X-Private", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "3"),
        ("X-Ringbridge-Grant", "1"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
        ("Cookie", "a=b"),
    ]
    assert passed_on(sent, "keep-alive, X-Private") == [("Host", "x"), ("Cookie", "a=b")]


def event(n: int, to: str = "agent:a", kind: str = "pop", data: str = "{}") -> ScreenEvent:
    return ScreenEvent(f"{n}-0", to, kind, "", data)


def test_a_stream_gets_its_topics_alone() -> None:
    fanout = Fanout()
    mine, other = Stream(["agent:a"], None, None, ""), Stream(["agent:b"], None, None, "")
    fanout.add(mine)
    fanout.add(other)
    fanout.feed([event(1)], fresh=True)
    assert mine.take() == chunk(frame("pop", "{}", "1-0"))
    assert other.take() == b""
    fanout.remove(mine)
    fanout.feed([event(2)], fresh=True)
    assert mine.take() == b""


def test_a_supervisor_of_one_client_hears_of_that_client_alone() -> None:
    fanout = Fanout()
    scoped, all_clients = Stream(["supervisors"], "s", ["a"], ""), Stream(["supervisors"], "t", None, "")
    fanout.add(scoped)
    fanout.add(all_clients)
    for n, data in enumerate(('{"client_id":"a"}', '{"client_id":"b"}', '{"kind":"agent"}', "no json"), 1):
        fanout.feed([event(n, "supervisors", "board", data)], fresh=True)
    assert scoped.take().count(b"event: board") == 1
    assert all_clients.take().count(b"event: board") == 4
    assert len(fanout.since(scoped, (0, 0))) == 1


def test_what_was_missed_is_replayed_in_order_and_history_is_not_news() -> None:
    fanout = Fanout()
    stream = Stream(["agent:a", "supervisors"], None, None, "")
    fanout.add(stream)
    fanout.feed([event(1), event(2, "supervisors"), event(3), event(4, "agent:b")], fresh=False)
    assert stream.take() == b""
    assert fanout.last == "4-0"
    missed = fanout.since(stream, entry_id("1-0"))
    assert [piece.split(b"\n")[1] for piece in missed] == [b"id: 2-0", b"id: 3-0"]
    assert fanout.since(stream, entry_id("rubbish"), entry_id("1-0")) == [chunk(frame("pop", "{}", "1-0"))]


def test_a_stream_that_is_too_slow_is_closed() -> None:
    fanout = Fanout()
    stream = Stream(["agent:a"], None, None, "")
    fanout.add(stream)
    fanout.feed([event(n + 1) for n in range(QUEUE_ENTRIES + 5)], fresh=True)
    assert stream.closed
    assert fanout.counts.dropped == 1
    assert stream.take() == b""


def test_a_full_socket_keeps_the_rest_in_order() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    stream = Stream(["agent:a"], None, None, "")
    stream.fd = write
    sent = b""
    for n in range(200):
        piece = chunk(frame("pop", "x" * 1000, f"{n}-0"))
        assert stream.put(piece)
        sent += piece
    os.set_blocking(read, False)
    got = b""
    while True:
        try:
            got += os.read(read, 65536)
        except BlockingIOError:
            break
    os.close(read)
    os.close(write)
    assert got + stream.take() == sent


def test_text_cannot_forge_an_event() -> None:
    forged = frame("pop", "a\r\nevent: command\ndata: x", "1-0").decode()
    assert [line for line in forged.splitlines() if line.startswith("event:")] == ["event: pop"]


def test_files_stay_in_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "static"
    folder.mkdir()
    (tmp_path / "secret.js").write_text("secret")
    (folder / "a.js").write_text("one")
    (folder / "link.js").symlink_to(tmp_path / "secret.js")
    files = StaticFiles(folder)
    first = files.find("a.js")
    assert first is not None and first.body == b"one"
    (folder / "a.js").write_text("three")
    again = files.find("a.js")
    assert again is not None and again.body == b"three" and again.etag != first.etag
    for name in ("../secret.js", "link.js", "", "/a.js", "a.js\0", ".hidden", "x/y/z.js"):
        assert files.find(name) is None


def test_settings_reach_the_child_whole() -> None:
    settings = Settings(
        redis=RedisSection(url="redis://:pass@x/1"), pbx=(Pbx(name="a", secret="s\n\u00fc", secret_file=Path("x")),)
    )
    line = dump_settings(settings)
    assert "\n" not in line
    assert read_settings(line) == settings


def test_no_answer_waits_for_the_browser_to_acknowledge_its_head() -> None:
    listening = listen("127.0.0.1:0")
    with listening, native.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(native.IPPROTO_TCP, native.TCP_NODELAY)
