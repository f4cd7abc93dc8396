"""The edge as it runs: streams, files, REST behind it, and what it does when a part is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doubles.edge import EdgeProcess, edge, write_config
from redis import Redis
from rig import RedisServer, free_port, make_settings, until

from bridge.live import keys, screens
from bridge.services import people
from bridge.services import sessions as sign_ins
from bridge.settings import Settings
from bridge.store.database import Sessions

__all__ = ["edge"]
pytestmark = pytest.mark.faults


def person(database: Sessions, username: str, role: str = "agent") -> tuple[str, str]:
    """An agent's id and a bearer token."""
    now = datetime.now(UTC)
    with database.begin() as db:
        agent = people.add(
            db,
            now,
            {"username": username, "password": "correct horse battery", "name": username, "role": role},
        )
        return agent.id, sign_ins.open_session(db, now, agent, kind="token").token


def test_a_stream_says_hello_and_carries_what_is_for_this_agent_alone(
    edge: EdgeProcess, sessions: Sessions, redis: Redis
) -> None:
    ada, token = person(sessions, "ada")
    bob, _ = person(sessions, "bob")
    redis.hset(keys.pops(ada), "call-1:ada", json.dumps({"id": "call-1:ada", "at": "2026-01-01T00:00:00Z"}))
    stream = edge.open("/api/v1/me/events", token)
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert "content-security-policy" in stream.headers
    assert stream.next()["event"] == "state"
    assert json.loads(stream.next()["data"])["id"] == "call-1:ada"
    screens.publish(redis, screens.agent_topic(bob), "pop", {"id": "not yours"})
    entry = screens.publish(redis, screens.agent_topic(ada), "pop", {"id": "yours"}, "yours")
    heard = stream.next()
    assert heard == {"id": entry, "event": "pop", "data": '{"id":"yours"}'}
    assert stream.retry


def test_a_browser_that_comes_back_gets_what_it_missed(
    edge: EdgeProcess, sessions: Sessions, redis: Redis
) -> None:
    ada, token = person(sessions, "ada")
    topic = screens.agent_topic(ada)
    first = edge.open("/api/v1/me/events", token)
    assert first.next()["event"] == "state"
    seen = screens.publish(redis, topic, "pop", {"n": 1})
    assert first.next()["id"] == seen
    first.close()
    for n in (2, 3):
        screens.publish(redis, topic, "pop", {"n": n})
    for path, headers in (
        ("/api/v1/me/events", {"Last_Event_ID": seen}),
        (f"/api/v1/me/events?last_event_id={seen}", {}),
    ):
        again = edge.open(path, token, **headers)
        events = [again.next() for _ in range(3)]
        told = [json.loads(event["data"])["n"] for event in events if event["event"] == "pop"]
        assert told == [2, 3]
        assert sorted(event["event"] for event in events) == ["pop", "pop", "state"]


def test_who_is_not_signed_in_gets_a_problem_and_no_stream(edge: EdgeProcess) -> None:
    stream = edge.open("/api/v1/me/events")
    assert stream.status == 401
    assert stream.headers["content-type"] == "application/problem+json"
    assert json.loads(stream.body)["code"] == "not_signed_in"


def test_nobody_outside_can_speak_as_the_edge(edge: EdgeProcess, sessions: Sessions) -> None:
    _, token = person(sessions, "ada")
    headers = {"Authorization": f"Bearer {token}", "X-Ringbridge-Grant": "1", "X_Ringbridge_Grant": "1"}
    assert edge.ask("HEAD", "/api/v1/me/events", headers=headers).status == 503
    assert edge.ask("POST", "/edge/sessions", {"sessions": []}, headers).status == 404
    forged = {"X-Ringbridge-Local": "1", "X-Forwarded-For": "203.0.113.7"}
    assert edge.ask("GET", "/metrics", headers=forged).status == 401
    assert edge.ask("GET", "/metrics").status == 200
    assert b"ringbridge_edge_streams" in edge.ask("GET", "/metrics").body


def test_a_session_that_is_over_closes_its_streams(
    edge: EdgeProcess, sessions: Sessions, redis: Redis
) -> None:
    ada, token = person(sessions, "ada")
    _, other = person(sessions, "bob")
    mine, theirs = edge.open("/api/v1/me/events", token), edge.open("/api/v1/me/events", other)
    assert mine.next() and theirs.next()
    with sessions.begin() as db:
        sign_ins.close_all(db, ada)
    assert mine.ended.wait(60)
    assert not theirs.ended.is_set()


def test_signing_out_closes_the_streams_at_once(edge: EdgeProcess, sessions: Sessions) -> None:
    _, token = person(sessions, "ada")
    stream = edge.open("/api/v1/me/events", token)
    assert stream.next()
    assert edge.ask("DELETE", "/api/v1/session", headers={"Authorization": f"Bearer {token}"}).status == 204
    # Far less than the 20 seconds between two rounds of questions.
    assert stream.ended.wait(15)


def test_streams_outlive_a_redis_that_goes_and_comes_back(
    tmp_path: object, migrated_database: object, own_redis: RedisServer
) -> None:
    settings: Settings = make_settings(tmp_path / "data", migrated_database, own_redis.url)  # type: ignore[operator, arg-type]
    port = free_port()
    web = EdgeProcess(settings, port, write_config(settings, port))
    web.start()
    try:
        from bridge.live.connection import connect
        from bridge.store.database import open_database

        ada, token = person(open_database(settings), "ada")
        stream = web.open("/api/v1/me/events", token)
        assert stream.next()["event"] == "state"
        own_redis.stop()
        until(lambda: web.ask("GET", "/readyz").json()["reasons"].get("redis"), what="Redis is missed")
        late = web.open("/api/v1/me/events", token)
        assert late.next()["event"] == "state"
        own_redis.start()
        client = connect(settings)
        screens.publish(client, screens.agent_topic(ada), "pop", {"n": 1})
        client.close()
        for one in (stream, late):
            assert one.next()["event"] == "pop"
        assert not stream.ended.is_set()
    finally:
        web.end()


def test_rest_that_dies_is_started_again_and_streams_go_on(
    edge: EdgeProcess, sessions: Sessions, redis: Redis
) -> None:
    ada, token = person(sessions, "ada")
    stream = edge.open("/api/v1/me/events", token)
    assert stream.next()["event"] == "state"
    (master,) = edge.children()
    os.kill(master, signal.SIGKILL)
    screens.publish(redis, screens.agent_topic(ada), "pop", {"n": 1})
    assert stream.next()["event"] == "pop"
    until(lambda: edge.children() not in ([], [master]), 30, "a new REST process")
    until(edge.healthy, 40, "REST answers again")


def test_rest_that_hangs_is_a_problem_document_and_not_the_end(edge: EdgeProcess) -> None:
    (master,) = edge.children()
    os.kill(master, signal.SIGSTOP)
    workers = [int(p) for p in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        answer = edge.ask("GET", "/healthz", timeout=60)
        assert answer.status == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "busy"
        assert edge.ask("GET", "/static/api.js").status == 200
    finally:
        for pid in (*workers, master):
            os.kill(pid, signal.SIGCONT)
    until(edge.healthy, 40, "REST answers again")


def test_files_are_cached_by_their_content(edge: EdgeProcess) -> None:
    first = edge.ask("GET", "/static/api.js")
    assert first.headers["content-type"].startswith("text/javascript")
    assert first.headers["cache-control"] == "no-cache"
    again = edge.ask("GET", "/static/api.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    digest = first.headers["etag"].strip('"')
    assert "immutable" in edge.ask("GET", f"/static/api.js?v={digest}").headers["cache-control"]
    for path in ("/static/../settings.py", "/static/%2e%2e/settings.py", "/static/", "/static/.x", "/static/x%00"):
        assert edge.ask("GET", path).status == 404
    assert edge.ask("POST", "/static/api.js", {}).status == 405


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * 99 + b"\r\n", b"431"),
    ],
)
def test_broken_requests_get_a_problem_document(edge: EdgeProcess, raw: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as sock:
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"application/problem+json" in answer


def test_what_two_servers_could_read_in_two_ways_is_refused(edge: EdgeProcess) -> None:
    second = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for lines in (
        b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(second),
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n",
        b"Content-Length : 2\r\n",
    ):
        with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as sock:
            sock.sendall(b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n" + second)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 400 "), lines
        assert answer.count(b"HTTP/1.1 ") == 1, lines


def test_the_address_of_a_visitor_is_believed_from_trusted_proxies_only(
    edge: EdgeProcess, sessions: Sessions
) -> None:
    person(sessions, "ada")
    body = {"username": "ada", "password": "wrong password"}
    for n in range(30):
        forged = {"X-Forwarded-For": f"203.0.113.{n}"}
        edge.ask("POST", "/api/v1/session", {**body, "username": f"nobody{n}"}, forged)
    assert edge.ask("POST", "/api/v1/session", body).status == 429


def test_a_port_that_is_taken_is_one_clear_sentence(edge: EdgeProcess) -> None:
    environ = {**os.environ, "RINGBRIDGE_CONFIG": str(edge.config)}
    second = subprocess.run(
        [sys.executable, "-P", "-m", "bridge.cli", "api"],
        env=environ,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert second.returncode != 0
    assert b"is taken by another program" in second.stderr
    assert b"Traceback" not in second.stderr
    assert edge.healthy()


def test_stopping_ends_streams_and_leaves_nothing_behind(edge: EdgeProcess, sessions: Sessions) -> None:
    _, token = person(sessions, "ada")
    stream = edge.open("/api/v1/me/events", token)
    assert stream.next()
    children = edge.children()
    assert edge.stop() == 0
    assert stream.ended.wait(30)
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not list(edge.settings.data_dir.glob("rest-*.sock"))
    assert "Traceback" not in edge.log()


def test_rest_ends_when_the_edge_is_killed(edge: EdgeProcess) -> None:
    children = edge.children()
    edge.stop(signal.SIGKILL)

    def gone() -> bool:
        try:
            os.kill(children[0], 0)
            return Path(f"/proc/{children[0]}/stat").read_text().split()[2] == "Z"
        except (ProcessLookupError, FileNotFoundError):
            return True

    until(gone, what="REST is gone")
