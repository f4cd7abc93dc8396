"""Numbers that must not be called: refused at the form and before a dial, per client, and kept as hashes only."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from doubles.company import NOW, NUMBER, ask, callback, found_company
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from doubles.web import Web, code, web
from redis import Redis
from sqlalchemy import select

from bridge.services import dialling, dnc
from bridge.services.access import Access, Role
from bridge.services.dialling import Claimed
from bridge.services.dnc import DoNotCall
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Audit, Client, Dnc, Site

__all__ = ["web"]


def put(sessions: Sessions, settings: Settings, client: str, number: str = NUMBER) -> str:
    everyone = Access("boss", "boss", "Boss", Role.ADMINISTRATOR, None)
    with sessions.begin() as db:
        return dnc.add(db, settings, everyone, NOW, client, number, "").id


def test_a_number_on_the_list_is_refused_at_the_form_and_before_the_dial(
    sessions: Sessions, redis: Redis, settings: Settings
) -> None:
    found_company(sessions)
    waiting = ask(sessions, redis, settings)
    put(sessions, settings, "acme")
    with pytest.raises(DoNotCall):
        ask(sessions, redis, settings)
    assert dialling.claim(sessions, redis, settings, waiting.id, now=NOW).result is Claimed.REFUSED
    row = callback(sessions, waiting.id)
    assert (row.status, row.reason) == ("failed", "do_not_call")
    with sessions.read() as db:
        kept = db.scalars(select(Dnc)).one()
    assert kept.ending == NUMBER[-2:] and NUMBER[2:] not in f"{kept.number_hash} {kept.note}"


def test_another_clients_list_is_its_own(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    with sessions.begin() as db:
        db.add(Client(id="other", name="Other", created_at=NOW))
    put(sessions, settings, "other")
    assert ask(sessions, redis, settings).status == "queued"


def test_the_collection(web: Web) -> None:
    client, other = web.company("A"), web.company("B")
    agent, boss = web.person("agent", "agent"), web.person("boss", "supervisor")
    stranger = web.person("stranger", "agent", other)
    with web.database.begin() as db:
        db.add(Site(created_at=datetime.now(UTC), client_id=client, key="key", name="Main", regions=["US"]))
    entry = {"client_id": client, "number": "(212) 555-0123", "note": "asked on the phone"}
    made = web.ask("POST", "/api/v1/dnc", agent, json=entry)
    assert made.status_code == 201 and made.get_json()["ending"] == "23"
    assert "5550123" not in made.get_data(as_text=True)
    assert code(web.ask("POST", "/api/v1/dnc", agent, json=entry)) == (409, "conflict", "number")
    assert code(web.ask("POST", "/api/v1/dnc", agent, json={**entry, "number": "hello"}))[1] == "number_invalid"
    assert web.ask("POST", "/api/v1/dnc", stranger, json=entry).status_code == 404
    sent = {"site": "key", "number": "+12125550123"}
    assert code(web.ask("POST", "/api/v1/callbacks", json=sent)) == (422, "do_not_call", "number")

    def listed(token: str, **query: str) -> list[str]:
        answer = web.ask("GET", "/api/v1/dnc", token, query_string=query)
        return [row["id"] for row in answer.get_json()["items"]]

    row = made.get_json()["id"]
    assert listed(agent) == listed(agent, number="+1 212 555 0123", client_id=client) == [row]
    assert listed(agent, number="+12125550124") == listed(stranger) == []
    path = f"/api/v1/dnc/{row}"
    assert web.ask("DELETE", path, agent).status_code == 403
    assert (web.ask("DELETE", path, boss).status_code, web.ask("DELETE", path, boss).status_code) == (204, 404)
    assert web.ask("POST", "/api/v1/callbacks", json=sent).status_code == 201
    with web.database.read() as db:
        told = [(line.action, line.detail) for line in db.scalars(select(Audit).where(Audit.object == row))]
    assert told == [("dnc.create", {}), ("dnc.delete", {})]
