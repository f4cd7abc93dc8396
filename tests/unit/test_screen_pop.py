"""The pop builder on a real Redis and a real database."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rig import until
from sqlalchemy import select

from bridge.live import keys
from bridge.services.pop_facts import PopFacts
from bridge.services.pop_rows import PopRows
from bridge.services.screen_pop import PopBuilder, run
from bridge.settings import Settings
from bridge.store import models
from bridge.store.database import Sessions

NOW = datetime.now(UTC)
DID = "+12125550110"
CALLER = "+16465550142"


class Stage:
    """A client company with a script, an agent, a customer; and what a PBX would say."""

    def __init__(self, redis: Redis, sessions: Sessions) -> None:
        self.redis = redis
        self.sessions = sessions
        self.rows = PopRows(sessions)
        with sessions.begin() as db:
            client = models.Client(
                name="Northwind", region="US", greeting="{{client.name}}, this is {{agent.name}}.",
                card={"hours": "8-18"}, created_at=NOW,
            )  # fmt: skip
            db.add(client)
            db.flush()
            self.client = client.id
            script = models.Script(
                client_id=client.id, name="Inbound", version=2, created_at=NOW,
                body="Hello **{{customer.name}}**, you wrote: {{callback.note}}",
            )  # fmt: skip
            db.add(script)
            db.flush()
            self.script = script.id
            db.add(models.Did(client_id=client.id, number=DID, script_id=script.id, created_at=NOW))
            self.agents = [self._agent(db, name) for name in ("Ann", "Bob")]

    def _agent(self, db: Any, name: str) -> str:
        agent = models.Agent(
            username=name.lower(), password_hash="x", name=name, role="agent", created_at=NOW
        )
        db.add(agent)
        db.flush()
        db.add(models.AgentState(agent_id=agent.id, state="ready", since=NOW))
        return agent.id

    def customer(self, name: str, client: str | None = None, *, created: datetime = NOW) -> str:
        with self.sessions.begin() as db:
            row = models.Customer(client_id=client or self.client, name=name, created_at=created)
            db.add(row)
            db.flush()
            db.add(models.CustomerNumber(customer_id=row.id, number=CALLER, client_id=row.client_id))
            return row.id

    def builder(self, name: str = "one", budget_seconds: float = 10) -> PopBuilder:
        """The budget is long, so that a busy machine does not make every customer a late one."""
        builder = PopBuilder(self.redis, self.sessions, self.rows, name, budget_seconds=budget_seconds)
        builder.facts.load()
        return builder

    def say(self, call: str, type: str, at: datetime | None = None, **data: Any) -> str:
        fields = {
            "v": "1", "type": type, "call": call, "pbx": "lab", "seq": "1",
            "at": (at or datetime.now(UTC)).isoformat(), "data": json.dumps(data),
        }  # fmt: skip
        return str(self.redis.xadd(keys.CALLS, fields))

    def start(self, call: str, number: str | None = CALLER, **more: Any) -> None:
        data = {"direction": "inbound", "from": party(number=number, name="DANA W"), "to": party(number=DID)}
        self.say(call, "call.started", **(data | more))

    def ring(self, call: str, agent: int = 0, at: datetime | None = None) -> None:
        self.say(call, "call.offered", at, party=party(self.agents[agent]))

    def screens(self) -> list[tuple[str, str, dict[str, Any]]]:
        """To whom, which event, what."""
        entries: Any = self.redis.xrange(keys.SCREENS)
        return [(entry["to"], entry["event"], json.loads(entry["data"])) for _, entry in entries]

    def stored(self, agent: int = 0) -> dict[str, Any]:
        kept: Any = self.redis.hgetall(keys.pops(self.agents[agent]))
        return {key: json.loads(text) for key, text in kept.items()}


def party(agent: str | None = None, number: str | None = None, name: str | None = None) -> dict[str, Any]:
    return {
        "device": "PJSIP/101" if agent else None,
        "extension": None,
        "number": number,
        "name": name,
        "agent": agent,
    }


@pytest.fixture
def stage(redis: Redis, sessions: Sessions) -> Stage:
    return Stage(redis, sessions)


def drain(builder: PopBuilder) -> None:
    while builder.step(block_ms=20):
        pass


def test_a_ring_becomes_one_whole_pop(stage: Stage) -> None:
    stage.customer("Dana <b>Whitfield</b>")
    stage.start("lab-1")
    stage.ring("lab-1")
    drain(stage.builder())
    [(to, event, pop)] = stage.screens()
    assert (to, event) == (f"agent:{stage.agents[0]}", "pop")
    assert pop["id"] == f"lab-1:{stage.agents[0]}"
    assert (pop["state"], pop["number"], pop["did"]) == ("ringing", CALLER, DID)
    assert pop["number_text"] == "(646) 555-0142"
    assert pop["customer"]["name"] == "Dana <b>Whitfield</b>"
    assert pop["client"]["greeting"] == "Northwind, this is Ann."
    assert "Dana &lt;b&gt;Whitfield&lt;/b&gt;" in pop["script"]["html"]
    assert '<span class="blank">callback note</span>' in pop["script"]["html"]
    assert stage.stored()[pop["id"]]["state"] == "ringing"


def test_a_callback_pops_with_the_visitors_own_words_and_the_sites_script(stage: Stage) -> None:
    with stage.sessions.begin() as db:
        site = models.Site(
            client_id=stage.client, key="k", name="Shop", script_id=stage.script, created_at=NOW
        )
        db.add(site)
        db.flush()
        row = models.Callback(
            client_id=stage.client, site_id=site.id, number=CALLER, name="Eve", note="<i>boiler</i>",
            page_url="https://shop.example/x", due_at=NOW, expires_at=NOW, status="queued", created_at=NOW,
        )  # fmt: skip
        db.add(row)
        db.flush()
        callback = row.id
    agent = stage.agents[0]
    data = {"direction": "outbound", "from": party(agent), "to": party(number=CALLER)}
    stage.say("lab-2", "call.started", **data, callback=callback, client=stage.client, attempt="a")
    stage.ring("lab-2")
    drain(stage.builder())
    [(_, _, pop)] = stage.screens()
    assert (pop["number"], pop["name"]) == (CALLER, "Eve")
    assert pop["callback"]["note"] == "<i>boiler</i>"
    assert pop["callback"]["requested_at"].startswith(str(NOW.year))
    assert "&lt;i&gt;boiler&lt;/i&gt;" in pop["script"]["html"]
    assert "Eve" in pop["script"]["html"]


def test_one_of_several_customers_is_chosen_within_the_client_company(stage: Stage) -> None:
    with stage.sessions.begin() as db:
        other = models.Client(name="Other", created_at=NOW)
        db.add(other)
        db.flush()
        elsewhere = other.id
    stage.customer("Of another client", elsewhere)
    stage.customer("Newest")
    named = stage.customer("Dana W", created=NOW - timedelta(days=9))
    stage.start("lab-1")
    stage.ring("lab-1")
    drain(stage.builder())
    [(_, _, pop)] = stage.screens()
    assert (pop["customer"]["id"], pop["customer"]["same_number"]) == (named, 2)


def test_earlier_calls_come_with_how_they_ended(stage: Stage) -> None:
    stage.customer("Dana")
    with stage.sessions.begin() as db:
        for day in range(7):
            at = NOW - timedelta(days=day + 1)
            db.add(
                models.Call(
                    id=f"old-{day}",
                    client_id=stage.client,
                    pbx="lab",
                    direction="inbound",
                    customer_number=CALLER,
                    agent_id=stage.agents[1],
                    state="ended",
                    started_at=at,
                    ended_at=at,
                    cause="completed",
                    disposition="sale",
                    note="again",
                    talk_ms=1000,
                )
            )
    stage.start("lab-1")
    stage.ring("lab-1")
    drain(stage.builder())
    earlier = stage.screens()[0][2]["customer"]["earlier"]
    assert [call["call"] for call in earlier] == [f"old-{day}" for day in range(5)]
    assert (earlier[0]["agent"], earlier[0]["disposition"]) == ("Bob", "sale")


@pytest.mark.parametrize("number", [None, "anonymous", "+1999", "101", "0"])
def test_unknown_numbers_pop_without_a_customer(stage: Stage, number: str | None) -> None:
    stage.customer("Dana")
    stage.start("lab-1", number, to=party(number="+19999999999"))
    stage.ring("lab-1")
    drain(stage.builder())
    [(_, _, pop)] = stage.screens()
    assert (pop["customer"], pop["client"], pop["script"]) == (None, None, None)


def test_a_withheld_number_never_reaches_the_screen(stage: Stage) -> None:
    stage.say(
        "lab-1",
        "call.started",
        direction="inbound",
        to=party(number=DID),
        **{"from": {**party(), "withheld": True}},
    )
    stage.ring("lab-1")
    drain(stage.builder())
    [(_, _, pop)] = stage.screens()
    assert (pop["withheld"], pop["number"], pop["client"]["name"]) == (True, None, "Northwind")


def test_a_slow_customer_does_not_hold_up_the_pop(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.customer("Dana")
    gate = threading.Event()
    looked_up = PopFacts._read

    def slow(self: PopFacts, *args: Any) -> Any:
        assert gate.wait(60)
        return looked_up(self, *args)

    monkeypatch.setattr(PopFacts, "_read", slow)
    stage.start("lab-1")
    stage.ring("lab-1")
    drain(stage.builder(budget_seconds=0.03))
    [(_, _, pop)] = stage.screens()
    assert pop["customer"] is None
    assert pop["client"]["name"] == "Northwind"
    gate.set()
    _, late = until(lambda: stage.screens() if len(stage.screens()) == 2 else None, what="the late customer")
    assert (late[1], late[2]["pop"], late[2]["customer"]["name"]) == ("call", pop["id"], "Dana")
    assert "Dana" in late[2]["script"]["html"]
    assert stage.stored()[pop["id"]]["customer"]["name"] == "Dana"


def test_a_restart_goes_on_where_it_was_and_pops_nothing_twice(stage: Stage) -> None:
    stage.start("lab-1")
    stage.ring("lab-1")
    first = stage.builder("one")
    drain(first)
    first.resign()
    second = stage.builder("two")
    stage.say("lab-1", "call.connected", parties=[party(), party(stage.agents[0])])
    drain(second)
    stage.say("lab-1", "call.ended", cause="completed", talk_ms=900)
    drain(second)
    assert [(event, data["state"]) for _, event, data in stage.screens()] == [
        *(("pop", "ringing"), ("call", "connected"), ("call", "ended")),
    ]
    [pop] = stage.stored().values()
    assert pop["ended"] == {"cause": "completed", "talk_ms": 900}
    assert pop["client"]["name"] == "Northwind", "the pop itself survived the restart"


def test_what_a_dead_process_had_read_is_handled_once_by_the_next(stage: Stage) -> None:
    stage.start("lab-1")
    stage.ring("lab-1")
    stage.redis.xgroup_create(keys.CALLS, "pops", id="0")
    stage.redis.xreadgroup("pops", "dead", {keys.CALLS: ">"}, count=10)
    drain(stage.builder("next"))
    assert [event for _, event, _ in stage.screens()] == ["pop"]
    pending: Any = stage.redis.xpending(keys.CALLS, "pops")
    assert pending["pending"] == 0


def test_two_processes_do_the_work_of_one(stage: Stage) -> None:
    one, two = stage.builder("one"), stage.builder("two")
    one.step(block_ms=1)
    for call in range(20):
        stage.start(f"lab-{call}")
        stage.ring(f"lab-{call}")
        two.step(block_ms=1) if call % 5 == 0 else one.step(block_ms=1)
    drain(one)
    pops = [data["id"] for _, event, data in stage.screens() if event == "pop"]
    assert len(pops) == len(set(pops)) == 20


def test_who_lost_the_lease_writes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = stage.builder("old")
    builder.step(block_ms=1)
    stage.start("lab-1")
    stage.ring("lab-1")
    read = PopBuilder._read

    def overtaken(self: PopBuilder, block_ms: int) -> Any:
        entries = read(self, block_ms)
        stage.redis.set(keys.POPS_LEASE, "new")
        return entries

    with monkeypatch.context() as patch:
        patch.setattr(PopBuilder, "_read", overtaken)
        builder.step(block_ms=1)
    assert stage.screens() == []
    drain(stage.builder("new"))
    assert [event for _, event, _ in stage.screens()] == ["pop"]


def test_an_entry_that_makes_no_sense_stops_nothing(stage: Stage) -> None:
    stage.redis.xadd(keys.CALLS, {"type": "call.offered", "call": "x", "at": "yesterday", "data": "{"})
    stage.say("lab-0", "call.started", **{"from": "nobody", "to": ["x"], "direction": 7})
    stage.redis.xadd(keys.CALLS, {"type": "call.ended", "call": "y", "at": NOW.isoformat(), "data": "[1]"})
    stage.redis.hset(keys.pops("stranger"), "z", "{")
    stage.redis.xadd(keys.CALLS, {"type": "pbx.lost", "pbx": "lab", "at": NOW.isoformat(), "data": "{}"})
    stage.start("lab-1")
    stage.ring("lab-1")
    builder = stage.builder()
    drain(builder)
    builder.sweep(NOW)
    assert [event for _, event, _ in stage.screens()] == ["pop"]


def test_an_old_ring_pops_no_more(stage: Stage) -> None:
    stage.start("lab-1")
    stage.ring("lab-1", at=NOW - timedelta(hours=3))
    drain(stage.builder())
    assert stage.screens() == []


def test_an_emptied_redis_only_begins_again(stage: Stage) -> None:
    builder = stage.builder()
    drain(builder)
    stage.redis.flushall()
    stage.start("lab-1")
    stage.ring("lab-1")
    until(lambda: builder.step(block_ms=10) or stage.screens(), what="the pop after the flush")
    assert [event for _, event, _ in stage.screens()] == ["pop"]


def test_an_agent_who_signed_in_a_moment_ago_gets_the_pop(stage: Stage) -> None:
    with stage.sessions.begin() as db:
        for agent in stage.agents:
            db.get_one(models.AgentState, agent).state = "offline"
    builder = stage.builder()
    stage.start("lab-1")
    with stage.sessions.begin() as db:
        db.get_one(models.AgentState, stage.agents[0]).state = "ready"
    stage.ring("lab-1", 0)
    stage.ring("lab-1", 1)
    drain(builder)
    assert [to for to, _, _ in stage.screens()] == [f"agent:{stage.agents[0]}"]


def test_each_pop_leaves_a_row(stage: Stage) -> None:
    stage.start("lab-1")
    stage.ring("lab-1", 0)
    stage.ring("lab-1", 1)
    drain(stage.builder())
    stage.rows.flush()
    with stage.sessions.read() as db:
        assert set(db.scalars(select(models.Pop.agent_id))) == set(stage.agents)


def test_forgotten_calls_leave_after_an_hour(stage: Stage) -> None:
    stage.start("lab-1")
    stage.ring("lab-1")
    stage.say("lab-1", "call.connected", parties=[party(stage.agents[0])])
    stage.say("lab-1", "call.ended", cause="completed", talk_ms=1000)
    builder = stage.builder()
    drain(builder)
    builder.sweep(datetime.now(UTC))
    assert len(stage.stored()) == 1
    builder.sweep(datetime.now(UTC) + timedelta(hours=1, minutes=1))
    assert stage.stored() == {}


@contextmanager
def running(settings: Settings) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(settings, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_the_process_hears_of_changes_and_pops(stage: Stage, settings: Settings) -> None:
    with running(settings):
        stage.start("lab-1")
        stage.ring("lab-1")
        until(stage.screens, what="the first pop")
        with stage.sessions.begin() as db:
            db.get_one(models.Client, stage.client).name = "Southwind"

        def renamed() -> bool:
            stage.redis.publish(keys.CHANGED, "clients")
            call = f"lab-{len(stage.screens()) + 1}"
            stage.start(call)
            stage.ring(call)
            [pop] = until(lambda: [data for _, _, data in stage.screens() if data["call"] == call])
            return bool(pop["client"]["name"] == "Southwind")

        until(renamed, what="the new name in a pop")
