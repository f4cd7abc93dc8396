"""The times a visitor may choose, as pages ask for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from doubles.web import Web, code, web

from bridge.domain import hours
from bridge.store.models import Calendar, Site

__all__ = ["web"]

ORIGIN = "https://www.example.com"


@pytest.fixture
def site(web: Web) -> str:
    """A site's key; its calendar is open round the clock, in two stretches."""
    client = web.company("A")
    spans = [{"opens": "00:00", "closes": "12:00"}, {"opens": "12:00", "closes": "24:00"}]
    with web.database.begin() as db:
        at = datetime.now(UTC)
        weekly = {day: spans for day in hours.DAYS}  # noqa: C420 - by day
        db.add(Calendar(id="c", client_id=client, name="c", created_at=at, timezone="Asia/Tokyo", weekly=weekly))
        db.add(
            Site(id="s", created_at=at, client_id=client, key="site-key", name="Main", origins=[ORIGIN],
                 regions=["US"], calendar_id="c")
        )  # fmt: skip
    return "site-key"


def change(web: Web, **values: Any) -> None:
    with web.database.begin() as db:
        row = db.get_one(Calendar, "c")
        for name, value in values.items():
            setattr(row, name, value)


def test_slots_are_offered_and_accepted(web: Web, site: str) -> None:
    found = web.ask("GET", f"/api/v1/slots?site={site}").get_json()
    assert set(found) == {"timezone", "now", "any_time", "slots"}
    assert (found["timezone"], found["now"], found["any_time"]) == ("Asia/Tokyo", True, False)
    assert len(found["slots"]) == 14 * 48
    last = found["slots"][-1]
    assert datetime.fromisoformat(last["at"]) <= datetime.now(UTC) + timedelta(days=14)
    assert web.ask("GET", "/api/v1/slots", headers={"X-Site-Key": site}).status_code == 200
    day = last["wall_time"][:10]
    of_day = web.ask("GET", f"/api/v1/slots?site={site}&day={day}").get_json()["slots"]
    assert of_day and {slot["wall_time"][:10] for slot in of_day} == {day}
    sent = {"number": "+12125550123", "when": of_day[0]["wall_time"], "timezone": found["timezone"]}
    made = web.ask("POST", "/api/v1/callbacks", json=sent, headers={"X-Site-Key": site}).get_json()
    assert (made["status"], made["promised_at"]) == ("scheduled", of_day[0]["at"])


def test_a_site_without_hours_takes_any_time(web: Web, site: str) -> None:
    with web.database.begin() as db:
        db.get_one(Site, "s").calendar_id = None
    found = web.ask("GET", f"/api/v1/slots?site={site}").get_json()
    assert found == {"timezone": "UTC", "now": True, "any_time": True, "slots": []}


def test_closed_hours_are_refused_with_open_times(web: Web, site: str) -> None:
    change(web, weekly={"monday": [{"opens": "09:00", "closes": "10:00"}]})
    free = web.ask("GET", f"/api/v1/slots?site={site}").get_json()["slots"]
    tuesday = datetime.now(UTC) + timedelta(days=1)
    while tuesday.weekday() != 1:
        tuesday += timedelta(days=1)
    sent = {"number": "+12125550123", "when": f"{tuesday.date()}T09:00", "timezone": "Asia/Tokyo"}
    answer = web.ask("POST", "/api/v1/callbacks", json=sent, headers={"X-Site-Key": site, "Origin": ORIGIN})
    assert code(answer) == (422, "outside_hours", "when")
    problem = answer.get_json(force=True)
    assert problem["timezone"] == "Asia/Tokyo"
    assert problem["slots"] == free[:3] and len(free) >= 3
    assert free[0]["wall_time"].replace("T", " ") in problem["detail"]
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    other = web.ask("POST", "/api/v1/callbacks", json={"number": "x"}, headers={"X-Site-Key": site})
    assert "slots" not in other.get_json(force=True)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (422, "invalid", "site")),
        ("?site=nope", (422, "invalid", "site")),
        ("?site=site-key&day=tomorrow", (422, "invalid", "day")),
        ("?site=site-key&day=2026-02-30", (422, "invalid", "day")),
        ("?site=site-key&days=3", (422, "unknown_field", "days")),
        ("?site=site-key&queue=a%0Ab", (422, "control_character", "queue")),
        ("?site=site-key&site=site-key", (422, "invalid", "site")),
    ],
)
def test_what_is_wrong_is_named(web: Web, site: str, query: str, expected: tuple[int, str, str]) -> None:
    assert code(web.ask("GET", f"/api/v1/slots{query}")) == expected


def test_pages_of_the_site_may_ask_and_no_others(web: Web, site: str) -> None:
    path = f"/api/v1/slots?site={site}"
    assert web.ask("GET", path, headers={"Origin": ORIGIN}).headers["Access-Control-Allow-Origin"] == ORIGIN
    strange = web.ask("GET", path, headers={"Origin": "https://evil.example"})
    assert code(strange)[:2] == (403, "origin_not_allowed")
    assert "Access-Control-Allow-Origin" not in strange.headers
    asked = web.ask("OPTIONS", "/api/v1/slots", headers={"Origin": ORIGIN})
    assert asked.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Origin" not in web.ask(
        "OPTIONS", "/api/v1/slots", headers={"Origin": "https://evil.example"}
    ).headers


def test_the_holidays_of_the_year_to_come_are_named(web: Web, site: str) -> None:
    boss, other = web.person("boss", "supervisor"), web.company("Other")
    stranger = web.person("eve", "supervisor", other)
    assert web.ask("GET", "/api/v1/calendars/c/holidays", boss).get_json() == {"items": []}
    change(web, country="US", subdivision="NY")
    found = web.ask("GET", "/api/v1/calendars/c/holidays", boss).get_json()["items"]
    assert "Independence Day" in " ".join(day["name"] for day in found)
    days = [day["date"] for day in found]
    here = datetime.now(ZoneInfo("Asia/Tokyo")).date()
    assert days == sorted(days) and here - timedelta(days=1) <= datetime.fromisoformat(days[0]).date()
    assert datetime.fromisoformat(days[-1]).date() <= here + timedelta(days=366)
    assert web.ask("GET", "/api/v1/calendars/c/holidays", stranger).status_code == 404
    assert web.ask("GET", "/api/v1/calendars/c/holidays").status_code == 401
