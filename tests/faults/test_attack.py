"""A flood at a site's form: nothing is dialled for it, visitors get through, the supervisor hears of it.

A thousand requests by default; `RINGBRIDGE_ATTACK=10000` for the long run, whose counts are printed (`pytest -s`).
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from doubles.web import Web, web
from redis import Redis
from sqlalchemy import select

from bridge.domain.attempts import AttemptState
from bridge.domain.proof import solve
from bridge.live import keys
from bridge.services import attempts, dialling
from bridge.store.models import Agent, AgentState, Attempt, Audit, Callback, PbxLease, Site
from bridge.store.spending import BudgetDay, BudgetRow, PriceRow

__all__ = ["web"]

REQUESTS = int(os.environ.get("RINGBRIDGE_ATTACK", "1000"))
HONEST = 20
pytestmark = pytest.mark.timeout(300 + REQUESTS // 10)
"""The long run takes minutes."""
SEED = 20260504
PREMIUM = ("+1900555{:04d}", "+44909879{:04d}", "+4484512{:05d}", "+88162345{:04d}", "+882161234{:04d}")
FOREIGN = ("+25261123{:04d}", "+2162012{:04d}", "+5351234{:03d}", "+37120{:06d}", "+9607712{:03d}", "+1876512{:04d}")
HOME = "+1212555{:04d}"


class Form:
    """The site's form as whoever sends it sees it."""

    def __init__(self, web: Web) -> None:
        self.client = web.client

    def send(self, ip: str, **body: Any) -> Any:
        sent = {"site": "site-key", **body}
        return self.client.post("/api/v1/callbacks", json=sent, environ_overrides={"REMOTE_ADDR": ip})

    def proof(self) -> str:
        given = self.client.get("/api/v1/callbacks/challenge?site=site-key").get_json()
        return solve(given["challenge"], given["bits"])


def open_shop(web: Web) -> str:
    """A site that dials the United States, with an agent who is ready; the client's id."""
    client, now = web.company("A"), datetime.now(UTC)
    web.person("agent", "agent")
    with web.database.begin() as db:
        agent = db.query(Agent).one().id
        db.add_all([
            Site(created_at=now, client_id=client, key="site-key", name="Main", regions=["US"], pbx="lab",
                 protection={"proof": "work", "bits": 8}),
            PbxLease(pbx="lab", holder="x", epoch=1, expires_at=now + timedelta(hours=1), connected=True),
        ])  # fmt: skip
        db.merge(AgentState(agent_id=agent, state="ready", since=now, device="PJSIP/101", pbx="lab"))
    return client


def hostile(dice: random.Random, form: Form, stale: str) -> tuple[str, dict[str, Any]]:
    """Address and body of one request: from anywhere or from one network, dear, foreign, trapped or without work."""
    anywhere = ".".join(str(dice.randrange(1, 224)) for _ in range(4))
    ip = dice.choice([anywhere, f"198.51.100.{dice.randrange(256)}", f"2001:db8:7:{dice.randrange(65536):x}::1"])
    kind = dice.random()
    ranges = PREMIUM if kind < 0.4 else FOREIGN if kind < 0.8 else (HOME,)
    number = dice.choice(ranges).format(dice.randrange(100, 1000))
    if kind >= 0.95:
        return ip, {"number": number, "proof": form.proof(), "website": "https://spam.example"}
    if kind >= 0.8:
        return ip, {"number": number, "proof": dice.choice([None, stale, "1.2.3:4"])}
    # Some do the work: what they ask for is refused for what it is.
    return ip, {"number": number, "proof": form.proof() if dice.random() < 0.1 else None}


def test_nothing_is_dialled_for_a_flood(web: Web, redis: Redis) -> None:
    client, dice, form = open_shop(web), random.Random(SEED), Form(web)
    answers: Counter[str] = Counter()
    visitors: dict[str, str] = {}
    spent = form.proof()
    every = REQUESTS // HONEST
    for turn in range(REQUESTS):
        if turn == REQUESTS // 2:
            redis.flushdb()
        if turn % every == 0 and len(visitors) < HONEST:
            number = HOME.format(9000 + turn // every)
            used = spent if not visitors else form.proof()
            honest = form.send(f"203.0.{turn // every}.7", number=number, proof=used)
            assert honest.status_code == 201, honest.get_json()
            visitors[honest.get_json()["id"]] = number
        ip, body = hostile(dice, form, spent)
        response = form.send(ip, **body)
        assert response.status_code in (422, 429)
        answers[response.get_json()["code"]] += 1
    print(f"\n{REQUESTS} hostile requests: {json.dumps(answers)}; {len(visitors)} visitors served")

    with web.database.read() as db:
        assert {row.id: row.number for row in db.scalars(select(Callback))} == visitors
        notices = list(db.scalars(select(Audit).where(Audit.action == "abuse.flood")))
    assert len(notices) == 1 and notices[0].client_id == client
    for callback in visitors:
        with web.database.begin() as db:
            db.query(AgentState).update({"reserved_by": None})
        dialling.dial(web.database, redis, web.settings, callback, now=datetime.now(UTC))
    with web.database.read() as db:
        dialled = [row.number for row in db.scalars(select(Attempt))]
    assert sorted(dialled) == sorted(visitors.values())
    assert redis.xlen(keys.commands("lab")) == HONEST
    expected = {"number_type_not_allowed", "region_not_allowed", "proof_needed", "proof_invalid", "confirm_needed"}
    assert expected <= set(answers)


def set_costs(web: Web) -> None:
    """Prices for two areas of three, and two euros a day: twenty calls that are billed for five minutes each."""
    now = datetime.now(UTC)
    with web.database.begin() as db:
        site = db.query(Site).one()
        site.limits = dict.fromkeys(("per_ip_hour", "per_network_hour", "per_number_day", "per_site_hour"), 100_000)
        common = {"currency": "EUR", "setup": 0, "first_seconds": 60, "next_seconds": 60, "name": "", "changed_at": now}
        db.add_all([
            PriceRow(prefix="1212", per_minute=20_000, **common),
            PriceRow(prefix="1646", per_minute=20_000, **common),
            # One call to these may cost more than the day.
            PriceRow(prefix="1212555999", per_minute=2_000_000, **common),
            BudgetRow(owner_id=site.id, client_id=site.client_id, site_id=site.id, money=2_000_000, currency="EUR",
                      seconds=None, call_seconds=270, changed_at=now),
        ])  # fmt: skip


def test_a_flood_that_passes_every_check_stops_at_the_budget(web: Web, redis: Redis) -> None:
    """From many addresses, with solved puzzles, to numbers that may be called: it costs two euros and no more."""
    open_shop(web)
    set_costs(web)
    dice, form = random.Random(SEED), Form(web)
    answers: Counter[str] = Counter()
    talks = 0
    turns = max(REQUESTS // 5, 100)
    for turn in range(turns):
        if turn == turns // 4:
            redis.flushdb()
        range_ = dice.choice(("+1212555{:04d}", "+1646555{:04d}", "+1917555{:04d}", "+1212555999{:01d}"))
        number = range_.format(turn % 1000 if "999" not in range_ else turn % 10)
        response = form.send(f"203.0.{turn % 250}.{turn % 200}", number=number, proof=form.proof())
        answers["taken" if response.status_code == 201 else response.get_json()["code"]] += 1
        if response.status_code != 201:
            continue
        now = datetime.now(UTC)
        found = dialling.dial(web.database, redis, web.settings, response.get_json()["id"], now=now)
        if found.attempt is not None:
            talks += 1
            with web.database.begin() as db:
                attempts.move(db, found.attempt, AttemptState.CONNECTED, now=now)
            with web.database.begin() as db:
                over = now + timedelta(seconds=dice.randrange(60, 270))
                attempts.move(db, found.attempt, AttemptState.DONE, now=over, over=True)
    print(f"\n{turns} requests that pass every check: {json.dumps(answers)}; {talks} calls")
    with web.database.read() as db:
        (used,) = db.scalars(select(BudgetDay))
        told = [row.action for row in db.scalars(select(Audit)) if row.action == "budget.spent"]
    # One more call would not have fitted, and no call was one too many.
    assert 1_900_000 < used.money_spent <= 2_000_000 and used.money_held == 0
    assert told == ["budget.spent"] and answers["taken"] == talks >= 20
    assert {"taken", "no_price", "too_dear", "budget_spent"} == set(answers)
