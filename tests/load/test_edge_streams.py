"""Two thousand pages on one edge: what a fan-out to all of them costs, in time and memory."""

from __future__ import annotations

import json
import selectors
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doubles.edge import EdgeProcess, edge
from redis import Redis
from rig import until

from bridge.api.server import allow_many_files
from bridge.live import screens
from bridge.services import people
from bridge.services import sessions as sign_ins
from bridge.store.database import Sessions

__all__ = ["edge"]
pytestmark = pytest.mark.load

STREAMS = 2000
ROUNDS = 10


def memory_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def open_streams(port: int, token: str, count: int) -> list[socket.socket]:
    request = (
        f"GET /api/v1/board/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    found = []
    for begin in range(0, count, 50):
        batch = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(min(50, count - begin))]
        for sock in batch:
            sock.sendall(request)
        for sock in batch:
            assert b"200 OK" in sock.recv(4096)
            sock.setblocking(False)
        found += batch
    return found


def test_two_thousand_streams_hear_of_an_event_in_time(
    edge: EdgeProcess, sessions: Sessions, redis: Redis, record_property: pytest.RecordProperty
) -> None:
    now = datetime.now(UTC)
    with sessions.begin() as db:
        person = {"username": "eve", "password": "correct horse battery", "name": "Eve", "role": "supervisor"}
        agent = people.add(db, now, person)
        token = sign_ins.open_session(db, now, agent, kind="token").token
    allow_many_files()
    assert edge.process is not None
    before = memory_kib(edge.process.pid)
    streams = open_streams(edge.port, token, STREAMS)
    each = (memory_kib(edge.process.pid) - before) / STREAMS
    selector = selectors.DefaultSelector()
    for sock in streams:
        selector.register(sock, selectors.EVENT_READ)

    def drained() -> bool:
        ready = selector.select(0.2)
        for key, _ in ready:
            key.fileobj.recv(65536)  # type: ignore[union-attr]
        return not ready

    until(drained, 60, "greetings are read")
    delays: list[float] = []
    for n in range(ROUNDS):
        mark = json.dumps({"n": n}, separators=(",", ":")).encode()
        sent = time.monotonic()
        screens.publish(redis, screens.SUPERVISORS, "board", {"n": n})
        waiting = set(streams)
        while waiting and time.monotonic() - sent < 60:
            for key, _ in selector.select(1):
                if mark in key.fileobj.recv(65536):  # type: ignore[union-attr]
                    delays.append(time.monotonic() - sent)
                    waiting.discard(key.fileobj)  # type: ignore[arg-type]
        assert not waiting
    for sock in streams:
        sock.close()
    selector.close()
    delays.sort()
    p50, p99 = (delays[int(len(delays) * part)] * 1000 for part in (0.5, 0.99))
    record_property("fanout_p50_ms", round(p50, 1))
    record_property("fanout_p99_ms", round(p99, 1))
    record_property("kib_each", round(each, 1))
    print(f"\n{STREAMS} streams: p50 {p50:.0f} ms, p99 {p99:.0f} ms, {each:.1f} KiB each")
    assert each < 64
