"""The time that a visitor is told before they ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from doubles.company import NOW, ask, change_site, found_company
from doubles.web import Web, code, web
from redis import Redis

from bridge.api import limits
from bridge.domain.costs import day_of
from bridge.services import promises
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import AgentState, Calendar, Callback, Site
from bridge.store.queries.switches import set_dialing
from bridge.store.spending import BudgetDay, BudgetRow

__all__ = ["web"]

ORIGIN = "https://www.example.com"
WORKING = 25
"""Seconds from a free agent to the customer's phone, until measured."""
LATER = timedelta(seconds=6)
"""When what was told is looked at anew."""


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    found_company(sessions)
    return sessions


def told(sessions: Sessions, settings: Settings, now: datetime = NOW) -> datetime | None:
    with sessions.read() as session:
        site = session.get_one(Site, "shop")
    return promises.before_asking(sessions, settings, site, None, now)


def state(sessions: Sessions, name: str) -> None:
    with sessions.begin() as session:
        session.get_one(AgentState, "agent-1").state = name


def test_it_is_what_is_promised_then(company: Sessions, redis: Redis, settings: Settings) -> None:
    before = told(company, settings)
    assert before == NOW + timedelta(seconds=WORKING) == ask(company, redis, settings).promised_at
    # Who asks next finds the one agent taken; for five seconds all are told the same.
    assert told(company, settings, NOW + LATER / 2) == before
    assert told(company, settings, NOW + LATER) > NOW + LATER + timedelta(seconds=WORKING)


def _closed(sessions: Sessions) -> None:
    with sessions.begin() as session:
        row = Calendar(id="c", client_id="acme", name="c", created_at=NOW, timezone="UTC",
                       weekly={"tuesday": [{"opens": "09:00", "closes": "10:00"}]})  # fmt: skip
        session.add(row)
    change_site(sessions, calendar_id="c")


def _stopped(sessions: Sessions) -> None:
    with sessions.begin() as session:
        set_dialing(session, stopped=True, by="x", now=NOW)


def _spent(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.add(BudgetRow(owner_id="acme", client_id="acme", seconds=600, call_seconds=600, changed_at=NOW))
        session.flush()
        day = day_of(NOW, "UTC").name
        session.add(BudgetDay(owner_id="acme", client_id="acme", day=day, money_spent=0, money_held=0,
                              seconds_spent=600, seconds_held=0, grants=0, told_at=NOW))  # fmt: skip


@pytest.mark.parametrize(
    "silence",
    [
        _closed,
        _stopped,
        _spent,
        lambda sessions: state(sessions, "paused"),
        lambda sessions: change_site(sessions, test_mode=True),
    ],
    ids=["closed", "dialling stopped", "budget spent", "nobody works", "test mode"],
)
def test_nothing_is_told_where_nothing_can_be_promised(company: Sessions, settings: Settings, silence: Any) -> None:
    assert told(company, settings) is not None
    silence(company)
    assert told(company, settings, NOW + LATER) is None


def test_it_is_told_to_the_sites_pages(web: Web) -> None:
    found_company(web.database, now=datetime.now(UTC))
    change_site(web.database, origins=[ORIGIN])
    answer = web.ask("GET", "/api/v1/promise?site=shop-key", headers={"Origin": ORIGIN})
    assert answer.status_code == 200
    body = answer.get_json()
    assert set(body) == {"promised_at", "seconds"} and body["seconds"] in (WORKING - 1, WORKING)
    assert datetime.fromisoformat(body["promised_at"]).tzinfo is not None
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Cache-Control"] == "no-store"
    preflight = web.ask("OPTIONS", "/api/v1/promise", headers={"Origin": ORIGIN})
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    change_site(web.database, test_mode=True)
    other = web.ask("GET", "/api/v1/promise?queue=sales", headers={"X-Site-Key": "shop-key"})
    assert (other.status_code, other.data) == (204, b"")


def test_supervisors_read_what_became_of_their_clients_promises(web: Web) -> None:
    found_company(web.database, now=NOW)
    other = web.company("Other")
    boss, stranger = web.person("boss", "supervisor", "acme"), web.person("eve", "supervisor", other)
    agent = web.person("ann", "agent", "acme")
    at = datetime.now(UTC)
    with web.database.begin() as db:
        for number, kept in enumerate([True, True, False, None]):
            db.add(Callback(client_id="acme", site_id="shop", number=f"+1646555010{number}", status="done",
                            created_at=at, due_at=at, expires_at=at, ended_at=at, expected_at=at,
                            promise_kept=kept))  # fmt: skip
    [site] = web.ask("GET", "/api/v1/promises?timezone=Asia/Tokyo", boss).get_json()["items"]
    assert (site["site"], site["promising"], len(site["days"])) == ("Shop", True, 7)
    today = site["days"][0]
    assert (today["kept"], today["broken"], today["share"]) == (2, 1, 0.6667)
    assert web.ask("GET", "/api/v1/promises", stranger).get_json()["items"] == []
    assert web.ask("GET", "/api/v1/promises", agent).status_code == 403
    assert web.ask("GET", "/api/v1/promises").status_code == 401


@pytest.mark.parametrize(
    ("query", "origin", "expected"),
    [
        ("", None, (422, "invalid", "site")),
        ("?site=nope", None, (422, "invalid", "site")),
        ("?site=shop-key&number=1", None, (422, "unknown_field", "number")),
        ("?site=shop-key&queue=a%0ab", None, None),
        ("?site=shop-key", "https://evil.example", (403, "origin_not_allowed", None)),
    ],
)
def test_others_are_refused(web: Web, query: str, origin: str | None, expected: Any) -> None:
    found_company(web.database, now=datetime.now(UTC))
    answer = web.ask("GET", f"/api/v1/promise{query}", headers={"Origin": origin} if origin else {})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert code(answer) == expected if expected else answer.status_code == 422


def test_an_address_asks_so_often_and_others_go_on(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    found_company(web.database, now=datetime.now(UTC))
    monkeypatch.setattr(limits, "PER_ASKER", "3 per hour")
    for _ in range(3):
        assert web.ask("GET", "/api/v1/promise?site=shop-key").status_code == 200
    refused = web.ask("GET", "/api/v1/promise?site=shop-key")
    assert code(refused)[:2] == (429, "rate_limited")
    assert refused.get_json()["detail"].startswith("this was asked too often; wait ")
    assert int(refused.headers["Retry-After"]) > 0
    monkeypatch.setattr(limits, "remote_address", lambda: "192.0.2.77")
    assert web.ask("GET", "/api/v1/promise?site=shop-key").status_code == 200
