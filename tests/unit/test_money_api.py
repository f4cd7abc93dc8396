"""Prices and budgets as administrators keep them, over REST and from files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from doubles.web import Web, code, web
from sqlalchemy import select

from bridge.commands import importing
from bridge.domain.errors import NotFound
from bridge.store.models import Audit, Callback, Dnc, Site
from bridge.store.spending import BudgetDay, PriceRow

__all__ = ["web"]

TABLE = (
    "prefix,per_minute,currency,setup,first_seconds,next_seconds,name\n"
    "1,0.012,EUR,,,,North America\n+44,0.02,EUR,0.05,1,1,UK\n"
)


def send(web: Web, path: str, token: str, table: str, **more: Any) -> Any:
    return web.ask("POST", path, token, data=table.encode(), content_type="text/csv", **more)


@pytest.fixture
def boss(web: Web) -> str:
    return web.person("boss")


@pytest.fixture
def shop(web: Web) -> tuple[str, str]:
    """Ids of a client and its site."""
    client = web.company("A")
    with web.database.begin() as db:
        site = Site(created_at=datetime.now(UTC), client_id=client, key="key", name="Main", regions=["US"])
        db.add(site)
    return client, site.id


def test_a_table_is_taken_whole_or_not_at_all(web: Web, boss: str) -> None:
    done = send(web, "/api/v1/prices/import", boss, TABLE)
    assert (done.status_code, done.get_json()["taken"]) == (200, 2)
    bad = TABLE + "49,0.01,EUR\n49,0.01,EUR\n4a,1,EUR\n39,1.0000001,EUR\n33,1,euro\n34,,EUR\n351,1,EUR,,0\n"
    told = send(web, "/api/v1/prices/import?replace=true", boss, bad).get_json()
    assert (told["taken"], told["bad"]) == (0, 6)
    assert [fault["line"] for fault in told["faults"]] == [5, 6, 7, 8, 9, 10]
    shown = web.ask("GET", "/api/v1/prices?number=%2B442079460000", boss).get_json()["items"]
    assert [(row["prefix"], row["per_minute"], row["setup"], row["next_seconds"]) for row in shown] == [
        ("44", "0.02", "0.05", 1)
    ]
    assert send(web, "/api/v1/prices/import?replace=true", boss, "49,0.01,EUR\n").get_json()["taken"] == 1
    with web.database.read() as db:
        assert [row.prefix for row in db.scalars(select(PriceRow))] == ["49"]
    assert code(send(web, "/api/v1/prices/import", boss, "prefix,colour\n"))[0] == 422
    assert code(web.ask("POST", "/api/v1/prices/import", boss, json={}))[:2] == (415, "media_type")


def test_one_price(web: Web, boss: str) -> None:
    path = "/api/v1/prices/44"
    given = {"per_minute": "0.02", "currency": "EUR"}
    assert web.ask("PUT", path, boss, json=given).get_json()["first_seconds"] == 60
    assert web.ask("PUT", path, boss, json={**given, "setup": "0.1"}).get_json()["setup"] == "0.10"
    for wrong in ({"per_minute": 0.02}, {"per_minute": "1e3"}, {"currency": "eur"}, {"colour": "x"}):
        assert web.ask("PUT", path, boss, json={**given, **wrong}).status_code == 422
    assert web.ask("PUT", "/api/v1/prices/abc", boss, json=given).status_code == 422
    assert (web.ask("DELETE", path, boss).status_code, web.ask("DELETE", path, boss).status_code) == (204, 404)


def test_who_keeps_prices_and_budgets(web: Web, boss: str, shop: tuple[str, str]) -> None:
    supervisor, agent = web.person("super", "supervisor"), web.person("agent", "agent")
    stranger = web.person("stranger", "administrator", web.company("B"))
    given = {"per_minute": "0.02", "currency": "EUR"}
    for token in (supervisor, agent, stranger):
        assert web.ask("PUT", "/api/v1/prices/44", token, json=given).status_code == 403
        assert send(web, "/api/v1/prices/import", token, TABLE).status_code == 403
    path = f"/api/v1/budgets/{shop[1]}"
    assert web.ask("PUT", path, supervisor, json={"minutes": 60}).status_code == 403
    assert web.ask("PUT", path, stranger, json={"minutes": 60}).status_code == 404
    assert web.ask("PUT", path, boss, json={"minutes": 60}).status_code == 200
    assert web.ask("POST", f"{path}/lift", supervisor).status_code == 403
    assert [row["id"] for row in web.ask("GET", "/api/v1/budgets", supervisor).get_json()["items"]] == [shop[1]]
    assert web.ask("GET", "/api/v1/budgets", stranger).get_json()["items"] == []
    assert web.ask("GET", "/api/v1/budgets", agent).status_code == 403


def test_what_is_no_budget(web: Web, boss: str, shop: tuple[str, str]) -> None:
    path = f"/api/v1/budgets/{shop[0]}"
    for wrong, field in (
        ({}, "money"),
        ({"money": "5"}, "currency"),
        ({"money": "5", "currency": "EUR"}, "currency"),
        ({"minutes": 10, "call_minutes": 10}, "minutes"),
        ({"money": 5, "currency": "EUR"}, "money"),
    ):
        assert code(web.ask("PUT", path, boss, json=wrong))[::2] == (422, field)
    send(web, "/api/v1/prices/import", boss, TABLE)
    made = web.ask("PUT", path, boss, json={"money": "5", "currency": "EUR"}).get_json()
    assert (made["kind"], made["money"], made["minutes"], made["call_minutes"]) == ("client", "5.00", None, 10)
    assert (web.ask("DELETE", path, boss).status_code, web.ask("GET", path, boss).status_code) == (204, 404)


def test_a_spent_budget_is_told_and_lifted(web: Web, boss: str, shop: tuple[str, str]) -> None:
    client, site = shop
    path = f"/api/v1/budgets/{site}"
    resets = web.ask("PUT", path, boss, json={"minutes": 20}).get_json()
    with web.database.begin() as db:
        db.add(BudgetDay(owner_id=site, day=resets["day"], client_id=client, seconds_spent=1000))
    wish = {"site": "key", "number": "+12125550123"}
    for _ in range(3):
        refused = web.ask("POST", "/api/v1/callbacks", json=wish)
        assert code(refused) == (429, "budget_spent", None)
        assert 0 < int(refused.headers["Retry-After"]) <= 25 * 3600 + 1
        assert "UTC" in refused.get_json()["detail"]
    with web.database.begin() as db:
        told = [row for row in db.scalars(select(Audit)) if row.action == "budget.spent"]
        waiting = Callback(
            created_at=datetime.now(UTC), client_id=client, site_id=site, number="+12125550124", status="queued",
            reason="budget_spent", due_at=datetime(2040, 1, 1, tzinfo=UTC), expires_at=datetime(2041, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        db.add(waiting)
    assert [(row.object, row.detail["budget"]) for row in told] == [(site, "site")]
    lifted = web.ask("POST", f"{path}/lift", boss).get_json()
    assert (lifted["grants"], lifted["told_at"]) == (1, None)
    with web.database.read() as db:
        assert db.get_one(Callback, waiting.id).due_at <= datetime.now(UTC)
        assert db.scalars(select(Audit).where(Audit.action == "budgets.lift")).one().actor == "boss"
    assert web.ask("POST", "/api/v1/callbacks", json=wish).status_code == 201


def test_numbers_not_to_call_from_a_csv(web: Web, boss: str, shop: tuple[str, str]) -> None:
    table = "number,note\n(212) 555-0123,asked\n\nnonsense,x\n+1 212 555 0124,\n+12125550123,again\n+123,short\n"
    path = f"/api/v1/dnc/import?client_id={shop[0]}"
    told = send(web, path, boss, table).get_json()
    assert (told["taken"], told["already"], told["bad"]) == (2, 1, 2)
    assert [(each["line"], each["code"]) for each in told["faults"]] == [(4, "number_invalid"), (7, "number_invalid")]
    assert "nonsense" not in json.dumps(told)
    assert send(web, path, boss, table).get_json()["already"] == 3
    later = send(web, f"{path}&first_line=901", boss, "x\n")
    assert later.get_json()["faults"][0]["line"] == 901
    sent = {"site": "key", "number": "+12125550124"}
    assert code(web.ask("POST", "/api/v1/callbacks", json=sent)) == (422, "do_not_call", "number")
    assert send(web, "/api/v1/dnc/import?client_id=nobody", boss, table).status_code == 422


def test_files_of_any_length(
    web: Web, shop: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "load", lambda: web.settings)
    numbers = tmp_path / "numbers.csv"
    many = b"".join(b"+1212555%04d\r\n" % each for each in range(3000))
    numbers.write_bytes(b"\xef\xbb\xbfnumber\n" + many + b"\xff\n")
    table = tmp_path / "prices.csv"
    table.write_text(TABLE, encoding="utf-8")

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(importing.importing, [*arguments, "--json"])
        return done.exit_code, json.loads(done.stdout)

    status, told = run("dnc", str(numbers), "--client", "A")
    assert (status, told["taken"], told["bad"], told["faults"][0]["line"]) == (1, 3000, 1, 3002)
    status, told = run("prices", str(table))
    assert (status, told["taken"]) == (0, 2)
    nobody = CliRunner().invoke(importing.importing, ["dnc", str(numbers), "--client", "Nobody"])
    assert isinstance(nobody.exception, NotFound)
    with web.database.read() as db:
        assert db.query(Dnc).count() == 3000
