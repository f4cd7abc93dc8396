"""What may be done to a call over REST: by whom, with which values, and what lies in the mailbox then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from doubles.web import Web, code, web
from redis import Redis

from bridge.api.app import create_app
from bridge.domain.actions import Action
from bridge.live import keys
from bridge.live.mailbox import Mailbox
from bridge.services import actions
from bridge.settings import Pbx
from bridge.store.models import Agent, Audit, Call, CallAgent, PbxLease, Pop

__all__ = ["web"]

PLAIN = ("hold", "resume", "transfer/complete", "transfer/cancel", "park", "stop")
OWN_PHONE = ("retrieve", "pickup")
WATCHING = ("listen", "whisper", "barge")
BODIES: dict[str, dict[str, str]] = {
    "transfer": {"to": "102"},
    "conference": {"to": "102"},
    "redirect": {"to": "102"},
    "play": {"sound": "custom/thanks"},
    "dtmf": {"digits": "12#"},
    "record": {"state": "on"},
}
EVERY = (*PLAIN, *OWN_PHONE, *WATCHING, *BODIES)
ALL = ("hangup", *EVERY)


@pytest.fixture
def ada(web: Web) -> str:
    token = web.person("ada", "agent", devices=["PJSIP/101"], extension="101")
    add_call(web, "mine", agent="ada")
    return token


@pytest.fixture
def boss(web: Web) -> str:
    return web.person("boss", "supervisor", devices=["PJSIP/150"], extension="150")


def add_call(web: Web, call_id: str, agent: str | None = None, **more: object) -> None:
    agent_id = web.agent_id(agent) if agent else None
    with web.database.begin() as db:
        db.add(Call(id=call_id, started_at=datetime.now(UTC), agent_id=agent_id, **{"pbx": "lab", **more}))


@contextmanager
def changed(web: Web, **settings: object) -> Iterator[Web]:
    """The same with other settings."""
    app = create_app(web.settings.model_copy(update=settings))
    try:
        yield Web(app, app.extensions["ringbridge"].settings, web.database)
    finally:
        app.extensions["ringbridge"].database.close()
        app.extensions["ringbridge"].redis.close()


def act(web: Web, token: str, what: str, body: object = None, call: str = "mine") -> Any:
    more = {} if body is None else {"json": body}
    return web.ask("POST", f"/api/v1/calls/{call}/{what}", token, **more)


def mailed(redis: Redis, pbx: str = "lab") -> list[dict[str, Any]]:
    return [
        {**fields, "data": json.loads(fields["data"])} for _, fields in redis.xrange(keys.commands(pbx))
    ]


def audited(web: Web) -> list[tuple[str, str, dict[str, Any]]]:
    with web.database.read() as db:
        rows = db.query(Audit).filter(Audit.action.like("calls.%")).order_by(Audit.id)
        return [(row.action, row.object, dict(row.detail)) for row in rows]


KEYS = "0123456789*#ABCDabcd0123456789*#"
WISHES: tuple[tuple[str, object, str, dict[str, str]], ...] = (
    ("hold", None, "hold", {}),
    ("resume", {}, "resume", {}),
    ("transfer", {"to": "102"}, "transfer", {"to": "102"}),
    ("transfer", {"to": "98", "kind": "blind"}, "transfer", {"to": "98"}),
    ("transfer", {"to": "+16465550107", "kind": "attended"}, "consult", {"to": "+16465550107"}),
    ("transfer", {"to": "6465550107"}, "transfer", {"to": "6465550107"}),
    ("transfer/complete", None, "complete", {}),
    ("transfer/cancel", None, "return", {}),
    ("conference", {"to": "102"}, "conference", {"to": "102"}),
    ("park", None, "park", {}),
    ("redirect", {"to": "8001"}, "redirect", {"to": "8001"}),
    ("play", {"sound": "a/b-c_D9"}, "play", {"sound": "a/b-c_D9", "side": "both"}),
    ("play", {"sound": "hi", "to": "agent"}, "play", {"sound": "hi", "side": "agent"}),
    ("stop", None, "stop", {}),
    ("dtmf", {"digits": KEYS}, "dtmf", {"digits": KEYS}),
    ("record", {"state": "on"}, "record", {}),
    ("record", {"state": "paused"}, "pause", {}),
    ("record", {"state": "off"}, "unrecord", {}),
)


def test_an_agents_wish_lies_in_the_mailbox(web: Web, ada: str, redis: Redis) -> None:
    me = web.agent_id("ada")
    for what, body, action, values in WISHES:
        answer = act(web, ada, what, body)
        assert answer.status_code == 202, (what, body, answer.get_json())
        command = mailed(redis)[-1]
        assert command["data"] == {"action": action, "call": "mine", "agent": me, "asker": me, **values}
        assert (command["kind"], command["to"]) == ("action", f"agent:{me}")
        assert command["id"] == answer.get_json()["command"]
    assert len(mailed(redis)) == len(WISHES)
    assert audited(web) == []


def test_a_supervisors_own_phone_is_named(web: Web, ada: str, boss: str, redis: Redis) -> None:
    me = web.agent_id("boss")
    phone = {"device": "PJSIP/150", "extension": "150"}
    for what in (*OWN_PHONE, *WATCHING):
        assert act(web, boss, what).status_code == 202
        command = mailed(redis)[-1]
        assert command["data"] == {"action": what, "call": "mine", "agent": None, "asker": me, **phone}
        told = {"command": command["id"], "device": "PJSIP/150"}
        assert audited(web)[-1] == (f"calls.{what}", "mine", told)


def test_a_supervisor_acts_for_whoever_is_in_the_call_and_leaves_a_row(
    web: Web, ada: str, boss: str, redis: Redis
) -> None:
    assert act(web, boss, "transfer", {"to": "102"}).status_code == 202
    assert act(web, boss, "transfer", {"to": "+16465550107"}).status_code == 202
    assert act(web, boss, "dtmf", {"digits": "4711"}).status_code == 202
    assert [command["data"]["agent"] for command in mailed(redis)] == [None] * 3
    rows = audited(web)
    assert [(action, detail.get("to")) for action, _, detail in rows] == [
        ("calls.transfer", "102"), ("calls.transfer", "a number"), ("calls.dtmf", None),
    ]  # fmt: skip
    assert "4711" not in json.dumps(rows) and "6465550107" not in json.dumps(rows)


def test_a_viewer_does_nothing(web: Web, ada: str, redis: Redis) -> None:
    viewer = web.person("vic", "viewer", web.company("Acme"))
    for what in ALL:
        assert code(act(web, viewer, what, BODIES.get(what)))[:2] == (403, "forbidden"), what
        assert code(web.ask("POST", f"/api/v1/calls/mine/{what}", json=BODIES.get(what, {})))[0] == 401, what
    assert mailed(redis) == []


def test_what_is_out_of_reach_is_not_there(web: Web, redis: Redis) -> None:
    acme, other = web.company("Acme"), web.company("Other")
    add_call(web, "theirs", client_id=other)
    add_call(web, "nobodys")
    for name, role in (("ada", "agent"), ("boss", "supervisor")):
        token = web.person(name, role, acme, devices=["PJSIP/101"])
        for what in ALL:
            wanted = 403 if role == "agent" and what in WATCHING else 404
            for call in ("theirs", "nobodys", "none"):
                assert code(act(web, token, what, BODIES.get(what), call))[0] == wanted, (role, what, call)
    assert mailed(redis) == []


def test_an_agent_acts_where_it_rang_at_their_phone_and_fetches_from_elsewhere(
    web: Web, ada: str, redis: Redis
) -> None:
    web.person("bob", "agent", devices=["PJSIP/102"])
    add_call(web, "bobs", agent="bob")
    for what in ALL:
        wanted = 202 if what in OWN_PHONE else 403 if what in WATCHING else 404
        assert act(web, ada, what, BODIES.get(what), "bobs").status_code == wanted, what
    assert [command["data"]["action"] for command in mailed(redis)] == list(OWN_PHONE)


def test_a_call_that_rang_is_the_agents_to_act_on(web: Web, ada: str) -> None:
    add_call(web, "rang")
    now, me = datetime.now(UTC), web.agent_id("ada")
    with web.database.begin() as db:
        db.add(Pop(id=f"rang:{me}", call_id="rang", agent_id=me, offered_at=now, sent_at=now))
    assert act(web, ada, "redirect", {"to": "102"}, "rang").status_code == 202


def test_who_is_in_a_call_acts_on_it_though_it_never_rang_there(web: Web, redis: Redis) -> None:
    acme, other = web.company("Acme"), web.company("Other")
    ada = web.person("ada", "agent", acme, devices=["PJSIP/101"])
    for call, client in (("colleagues", None), ("ours", acme), ("theirs", other)):
        add_call(web, call, client_id=client)
        with web.database.begin() as db:
            db.add(CallAgent(call_id=call, agent_id=web.agent_id("ada"), talking=True, since=datetime.now(UTC)))
    for what in ("hold", "hangup"):
        statuses = [act(web, ada, what, call=call).status_code for call in ("colleagues", "ours", "theirs")]
        assert statuses == [202, 202, 404]
    with web.database.begin() as db:
        db.query(CallAgent).delete()
    assert act(web, ada, "hold", call="colleagues").status_code == 404


def test_a_call_that_is_over(web: Web, boss: str, redis: Redis) -> None:
    add_call(web, "over", ended_at=datetime.now(UTC), state="ended")
    add_call(web, "merged", ended_at=datetime.now(UTC), state="merged", merged_into="mine")
    for what in ALL:
        for call in ("over", "merged"):
            assert code(act(web, boss, what, BODIES.get(what), call))[:2] == (409, "conflict"), what
    assert (mailed(redis), audited(web)) == ([], [])


def test_a_pbx_that_is_away(web: Web, boss: str, ada: str, redis: Redis) -> None:
    hour = timedelta(hours=1)
    with web.database.begin() as db:
        db.add(PbxLease(pbx="lab", holder="a:1", epoch=1, detail="", expires_at=datetime.now(UTC)))
    for connected, left, status in ((False, hour, 503), (True, -hour, 503), (True, hour, 202)):
        with web.database.begin() as db:
            row = db.get_one(PbxLease, "lab")
            row.connected, row.expires_at = connected, datetime.now(UTC) + left
        for what in ALL:
            answer = act(web, boss, what, BODIES.get(what))
            assert answer.status_code == status, what
            assert status == 202 or code(answer)[1] == "pbx_down"
    assert len(mailed(redis)) == len(audited(web)) == len(ALL)


def test_observe_mode_allows_nothing(web: Web, boss: str, ada: str, redis: Redis) -> None:
    dialing = web.settings.dialing.model_copy(update={"mode": "observe"})
    with changed(web, dialing=dialing) as watching:
        for what in ALL:
            for token in (boss, ada):
                wanted = 403 if token == ada and what in WATCHING else 409
                assert act(watching, token, what, BODIES.get(what)).status_code == wanted, what
        assert code(act(watching, ada, "hold"))[1] == "observe"
    assert (mailed(redis), audited(web)) == ([], [])


@pytest.mark.parametrize("what", ["pickup", "listen"])
def test_a_phone_must_be_there_to_ring(web: Web, ada: str, boss: str, redis: Redis, what: str) -> None:
    nowhere = web.person("noa", "supervisor", devices=["PJSIP/151", "PJSIP/152"])
    assert code(act(web, nowhere, what)) == (409, "conflict", "device")
    web.ask("PUT", "/api/v1/me/state", nowhere, json={"state": "paused", "device": "PJSIP/152"})
    assert act(web, nowhere, what).status_code == 202
    assert mailed(redis)[-1]["data"]["device"] == "PJSIP/152"
    assert mailed(redis)[-1]["data"]["extension"] == "152"

    elsewhere = web.person("fred", "supervisor", devices=["user/150@example.com"])
    assert code(act(web, elsewhere, what)) == (409, "conflict", "device")

    rival = web.person("rob", "agent", devices=["PJSIP/150"])
    web.ask("PUT", "/api/v1/me/state", rival, json={"state": "ready", "device": "PJSIP/150"})
    assert code(act(web, boss, what)) == (409, "conflict", "device")

    with web.database.begin() as db:
        db.query(Agent).filter_by(username="noa").one().devices = ["PJSIP/151"]
    assert code(act(web, nowhere, what)) == (409, "conflict", "device")
    assert len(mailed(redis)) == 1


def test_a_phone_of_freeswitch_rings_for_a_call_there(web: Web, redis: Redis) -> None:
    boss = web.person("boss", "supervisor", devices=["user/150@example.com"])
    lab = web.settings.pbx[0]
    other = Pbx.model_validate({**lab.model_dump(), "name": "fs", "kind": "freeswitch"})
    add_call(web, "there", pbx="fs")
    add_call(web, "gone", pbx="sold")
    with changed(web, pbx=(lab, other)) as both:
        assert act(both, boss, "listen", call="there").status_code == 202
        assert code(act(both, boss, "listen", call="gone"))[:2] == (503, "pbx_down")
    (command,) = mailed(redis, "fs")
    assert (command["data"]["device"], command["data"]["extension"]) == ("user/150@example.com", "150")


TARGETS = ("transfer", "conference", "redirect")


TOLL = (
    ("+442079460123", "region_not_allowed"),
    ("00442079460123", "number_invalid"),
    ("011442079460123", "region_not_allowed"),
    ("+19005550123", "number_type_not_allowed"),
    ("9005550123", "number_type_not_allowed"),
    ("+881612345678", "number_type_not_allowed"),
    ("912125550123", "number_invalid"),
    ("5550123", "number_invalid"),
    ("*7219005550123", "number_invalid"),
    ("*729005550123", "number_invalid"),
    ("+1*2125550123", "number_invalid"),
    ("+911", "number_invalid"),
    ("911", "number_type_not_allowed"),
    ("9911", "number_type_not_allowed"),
    ("*911", "number_type_not_allowed"),
    ("*72", "number_type_not_allowed"),
    ("**102", "number_type_not_allowed"),
    ("911*", "number_type_not_allowed"),
    ("0112", "number_type_not_allowed"),
    ("112", "number_type_not_allowed"),
)


def test_a_stolen_token_is_no_toll_fraud(web: Web, ada: str, redis: Redis) -> None:
    for what in TARGETS:
        for to, problem in TOLL:
            assert code(act(web, ada, what, {"to": to})) == (422, problem, "to"), (what, to)
    assert mailed(redis) == []


def test_a_colleague_is_reached_whatever_the_extension_looks_like(web: Web, ada: str) -> None:
    web.person("bob", "agent")
    for extension in ("112", "5550123"):
        for there, active, status in ((False, True, 422), (True, True, 202), (True, False, 422)):
            with web.database.begin() as db:
                bob = db.query(Agent).filter_by(username="bob").one()
                bob.extension, bob.active = extension if there else None, active
            assert act(web, ada, "transfer", {"to": extension}).status_code == status


BAD: tuple[tuple[str, object, str, str], ...] = (
    ("transfer", {}, "missing", "to"),
    ("transfer", None, "media_type", "body"),
    ("transfer", [], "invalid", "body"),
    ("transfer", {"to": 102}, "invalid", "to"),
    ("transfer", {"to": "1"}, "invalid", "to"),
    ("transfer", {"to": ""}, "invalid", "to"),
    ("transfer", {"to": "1" * 17}, "too_long", "to"),
    ("transfer", {"to": "102\n"}, "control_character", "to"),
    ("transfer", {"to": "102\r\nAction: Originate"}, "control_character", "to"),
    ("transfer", {"to": "102,1)"}, "invalid", "to"),
    ("transfer", {"to": "${EXTEN}"}, "invalid", "to"),
    ("transfer", {"to": "10#"}, "invalid", "to"),
    ("transfer", {"to": "\u0661\u0660\u0662"}, "invalid", "to"),
    ("transfer", {"to": "102", "kind": "warm"}, "invalid", "kind"),
    ("transfer", {"to": "102", "context": "from-internal"}, "unknown_field", "context"),
    ("conference", {"to": "a"}, "invalid", "to"),
    ("redirect", {"to": "s"}, "invalid", "to"),
    ("play", {}, "missing", "sound"),
    ("play", {"sound": "../../etc/passwd"}, "invalid", "sound"),
    ("play", {"sound": "a/../b"}, "invalid", "sound"),
    ("play", {"sound": "/etc/x"}, "invalid", "sound"),
    ("play", {"sound": "a//b"}, "invalid", "sound"),
    ("play", {"sound": "a/"}, "invalid", "sound"),
    ("play", {"sound": "a.wav"}, "invalid", "sound"),
    ("play", {"sound": "a&b"}, "invalid", "sound"),
    ("play", {"sound": "a,b"}, "invalid", "sound"),
    ("play", {"sound": "a\n"}, "control_character", "sound"),
    ("play", {"sound": "a" * 101}, "too_long", "sound"),
    ("play", {"sound": "hi", "to": "everyone"}, "invalid", "to"),
    ("dtmf", {}, "missing", "digits"),
    ("dtmf", {"digits": ""}, "invalid", "digits"),
    ("dtmf", {"digits": "1" * 33}, "too_long", "digits"),
    ("dtmf", {"digits": "12E"}, "invalid", "digits"),
    ("dtmf", {"digits": "1\x00"}, "control_character", "digits"),
    ("dtmf", {"digits": 12}, "invalid", "digits"),
    ("record", {}, "missing", "state"),
    ("record", {"state": "stop"}, "invalid", "state"),
    ("record", {"state": "on", "file": "/tmp/x"}, "unknown_field", "file"),
    *((what, {"agent": "x"}, "unknown_field", "agent") for what in ("hangup", *PLAIN, *OWN_PHONE)),
    *((what, [], "invalid", "body") for what in ("hangup", *PLAIN, *OWN_PHONE)),
)


def test_nothing_else_is_taken(web: Web, ada: str, redis: Redis) -> None:
    for what, body, problem, field in BAD:
        status = 415 if body is None else 422
        assert code(act(web, ada, what, body)) == (status, problem, field), (what, body)
    assert mailed(redis) == []


def test_a_watcher_says_nothing_more(web: Web, ada: str, boss: str) -> None:
    for what in WATCHING:
        assert code(act(web, boss, what, {"to": "101"})) == (422, "unknown_field", "to")


def test_a_body_that_may_be_left_out_is_json_where_it_is_there(web: Web, ada: str) -> None:
    path = "/api/v1/calls/mine/hold"
    assert code(web.ask("POST", path, ada, data="x=1", content_type="application/x-www-form-urlencoded"))[0] == 415
    assert code(web.ask("POST", path, ada, data="{", content_type="application/json"))[:2] == (400, "json_invalid")
    assert web.ask("POST", path, ada).status_code == 202


def test_every_action_can_be_asked_for(web: Web, ada: str, boss: str, redis: Redis) -> None:
    for what in EVERY:
        assert act(web, boss, what, BODIES.get(what)).status_code == 202
    for body in ({"state": "paused"}, {"state": "off"}):
        act(web, boss, "record", body)
    act(web, boss, "transfer", {"to": "102", "kind": "attended"})
    sent = {command["data"]["action"] for command in mailed(redis)}
    # `on` goes on where a recording is paused, so that REST needs no word for it.
    assert sent == {str(action) for action in Action} - {"unpause"}


def test_what_is_written_is_what_the_listener_reads(web: Web, ada: str, boss: str, redis: Redis) -> None:
    for what in EVERY:
        act(web, boss, what, BODIES.get(what))
    redis.set(keys.epoch("lab"), 1)
    read = Mailbox(redis, "lab", 1).read(100)
    assert isinstance(read, list) and len(read) == len(EVERY)
    for command in read:
        order = actions.order(command, web.settings.pbx[0], 15, 1000.0)
        assert order.command == command.id and order.action == command.data["action"]
        assert order.asker == web.agent_id("boss") and order.agent is None
        assert order.context == web.settings.pbx[0].context
        rings = order.action in ("conference", "retrieve", "pickup", *WATCHING)
        assert order.until - 1000.0 == 10.0 + 15 * rings
