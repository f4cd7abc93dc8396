"""An agent's own: state, devices, calls, dispositions, pops; and the supervisor's board."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from doubles.web import Web, code, web
from redis import Redis

from bridge.live import keys
from bridge.store.models import AgentState, Call, Callback, CallEventRow, Pop, Site

__all__ = ["web"]


@pytest.fixture
def ada(web: Web) -> str:
    return web.person("ada", "agent", devices=["PJSIP/101", "PJSIP/102"])


def add_call(web: Web, call_id: str, agent: str | None, **more: object) -> None:
    with web.database.begin() as db:
        db.add(Call(id=call_id, pbx="lab", started_at=datetime.now(UTC), agent_id=agent, **more))


def screens_of(redis: Redis, to: str) -> list[tuple[str, dict[str, object]]]:
    return [
        (fields["event"], json.loads(fields["data"]))
        for _, fields in redis.xrange(keys.SCREENS)
        if fields["to"] == to
    ]


def test_an_agent_sits_down_works_and_leaves(web: Web, ada: str, redis: Redis) -> None:
    assert web.ask("GET", "/api/v1/me/state", ada).get_json()["state"] == "offline"
    assert code(web.ask("PUT", "/api/v1/me/state", ada, json={"state": "ready"})) == (409, "conflict", "device")
    body = {"state": "ready", "device": "PJSIP/101"}
    assert web.ask("PUT", "/api/v1/me/state", ada, json=body).get_json()["device"] == "PJSIP/101"
    paused = web.ask("PUT", "/api/v1/me/state", ada, json={"state": "paused", "reason": "lunch"}).get_json()
    assert (paused["state"], paused["reason"]) == ("paused", "lunch")
    me = web.agent_id("ada")
    assert [data["state"] for event, data in screens_of(redis, f"agent:{me}")] == ["ready", "paused"]
    assert [data["kind"] for _, data in screens_of(redis, "supervisors")] == ["agent", "agent"]
    with web.database.read() as db:
        assert db.get_one(AgentState, me).pbx == "lab"


def test_one_phone_has_one_agent(web: Web, ada: str) -> None:
    bob = web.person("bob", "agent", devices=["PJSIP/101"])
    body = {"state": "ready", "device": "PJSIP/101"}
    assert web.ask("PUT", "/api/v1/me/state", ada, json=body).status_code == 200
    assert code(web.ask("PUT", "/api/v1/me/state", bob, json=body)) == (409, "conflict", "device")
    shown = web.ask("GET", "/api/v1/me/devices", bob).get_json()["items"]
    assert shown == [{"device": "PJSIP/101", "mine": False, "taken": True}]
    web.ask("PUT", "/api/v1/me/state", ada, json={"state": "offline"})
    assert web.ask("PUT", "/api/v1/me/state", bob, json=body).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"state": "asleep"}, "state"),
        ({"state": "ready", "device": "PJSIP/999"}, "device"),
        ({"state": "ready", "device": "Local/1@x"}, "device"),
        ({"state": "paused", "reason": "a\nb"}, "reason"),
        ({}, "state"),
    ],
)
def test_a_state_that_is_none(web: Web, ada: str, body: dict[str, str], field: str) -> None:
    assert code(web.ask("PUT", "/api/v1/me/state", ada, json=body))[::2] == (422, field)


def test_an_agent_sees_and_disposes_the_calls_that_rang_at_their_phone(web: Web, ada: str) -> None:
    me = web.agent_id("ada")
    bob = web.person("bob", "agent")
    add_call(web, "mine", me)
    add_call(web, "rang", None)
    add_call(web, "other", web.agent_id("bob"))
    now = datetime.now(UTC)
    with web.database.begin() as db:
        db.add(Pop(id=f"rang:{me}", call_id="rang", agent_id=me, offered_at=now, sent_at=now))
        db.add(CallEventRow(call_id="mine", seq=1, type="call.started", at=now, data={"direction": "inbound"}))
    listed = web.ask("GET", "/api/v1/calls", ada).get_json()["items"]
    assert {row["id"] for row in listed} == {"mine", "rang"}
    assert web.ask("GET", "/api/v1/calls/mine", ada).get_json()["events"][0]["seq"] == 1
    assert code(web.ask("GET", "/api/v1/calls/other", ada))[0] == 404
    web.ask("PUT", "/api/v1/me/state", ada, json={"state": "wrapup", "device": "PJSIP/101"})
    body = {"disposition": "sold", "note": "Smith & Sons, {Ltd} | $5", "ready": True}
    assert web.ask("POST", "/api/v1/calls/mine/disposition", ada, json=body).get_json()["disposition"] == "sold"
    assert web.ask("GET", "/api/v1/me/state", ada).get_json()["state"] == "ready"
    assert code(web.ask("POST", "/api/v1/calls/mine/disposition", bob, json=body))[0] == 404
    broken = {**body, "note": "a\r\nb"}
    assert code(web.ask("POST", "/api/v1/calls/mine/disposition", ada, json=broken))[::2] == (422, "note")
    answers = {"answers": {"budget": 5, "names": ["a"]}}
    assert web.ask("PUT", "/api/v1/calls/mine/answers", ada, json=answers).get_json() == answers
    bad = {"answers": {"deep": [{"x": "a\u0000b"}]}}
    assert code(web.ask("PUT", "/api/v1/calls/mine/answers", ada, json=bad))[::2] == (422, "answers")


def test_calls_in_progress_and_of_one_pbx(web: Web, ada: str) -> None:
    boss, me, now = web.person("boss"), web.agent_id("ada"), datetime.now(UTC)
    add_call(web, "over", me, state="ended", ended_at=now)
    add_call(web, "now", me, state="queued")
    with web.database.begin() as db:
        db.add(Call(id="long", pbx="b", started_at=now - timedelta(days=2), state="held"))

    def asked(token: str, **query: str) -> list[str]:
        answer = web.ask("GET", "/api/v1/calls", token, query_string=query).get_json()
        return [row["id"] for row in answer["items"]]

    assert asked(boss, live="true") == ["now", "long"]
    assert asked(boss, live="false") == ["over"]
    assert asked(boss, live="true", pbx="b") == ["long"]
    assert asked(boss, live="true", state="queued") == ["now"]
    assert asked(ada, live="true") == ["now"]
    first = web.ask("GET", "/api/v1/calls?live=true&limit=1", boss).get_json()
    assert asked(boss, live="true", cursor=first["next"]) == ["long"]
    assert code(web.ask("GET", "/api/v1/calls?state=ringing", boss))[::2] == (422, "state")
    assert code(web.ask("GET", "/api/v1/calls?live=perhaps", boss))[::2] == (422, "live")


def test_a_call_tells_its_whole_history_to_those_who_may_see_it(web: Web, ada: str) -> None:
    acme, other = web.company("Acme"), web.company("Other")
    now = datetime.now(UTC)
    add_call(web, "c1", web.agent_id("ada"), client_id=acme)
    add_call(web, "k1", None, client_id=acme, state="merged", ended_at=now, merged_into="c1")
    add_call(web, "k2", web.agent_id("ada"), client_id=other, state="merged", ended_at=now, merged_into="c1")
    party = {"device": "PJSIP/101", "extension": "101", "number": None, "name": "A\u202eB", "agent": None}
    gap = {"since": "a", "until": "b"}
    with web.database.begin() as db:
        for seq, kind, data in ((2, "call.uncertain", gap), (1, "call.offered", {"party": party})):
            db.add(CallEventRow(call_id="c1", seq=seq, type=kind, at=now, data=data))
    boss, viewer = web.person("boss"), web.person("vic", "viewer", acme)
    stranger = web.person("eve", "viewer", other)
    full = web.ask("GET", "/api/v1/calls/c1", boss).get_json()
    assert [(event["seq"], event["type"]) for event in full["events"]] == [(1, "call.offered"), (2, "call.uncertain")]
    assert full["events"][0]["data"] == {"party": party}
    seen = {
        token: web.ask("GET", "/api/v1/calls/c1", token).get_json().get("merged_calls")
        for token in (boss, viewer, ada, stranger)
    }
    assert seen == {boss: ["k1", "k2"], viewer: ["k1"], ada: ["k2"], stranger: None}
    assert code(web.ask("GET", "/api/v1/calls/c1", stranger))[0] == 404
    assert web.ask("GET", "/api/v1/calls", stranger).get_json()["items"][0]["id"] == "k2"


def test_yesterdays_calls_are_there_when_asked_for(web: Web, ada: str) -> None:
    add_call(web, "old", web.agent_id("ada"))
    with web.database.begin() as db:
        db.get_one(Call, "old").started_at = datetime.now(UTC) - timedelta(days=2)
    assert web.ask("GET", "/api/v1/calls", ada).get_json()["items"] == []
    since = {"since": (datetime.now(UTC) - timedelta(days=3)).isoformat()}
    found = web.ask("GET", "/api/v1/calls", ada, query_string=since).get_json()
    assert [row["id"] for row in found["items"]] == ["old"]
    naive = web.ask("GET", "/api/v1/calls?since=2026-01-01T00:00:00", ada)
    assert code(naive) == (422, "invalid", "since")
    before_time = web.ask("GET", "/api/v1/calls?since=0001-01-01T00:00:00%2B14:00", ada)
    assert code(before_time) == (422, "invalid", "since")


def test_hanging_up_is_a_command_for_the_listener(web: Web, ada: str, redis: Redis) -> None:
    me = web.agent_id("ada")
    leader = web.person("eve", "supervisor")
    add_call(web, "mine", me)
    answer = web.ask("POST", "/api/v1/calls/mine/hangup", ada)
    assert answer.status_code == 202
    web.ask("POST", "/api/v1/calls/mine/hangup", leader)
    commands = [fields for _, fields in redis.xrange(keys.commands("lab"))]
    assert [json.loads(fields["data"]) for fields in commands] == [
        {"call": "mine", "agent": me},
        {"call": "mine", "agent": None},
    ]
    assert commands[0]["id"] == answer.get_json()["command"]
    assert commands[0]["to"] == f"agent:{me}"
    with web.database.begin() as db:
        db.get_one(Call, "mine").ended_at = datetime.now(UTC)
    assert code(web.ask("POST", "/api/v1/calls/mine/hangup", ada))[:2] == (409, "conflict")


def test_a_pop_is_acknowledged_once_and_by_its_agent(web: Web, ada: str) -> None:
    me, now = web.agent_id("ada"), datetime.now(UTC)
    bob = web.person("bob", "agent")
    add_call(web, "c", me)
    with web.database.begin() as db:
        db.add(Pop(id=f"c:{me}", call_id="c", agent_id=me, offered_at=now, sent_at=now))
    path = f"/api/v1/pops/c:{me}/ack"
    assert code(web.ask("POST", path, bob, json={}))[0] == 404
    first = web.ask("POST", path, ada, json={"painted_ms": 12.5}).get_json()
    assert web.ask("POST", path, ada, json={"painted_ms": 99}).get_json() == first
    assert code(web.ask("POST", path, ada, json={"painted_ms": -1}))[::2] == (422, "painted_ms")
    with web.database.read() as db:
        assert db.get_one(Pop, f"c:{me}").painted_ms == 12.5


def test_the_board_shows_the_day(web: Web, ada: str, redis: Redis) -> None:
    leader = web.person("eve", "supervisor")
    add_call(web, "c1", None, state="ended", cause="completed")
    add_call(web, "c2", None, state="ended", cause="abandoned")
    board = web.ask("GET", "/api/v1/board?timezone=America/New_York", leader).get_json()
    assert board["calls"]["causes"] == {"completed": 1, "abandoned": 1}
    assert {row["id"] for row in board["calls"]["rows"]} <= {"c1", "c2"}
    assert board["links"] == [{"pbx": "lab", "up": False, "detail": "no listener has run for this PBX yet"}]
    assert {agent["name"] for agent in board["agents"]} == {"ada", "eve"}
    assert board["dialing"]["state"] == "on"
    assert code(web.ask("GET", "/api/v1/board?timezone=Mars/Base", leader))[::2] == (422, "timezone")
    stopped = web.ask("PUT", "/api/v1/dialing", leader, json={"state": "stopped"}).get_json()
    assert (stopped["state"], stopped["by"]) == ("stopped", "eve")
    assert screens_of(redis, "supervisors")[-1][1]["kind"] == "dialing"


def test_the_boards_callbacks_are_those_of_today(web: Web) -> None:
    """Asked for, due or ended today, or overdue: one that was asked for yesterday is not forgotten."""
    leader = web.person("eve", "supervisor")
    client = web.company("Northwind")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    hours = {
        # Created, due, ended: hours from midnight.
        "of today": (0.001, 0.001, None),
        "of yesterday for today": (-20, 23, None),
        "overdue": (-30, -20, None),
        "over since today": (-20, -10, 0.001),
        "of yesterday for tomorrow": (-20, 25, None),
        "over since yesterday": (-30, -20, -10),
    }
    with web.database.begin() as db:
        site = Site(client_id=client, key="k", name="shop", created_at=midnight)
        db.add(site)
        db.flush()
        for name, (created, due, ended) in hours.items():
            db.add(
                Callback(
                    client_id=client,
                    site_id=site.id,
                    number="+16465550101",
                    name=name,
                    status="queued" if ended is None else "failed",
                    created_at=midnight + timedelta(hours=created),
                    due_at=midnight + timedelta(hours=due),
                    expires_at=midnight + timedelta(hours=48),
                    ended_at=None if ended is None else midnight + timedelta(hours=ended),
                )
            )
    callbacks = web.ask("GET", "/api/v1/board?timezone=UTC", leader).get_json()["callbacks"]
    assert {row["name"] for row in callbacks["rows"]} == set(list(hours)[:4])
    assert callbacks["counts"] == {"queued": 3, "failed": 1}


def test_rest_alone_has_no_streams(web: Web, ada: str) -> None:
    assert code(web.ask("GET", "/api/v1/me/events", ada))[:2] == (503, "unavailable")
    granted = web.ask("GET", "/api/v1/me/events", ada, headers={"X-Ringbridge-Grant": "1"}).get_json()
    assert granted["topics"] == [f"agent:{web.agent_id('ada')}"]
    assert code(web.ask("GET", "/api/v1/board/events", ada))[0] == 403
