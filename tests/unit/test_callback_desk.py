"""Callbacks in the hands of supervisors: found, cancelled, begun anew, assigned, taken away; on both databases."""

from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from doubles.company import NUMBER, agent_state, ask, callback, change_site, found_company, step
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from doubles.web import Web, code, web
from redis import Redis
from sqlalchemy import select, text

from bridge.domain.attempts import AttemptState
from bridge.domain.calls import Cause
from bridge.domain.reasons import WORDS, words_of
from bridge.domain.retrying import RULES
from bridge.live import keys
from bridge.services import dialling, sweeping
from bridge.services.dialling import Claimed
from bridge.store import migrate
from bridge.store.database import WRITES
from bridge.store.models import Agent, AgentState, Audit, Call, Callback, Client, Dnc, Site

__all__ = ["web"]
OTHER = "+16465550102"
HOUR = timedelta(hours=1)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def boss(web: Web) -> str:
    """A supervisor of a small company with one agent at a phone."""
    found_company(web.database, now=now() - HOUR)
    return web.person("boss", "supervisor")


def wish(web: Web, redis: Redis, number: str = NUMBER, **more: Any) -> str:
    return ask(web.database, redis, web.settings, number, now=now(), **more).id


def end(web: Web, callback_id: str, status: str = "failed", reason: str | None = "no_answer") -> str:
    with web.database.begin() as db:
        row = db.get_one(Callback, callback_id)
        row.status, row.reason, row.ended_at = status, reason, now()
    return callback_id


def found(web: Web, token: str, **query: str) -> list[str]:
    answer = web.ask("GET", "/api/v1/callbacks", token, query_string=query)
    assert answer.status_code == 200, answer.data
    return [row["id"] for row in answer.get_json()["items"]]


def do(web: Web, token: str, what: str, *ids: str, **more: Any) -> list[tuple[bool, str | None]]:
    """What became of each."""
    answer = web.ask("POST", f"/api/v1/callbacks/{what}", token, json={"ids": list(ids), **more})
    assert answer.status_code == 200, answer.data
    body = answer.get_json()
    assert body["done"] + body["refused"] == len(body["results"])
    return [(row["ok"], row["code"]) for row in body["results"]]


def claim(web: Web, redis: Redis, callback_id: str) -> dialling.Claim:
    return dialling.claim(web.database, redis, web.settings, callback_id, now=now())


def audited(web: Web, action: str) -> list[tuple[str, str, dict[str, Any]]]:
    with web.database.read() as db:
        rows = db.scalars(select(Audit).where(Audit.action == action).order_by(Audit.id))
        return [(row.actor, row.object, row.detail) for row in rows]


def their_callback(web: Web) -> str:
    """One of a client that the first client's people know nothing of."""
    with web.database.begin() as db:
        db.add(Client(id="theirs", name="Theirs", created_at=now()))
        db.flush()
        db.add(Site(id="their-shop", client_id="theirs", key="k2", name="Secret", created_at=now()))
        db.flush()
        row = Callback(client_id="theirs", site_id="their-shop", number=OTHER, status="queued",
                       created_at=now(), due_at=now(), expires_at=now() + HOUR)  # fmt: skip
        db.add(row)
    return row.id


# --- found ---


def test_a_callback_tells_its_promise_its_attempts_and_what_to_do(web: Web, boss: str, redis: Redis) -> None:
    made = wish(web, redis, name="Ann")
    attempt = claim(web, redis, made).attempt
    assert attempt is not None
    begun = now()
    for seconds, state in enumerate((AttemptState.DIALING, AttemptState.RINGING)):
        step(web.database, attempt, state, now=begun + timedelta(seconds=seconds))
    step(web.database, attempt, AttemptState.FAILED, "wrong_number", 1, now=begun + timedelta(seconds=9), over=True)
    row = web.ask("GET", "/api/v1/callbacks", boss).get_json()["items"][0]
    assert (row["id"], row["number"], row["site"], row["client"]) == (made, NUMBER, "Shop", "Acme")
    assert (row["status"], row["reason"], row["tries"]) == ("failed", "wrong_number", 1)
    assert (row["reason_text"], row["next_step"]) == (WORDS["wrong_number"].said, WORDS["wrong_number"].next)
    assert row["promised_at"] and row["ended_at"] and row["connected_at"] is None
    assert datetime.fromisoformat(row["rang_at"]) == begun + timedelta(seconds=1)
    [tried] = row["attempts"]
    assert (tried["agent"], tried["reason"], tried["rang_at"]) == ("agent-1", "wrong_number", row["rang_at"])


def test_who_was_talked_with_is_said_with_the_time(web: Web, boss: str, redis: Redis) -> None:
    attempt = claim(web, redis, wish(web, redis)).attempt
    assert attempt is not None
    begun = now()
    step(web.database, attempt, AttemptState.CONNECTED, now=begun)
    row = web.ask("GET", "/api/v1/callbacks", boss).get_json()["items"][0]
    assert datetime.fromisoformat(row["connected_at"]) == begun == datetime.fromisoformat(row["rang_at"])


def test_filters_and_counts(web: Web, boss: str, redis: Redis) -> None:
    failed, waits = end(web, wish(web, redis)), wish(web, redis, OTHER)
    assert found(web, boss) == [waits, failed]
    assert found(web, boss, status="failed,expired") == [failed]
    assert found(web, boss, site_id="shop", status="queued") == [waits]
    assert found(web, boss, source="web", limit="1") == [waits] and found(web, boss, source="missed") == []
    assert found(web, boss, site_id="nowhere") == [] == found(web, boss, client_id="nobody")
    answer = web.ask("GET", "/api/v1/callbacks?status=failed", boss).get_json()
    assert answer["counts"] == {"failed": 1, "queued": 1}
    first = web.ask("GET", "/api/v1/callbacks?limit=1", boss).get_json()
    second = web.ask("GET", f"/api/v1/callbacks?limit=1&cursor={first['next']}", boss).get_json()
    assert [first["items"][0]["id"], second["items"][0]["id"]] == [waits, failed]
    assert (second["next"], second["counts"]) == (None, None)
    for query, field in (
        ("status=lost", "status"), ("status=", "status"), ("day=yesterday", "day"), ("timezone=Mars", "timezone"),
        ("day=9999-12-31&timezone=America/New_York", "day"), ("cursor=x", "cursor"), ("limit=0", "limit"),
        ("order=number", "order"),
    ):  # fmt: skip
        assert code(web.ask("GET", f"/api/v1/callbacks?{query}", boss))[::2] == (422, field), query


def test_a_day_is_that_of_the_zone_and_holds_what_was_overdue_on_it(web: Web, boss: str) -> None:
    noon = datetime(2026, 3, 8, 16, 0, tzinfo=UTC)  # in New York a day of 23 hours
    with web.database.begin() as db:
        for name, created, due, ended in (
            ("of that day", 0, 0, None), ("just before", -12, -12, -11.5), ("first hour", -10.9, -10.9, -10),
            ("overdue", -40, -30, 48), ("ended then", -40, -30, 1), ("of the next", 12.1, 12.1, None),
            ("for the next", -40, 20, None),
        ):  # fmt: skip
            db.add(Callback(
                client_id="acme", site_id="shop", number=NUMBER, name=name, created_at=noon + created * HOUR,
                status="queued" if ended is None else "failed", due_at=noon + due * HOUR, expires_at=noon + 99 * HOUR,
                ended_at=None if ended is None else noon + ended * HOUR,
            ))  # fmt: skip
    answer = web.ask("GET", "/api/v1/callbacks?day=2026-03-08&timezone=America/New_York", boss).get_json()
    assert {row["name"] for row in answer["items"]} == {"of that day", "first hour", "overdue", "ended then"}


def test_a_number_is_found_as_people_write_it_and_is_no_pattern(web: Web, boss: str, redis: Redis) -> None:
    mine = wish(web, redis)
    wish(web, redis, OTHER)
    for typed in (NUMBER, "1 (646) 555-0101", "646.555.0101", "646 555 0101", "0101", "5550101", "555-0101", " 0101 "):
        assert found(web, boss, number=typed) == [mine], typed
    arabic = "\u0661\u0662\u0663\u0664"
    for typed in ("%", "____", "%0101", "1-800-FLOWERS", "646*", "01", "' OR 1=1 --", "0101\u0660", "+", "...", arabic):
        answer = web.ask("GET", "/api/v1/callbacks", boss, query_string={"number": typed})
        assert code(answer) == (422, "number_invalid", "number"), typed


def test_nobody_but_leaders_and_nothing_of_another_client(web: Web, boss: str, redis: Redis) -> None:
    ours, theirs = wish(web, redis), their_callback(web)
    scoped = web.person("scoped", "supervisor", "acme")
    assert found(web, scoped) == [ours]
    assert found(web, scoped, client_id="theirs") == found(web, scoped, number=OTHER) == []
    for what, more in (("cancel", {}), ("requeue", {}), ("assign", {"agent_id": None})):
        assert do(web, scoped, what, theirs, **more) == [(False, "not_found")]
        # Neither is one that is not there.
        assert do(web, scoped, what, "x", **more) == [(False, "not_found")]
    assert "Secret" not in web.ask("GET", "/api/v1/callbacks/export", scoped).get_data(as_text=True)
    assert callback(web.database, theirs).status == "queued"
    for role in ("agent", "viewer"):
        token = web.person(role, role, "acme")
        assert code(web.ask("GET", "/api/v1/callbacks", token))[0] == 403
        assert code(web.ask("GET", "/api/v1/callbacks/export", token))[0] == 403
        assert code(web.ask("POST", "/api/v1/callbacks/cancel", token, json={"ids": [ours]}))[0] == 403
    assert code(web.ask("GET", "/api/v1/callbacks"))[0] == 401


def test_what_is_for_supervisors_is_read_by_no_shops_page(web: Web, boss: str) -> None:
    change_site(web.database, origins=["https://shop.example"])
    for path in ("", "/export"):
        answer = web.ask("GET", f"/api/v1/callbacks{path}", boss, headers={"Origin": "https://shop.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers
    for what in ("cancel", "requeue", "assign"):
        asked = {"headers": {"Origin": "https://shop.example"}, "json": {"ids": ["x"]}}
        answer = web.ask("POST", f"/api/v1/callbacks/{what}", boss, **asked)
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_list_that_is_too_long_is_refused_whole(web: Web, boss: str, redis: Redis) -> None:
    mine = wish(web, redis)
    many = {"ids": [mine, *(f"x{n}" for n in range(200))]}
    assert code(web.ask("POST", "/api/v1/callbacks/cancel", boss, json=many)) == (422, "too_long", "ids")
    ten_thousand = {"ids": [f"{n:036}" for n in range(10_000)]}
    assert code(web.ask("POST", "/api/v1/callbacks/cancel", boss, json=ten_thousand))[0] == 413
    for ids in ([], ["x" * 37], [1], None, "x"):
        assert code(web.ask("POST", "/api/v1/callbacks/cancel", boss, json={"ids": ids}))[0] == 422
    assert callback(web.database, mine).status == "queued"


# --- cancelled ---


def test_cancel_in_bulk_says_what_became_of_each(web: Web, boss: str, redis: Redis) -> None:
    rings, talks, waits = (wish(web, redis, f"+1646555010{n}", ip=f"192.0.2.{n}") for n in (1, 2, 3))
    over = end(web, wish(web, redis, "+16465550104", ip="192.0.2.4"))
    attempts = []
    for callback_id, state in ((rings, AttemptState.RINGING), (talks, AttemptState.CONNECTED)):
        with web.database.begin() as db:
            db.get_one(AgentState, "agent-1").reserved_by = None
        attempt = claim(web, redis, callback_id).attempt
        assert attempt is not None
        step(web.database, attempt, state, now=now())
        attempts.append(attempt)
    got = do(web, boss, "cancel", waits, rings, talks, over, waits, "x")
    assert got == [(True, None), (True, None), (False, "connected"), (False, "ended"), (False, "not_found")]
    for callback_id in (waits, rings):
        row = callback(web.database, callback_id)
        assert (row.status, row.reason) == ("cancelled", "cancelled_by_supervisor")
    assert audited(web, "callbacks.cancel") == [
        ("boss", waits, {"was": "queued"}), ("boss", rings, {"was": "calling_customer"}),
    ]  # fmt: skip


# --- begun anew ---


def test_a_failed_one_begins_anew_as_a_row_of_its_own(web: Web, boss: str, redis: Redis) -> None:
    old = end(web, wish(web, redis, name="Ann", note="tank", consent="I agree."))
    [result] = web.ask("POST", "/api/v1/callbacks/requeue", boss, json={"ids": [old]}).get_json()["results"]
    row, before = callback(web.database, result["callback"]), callback(web.database, old)
    assert (row.requeued_from, row.status, row.tries, row.reason) == (old, "queued", 0, None)
    assert (row.name, row.note, row.number, row.consent_number) == ("Ann", "tank", NUMBER, before.consent_number)
    assert row.promised_at is None and before.status == "failed"
    assert redis.llen("rq:queue:dial") == 2
    assert audited(web, "callbacks.requeue") == [("boss", row.id, {"requeued_from": old, "reason": "no_answer"})]
    shown = {item["id"]: item for item in web.ask("GET", "/api/v1/callbacks", boss).get_json()["items"]}
    assert (shown[old]["requeued_as"], shown[row.id]["requeued_from"]) == (row.id, old)
    assert do(web, boss, "requeue", old) == [(False, "already_requeued")]
    assert claim(web, redis, row.id).result is Claimed.YES
    assert do(web, boss, "requeue", row.id) == [(False, "not_ended")]
    # One that ended anew begins anew again.
    attempt = callback(web.database, row.id).held_by
    assert attempt is not None
    step(web.database, attempt, AttemptState.FAILED, "outcome_unknown", now=now(), over=True)
    assert do(web, boss, "requeue", row.id) == [(True, None)]


def test_what_may_begin_anew(web: Web, boss: str, redis: Redis) -> None:
    for n, (status, reason, said) in enumerate(
        (
            ("expired", "not_reached_in_time", None),
            ("failed", "outcome_unknown", None),
            ("cancelled", "cancelled_by_supervisor", None),
            ("cancelled", "cancelled_by_visitor", "cancelled_by_visitor"),
            ("done", "completed", "done"),
            ("queued", None, "not_ended"),
        )
    ):
        old = wish(web, redis, f"+1646555011{n}", ip=f"192.0.2.{n}")
        if status != "queued":
            end(web, old, status, reason)
        assert do(web, boss, "requeue", old) == [(said is None, said)], status


def test_it_passes_what_a_new_one_passes(web: Web, boss: str, redis: Redis) -> None:
    old = end(web, wish(web, redis))
    answer = web.ask("POST", "/api/v1/dnc", boss, json={"client_id": "acme", "number": NUMBER})
    assert answer.status_code == 201
    assert do(web, boss, "requeue", old) == [(False, "do_not_call")]
    with web.database.begin() as db:
        db.delete(db.scalars(select(Dnc)).one())
    change_site(web.database, regions=["DE"])
    assert do(web, boss, "requeue", old) == [(False, "region_not_allowed")]
    change_site(web.database, regions=[], active=False)
    assert do(web, boss, "requeue", old) == [(False, "site_closed")]
    change_site(web.database, active=True, when_closed="refuse")
    body = {"client_id": "acme", "name": "never", "timezone": "UTC"}
    admin = web.person("admin")
    closed = web.ask("POST", "/api/v1/calendars", admin, json=body).get_json()["id"]
    change_site(web.database, calendar_id=closed)
    assert do(web, boss, "requeue", old) == [(False, "outside_hours")]
    change_site(web.database, calendar_id=None, limits={"per_number_day": 1})
    assert do(web, boss, "requeue", old) == [(False, "rate_limited")]
    change_site(web.database, limits={})
    with web.database.begin() as db:
        db.add(Call(id="c", client_id="acme", pbx="lab", customer_number=NUMBER, started_at=now(), connected_at=now()))
    assert do(web, boss, "requeue", old) == [(False, "got_through")]
    with web.database.begin() as db:
        db.delete(db.get_one(Call, "c"))
    again = wish(web, redis, ip="192.0.2.9")
    assert do(web, boss, "requeue", old) == [(False, "already_waiting")]
    end(web, again)
    assert audited(web, "callbacks.requeue") == []
    # None of the refused ones counted towards the day's three.
    assert do(web, boss, "requeue", old) == [(True, None)]


def test_two_supervisors_at_once_begin_one(web: Web, boss: str, redis: Redis) -> None:
    olds = [end(web, wish(web, redis)), end(web, wish(web, redis, ip="192.0.2.2"))]
    web.app.extensions["ringbridge"].database.close()
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: do(web, boss, "requeue", olds[n % 2])[0], range(8)))
    assert sum(ok for ok, _ in got) == 1
    assert {reason for ok, reason in got if not ok} <= {"already_requeued", "already_waiting"}
    with web.database.read() as db:
        assert len(list(db.scalars(select(Callback).where(Callback.requeued_from.is_not(None))))) == 1


# --- assigned ---


def test_an_assigned_one_waits_for_its_agent_and_lets_others_pass(web: Web, boss: str, redis: Redis) -> None:
    web.person("zoe", "agent", devices=["PJSIP/199"])
    zoe = web.agent_id("zoe")
    mine, other = wish(web, redis), wish(web, redis, OTHER)
    assert do(web, boss, "assign", mine, agent_id=zoe) == [(True, None)]
    shown = {row["id"]: row for row in web.ask("GET", "/api/v1/callbacks", boss).get_json()["items"]}
    assert shown[mine]["assigned"] == {"name": "zoe", "state": "offline"}
    assert found(web, boss, assigned_to=zoe) == [mine]
    assert claim(web, redis, mine).result is Claimed.NO_AGENT
    assert callback(web.database, mine).status == "queued"
    later = now() + timedelta(seconds=10)
    with web.database.read() as db:
        # It stands first, but not in the way.
        assert [row.id for row in dialling.waiting(db, later, 1, test_mode=False)] == [other]
    assert claim(web, redis, other).result is Claimed.YES
    other = wish(web, redis, "+16465550103", ip="192.0.2.3")
    body = {"state": "ready", "device": "PJSIP/199"}
    assert web.ask("PUT", "/api/v1/me/state", web.tokens["zoe"], json=body).status_code == 200
    with web.database.read() as db:
        assert [row.id for row in dialling.waiting(db, later, 1, test_mode=False)] == [mine]
    assert claim(web, redis, mine).result is Claimed.YES
    assert agent_state(web.database, zoe).reserved_by is not None
    assert callback(web.database, other).held_by is None
    assert ("boss", mine, {"agent": zoe}) in audited(web, "callbacks.assign")


def test_one_whose_agent_stays_away_expires_like_others(web: Web, boss: str, redis: Redis) -> None:
    web.person("zoe", "agent")
    mine = wish(web, redis)
    do(web, boss, "assign", mine, agent_id=web.agent_id("zoe"))
    assert sweeping.sweep(web.database, redis, web.settings, now=now() + 9 * HOUR).expired == 1
    row = callback(web.database, mine)
    assert (row.status, row.reason) == ("expired", "not_reached_in_time")


def test_an_agent_who_may_not_any_more_gives_it_back_to_anyone(web: Web, boss: str, redis: Redis) -> None:
    their_callback(web)
    lapsed = []
    for n, (name, value) in enumerate((("active", False), ("role", "viewer"), ("client_id", "theirs"))):
        web.person(f"zoe{n}", "agent")
        zoe, mine = web.agent_id(f"zoe{n}"), wish(web, redis, f"+1646555011{n}", ip=f"192.0.2.{n}")
        do(web, boss, "assign", mine, agent_id=zoe)
        with web.database.begin() as db:
            setattr(db.get_one(Agent, zoe), name, value)
            db.get_one(AgentState, "agent-1").reserved_by = None
        with web.database.read() as db:
            ready = dialling.waiting(db, now() + timedelta(seconds=10), 5, test_mode=False)
            assert mine in [row.id for row in ready]
        assert claim(web, redis, mine).result is Claimed.YES
        assert callback(web.database, mine).assigned_to is None
        lapsed.append(("ringbridge", mine, {"agent": zoe}))
    assert audited(web, "callbacks.unassign") == lapsed


def test_whom_callbacks_are_given_to(web: Web, boss: str, redis: Redis) -> None:
    theirs, mine = their_callback(web), wish(web, redis)
    over = end(web, wish(web, redis, OTHER))
    web.person("ours", "agent", "acme")
    web.person("vic", "viewer", "acme")
    web.person("gone", "agent", active=False)
    ours = web.agent_id("ours")
    got = do(web, boss, "assign", mine, over, theirs, agent_id=ours)
    assert got == [(True, None), (False, "ended"), (False, "agent_of_other_client")]
    for agent in ("nobody", web.agent_id("vic"), web.agent_id("gone")):
        answer = web.ask("POST", "/api/v1/callbacks/assign", boss, json={"ids": [mine], "agent_id": agent})
        assert code(answer) == (422, "invalid", "agent_id")
    assert code(web.ask("POST", "/api/v1/callbacks/assign", boss, json={"ids": [mine]}))[::2] == (422, "agent_id")
    assert do(web, boss, "assign", mine, agent_id=None) == [(True, None)]
    assert callback(web.database, mine).assigned_to is None


def test_pages_hear_of_it(web: Web, boss: str, redis: Redis) -> None:
    mine = wish(web, redis)
    before = redis.xlen(keys.SCREENS)
    do(web, boss, "assign", mine, agent_id="agent-1")
    do(web, boss, "cancel", mine)
    do(web, boss, "requeue", mine)
    heard = [fields["to"] for _, fields in redis.xrange(keys.SCREENS)][before:]
    assert heard.count("supervisors") == 3


# --- taken away ---


def test_the_export_is_for_spreadsheets_and_runs_nothing_in_them(web: Web, boss: str, redis: Redis) -> None:
    links = '=HYPERLINK("http://x","a")'
    hostile = [links, "+1", "-1", "@SUM(1)", " =1+1", "\uff1d1+1", 'a";b,c', "\u202eevil", "王小明"]
    for n, name in enumerate(hostile):
        wish(web, redis, f"+1646555010{n}", name=name, ip=f"192.0.2.{n}")
    day = now().date().isoformat()
    answer = web.ask("GET", f"/api/v1/callbacks/export?day={day}&timezone=UTC", boss)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="callbacks-{day}.csv"'
    raw = answer.get_data()
    assert raw.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))
    assert len(rows) == len(hostile)
    for row, name in zip(reversed(rows), hostile, strict=True):
        assert row["name"] in (name, f"'{name}")
        for cell in row.values():
            assert not cell.strip().startswith(("=", "+", "-", "@", "\uff1d")), row
    assert [row["name"] for row in rows[:3]] == ["王小明", "\u202eevil", 'a";b,c']
    assert rows[0]["number"] == "'+16465550108"
    assert datetime.fromisoformat(rows[0]["asked_at"]).utcoffset() == timedelta(0)
    there = web.ask("GET", "/api/v1/callbacks/export?timezone=Asia/Kolkata", boss).get_data().decode("utf-8-sig")
    assert next(csv.DictReader(io.StringIO(there)))["asked_at"].endswith("+05:30")
    [first, second] = audited(web, "callbacks.export")
    assert (first[0], first[2]) == ("boss", {"rows": len(hostile), "status": [], "day": day})
    assert "day" not in second[2]


def test_an_export_is_whole_or_refused(web: Web, boss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with web.database.begin() as db:
        db.add_all(
            Callback(client_id="acme", site_id="shop", number=NUMBER, name=str(n), status="queued",
                     created_at=now(), due_at=now(), expires_at=now())
            for n in range(450)
        )  # fmt: skip
    text_of = web.ask("GET", "/api/v1/callbacks/export", boss).get_data().decode("utf-8-sig")
    assert {row["name"] for row in csv.DictReader(io.StringIO(text_of))} == {str(n) for n in range(450)}
    monkeypatch.setattr("bridge.services.callback_list.EXPORT_MOST", 449)
    assert code(web.ask("GET", "/api/v1/callbacks/export", boss)) == (422, "too_many_rows", "day")
    answer = web.ask("GET", "/api/v1/callbacks/export?number=%25", boss)
    assert code(answer) == (422, "number_invalid", "number")
    assert len(audited(web, "callbacks.export")) == 1


# --- words, and what was there before ---


def test_every_reason_that_a_rule_gives_has_words() -> None:
    assert {str(cause) for cause in Cause} | set(RULES) <= set(WORDS)
    folder = Path(sweeping.__file__).parent
    written = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for reason in ("not_reached_in_time", "no_more_tries", "site_closed", "cancelled_by_visitor", "no_news"):
        assert reason in WORDS and f'"{reason}"' in written
    assert words_of("something_new").said == "Something new."
    assert words_of(None).said == ""


def test_the_migration_goes_both_ways_and_old_rows_keep_their_meaning(web: Web, boss: str, redis: Redis) -> None:
    mine = wish(web, redis)
    with web.database.engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        command.downgrade(migrate._config(connection), "0010")
        connection.execute(text("SELECT id FROM callbacks")).one()
        command.upgrade(migrate._config(connection), "head")
        assert migrate.differences(connection) == []
    row = callback(web.database, mine)
    assert (row.assigned_to, row.requeued_from) == (None, None)
    assert claim(web, redis, mine).result is Claimed.YES
