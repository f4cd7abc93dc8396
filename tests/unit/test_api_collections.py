"""The collections: what may be kept, what is refused, paging, and who sees whose."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from doubles.web import Web, code, web
from redis import Redis

from bridge.live import keys
from bridge.store.models import Call, Callback, Site

__all__ = ["web"]


@pytest.fixture
def admin(web: Web) -> str:
    return web.person("admin")


def make(web: Web, token: str, path: str, **body: Any) -> dict[str, Any]:
    answer = web.ask("POST", f"/api/v1/{path}", token, json=body)
    assert answer.status_code == 201, answer.data
    return answer.get_json()


def hours_of(day: str, *spans: tuple[str, str]) -> dict[str, Any]:
    """A calendar's body with the hours of one day."""
    hours = [{"opens": opens, "closes": closes} for opens, closes in spans]
    return {"client_id": "CLIENT", "name": "x", "timezone": "UTC", "weekly": {day: hours}}


def special_of(*days: str) -> dict[str, Any]:
    """A calendar's body that is closed on these days."""
    days_off = [{"date": day} for day in days]
    return {"client_id": "CLIENT", "name": "x", "timezone": "UTC", "special_days": days_off}


def test_a_client_company_with_all_that_is_its_own(web: Web, admin: str) -> None:
    client = make(web, admin, "clients", name="Smith & Sons, {Ltd} | $5", timezone="America/New_York",
                  card={"hours": "9-5"})  # fmt: skip
    script = make(web, admin, "scripts", client_id=client["id"], name="Hello", body="# Hi\n\nHow are you?")
    did = make(web, admin, "dids", client_id=client["id"], number="(212) 555-0101", script_id=script["id"])
    assert did["number"] == "+12125550101"
    site = make(
        web, admin, "sites", client_id=client["id"], name="Main", origins=["https://www.example.com:443"],
        regions=["US"], limits={"tries": 2}, order="customer_first",
    )  # fmt: skip
    assert site["origins"] == ["https://www.example.com"]
    assert site["limits"] == {"tries": 2}
    assert len(site["key"]) >= 16
    customer = make(web, admin, "customers", client_id=client["id"], name="Jo", numbers=["+1 646 555 0107"])
    assert customer["numbers"] == ["+16465550107"]
    found = web.ask("GET", "/api/v1/customers?number=%2B16465550107", admin).get_json()
    assert [row["id"] for row in found["items"]] == [customer["id"]]
    changed = web.ask("PATCH", f"/api/v1/customers/{customer['id']}", admin, json={"numbers": ["2125550199"]})
    assert changed.get_json()["numbers"] == ["+12125550199"]
    agent = make(web, admin, "agents", username="Ada.L", password="long enough", name="Ada", role="agent",
                 devices=["PJSIP/101", "user/101", "user/101@pbx.example"])  # fmt: skip
    assert agent["username"] == "ada.l"
    assert "password" not in str(agent)


def test_a_changed_script_is_a_new_version_that_dids_and_sites_use(web: Web, admin: str) -> None:
    client = make(web, admin, "clients", name="A")["id"]
    first = make(web, admin, "scripts", client_id=client, name="Hello", body="one")
    did = make(web, admin, "dids", client_id=client, number="+12125550101", script_id=first["id"])
    second = web.ask("PATCH", f"/api/v1/scripts/{first['id']}", admin, json={"body": "two"}).get_json()
    assert (second["version"], second["body"]) == (2, "two")
    assert second["id"] != first["id"]
    assert web.ask("GET", f"/api/v1/scripts/{first['id']}", admin).get_json()["body"] == "one"
    assert web.ask("GET", f"/api/v1/dids/{did['id']}", admin).get_json()["script_id"] == second["id"]
    renamed = web.ask("PATCH", f"/api/v1/scripts/{second['id']}", admin, json={"name": "Hi"}).get_json()
    assert (renamed["version"], renamed["body"]) == (1, "two")
    assert web.ask("GET", f"/api/v1/dids/{did['id']}", admin).get_json()["script_id"] == renamed["id"]


def test_what_is_in_use_is_not_deleted(web: Web, admin: str) -> None:
    client = make(web, admin, "clients", name="A")["id"]
    did = make(web, admin, "dids", client_id=client, number="+12125550101")["id"]
    assert code(web.ask("DELETE", f"/api/v1/clients/{client}", admin))[:2] == (409, "in_use")
    assert web.ask("DELETE", f"/api/v1/dids/{did}", admin).status_code == 204
    assert web.ask("DELETE", f"/api/v1/clients/{client}", admin).status_code == 204
    assert code(web.ask("GET", f"/api/v1/clients/{client}", admin))[:2] == (404, "not_found")


def test_hours_that_a_site_keeps_are_not_deleted(web: Web, admin: str) -> None:
    client, other = make(web, admin, "clients", name="A")["id"], make(web, admin, "clients", name="B")["id"]
    body = {"client_id": client, "name": "Office", "timezone": "Europe/Berlin", "country": "DE"}
    first, second = (make(web, admin, "calendars", **body)["id"] for _ in range(2))
    foreign = make(web, admin, "calendars", **{**body, "client_id": other})["id"]
    site = make(web, admin, "sites", client_id=client, name="s", calendar_id=first, queue_calendars={"x": second})
    assert (site["calendar_id"], site["queue_calendars"], site["when_closed"]) == (first, {"x": second}, "next_open")
    for row in (first, second):
        assert code(web.ask("DELETE", f"/api/v1/calendars/{row}", admin))[:2] == (409, "in_use")
    path = f"/api/v1/sites/{site['id']}"
    assert code(web.ask("PATCH", path, admin, json={"calendar_id": foreign}))[::2] == (422, "calendar_id")
    assert web.ask("PATCH", path, admin, json={"calendar_id": None, "queue_calendars": {}}).status_code == 200
    for row in (first, second):
        assert web.ask("DELETE", f"/api/v1/calendars/{row}", admin).status_code == 204


def test_a_site_calls_back_who_missed_its_own_clients_numbers(web: Web, admin: str) -> None:
    client, other = make(web, admin, "clients", name="A")["id"], make(web, admin, "clients", name="B")["id"]
    make(web, admin, "dids", client_id=client, number="+12125550101")
    make(web, admin, "dids", client_id=other, number="+12125550102")
    site = make(web, admin, "sites", client_id=client, name="s")
    assert site["missed"] == {}
    path = f"/api/v1/sites/{site['id']}"
    changed = web.ask("PATCH", path, admin, json={"missed": {"dids": ["(212) 555-0101", "+12125550101"]}}).json
    assert changed["missed"] == {"dids": ["+12125550101"]}
    foreign = web.ask("PATCH", path, admin, json={"missed": {"dids": ["+12125550101", "+12125550102"]}})
    assert code(foreign)[::2] == (422, "missed.dids.1")


def test_a_changed_calendar_must_still_make_sense(web: Web, admin: str) -> None:
    client = make(web, admin, "clients", name="A")["id"]
    made = make(web, admin, "calendars", client_id=client, name="Office", timezone="Europe/Berlin", country="DE",
                subdivision="BY", weekly={"monday": [{"opens": "09:00", "closes": "24:00"}]})  # fmt: skip
    assert made["weekly"]["monday"] == [{"opens": "09:00", "closes": "24:00", "agents": None}]
    assert (made["slot_minutes"], made["ahead_days"], made["agents"]) == (30, 14, None)
    path = f"/api/v1/calendars/{made['id']}"
    assert code(web.ask("PATCH", path, admin, json={"country": "PL"}))[::2] == (422, "subdivision")
    changed = web.ask("PATCH", path, admin, json={"country": "PL", "subdivision": None}).get_json()
    assert (changed["country"], changed["subdivision"], changed["timezone"]) == ("PL", None, "Europe/Berlin")
    week = {"friday": [{"opens": "10:00", "closes": "11:00"}]}
    changed = web.ask("PATCH", path, admin, json={"weekly": week}).get_json()
    assert changed["weekly"]["monday"] == [] and len(changed["weekly"]["friday"]) == 1


def test_what_must_be_unique_names_its_field(web: Web, admin: str) -> None:
    client = make(web, admin, "clients", name="A")["id"]
    make(web, admin, "dids", client_id=client, number="+12125550101")
    for path, body, field in (
        ("clients", {"name": "A"}, "name"),
        ("dids", {"client_id": client, "number": "212 555 0101"}, "number"),
        ("agents", {"username": "ADMIN", "password": "long enough", "name": "x", "role": "agent"}, "username"),
    ):
        answer = web.ask("POST", f"/api/v1/{path}", admin, json=body)
        assert code(answer) == (409, "conflict", field)
    same = web.ask("PATCH", f"/api/v1/clients/{client}", admin, json={"name": "A"})
    assert same.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("clients", {"name": ""}, "name"),
        ("clients", {"name": "x", "region": "XX"}, "region"),
        ("clients", {"name": "x", "timezone": "Mars/Base"}, "timezone"),
        ("clients", {"name": "x", "timezone": "../../etc/passwd"}, "timezone"),
        ("clients", {"name": "x", "colour": "red"}, "colour"),
        ("clients", {"name": "x", "active": "yes"}, "active"),
        ("clients", {"name": "x", "card": {"secret": "x"}}, "card.secret"),
        ("clients", {"name": "a\r\nb"}, "name"),
        ("clients", {"name": "a\u0000b"}, "name"),
        ("clients", {"name": "a\u2028b"}, "name"),
        ("clients", {"name": "a\ud800b"}, "name"),
        ("clients", {"name": "x", "greeting": "a\nb"}, "greeting"),
        ("clients", {"name": "x" * 201}, "name"),
        ("clients", {}, "name"),
        ("dids", {"number": "+12125550101"}, "client_id"),
        ("dids", {"client_id": "CLIENT", "number": "hello"}, "number"),
        ("dids", {"client_id": "CLIENT", "number": 12125550101}, "number"),
        ("dids", {"client_id": "CLIENT", "number": "+12125550101", "script_id": "nope"}, "script_id"),
        ("sites", {"client_id": "CLIENT", "name": "x", "origins": ["https://*.example.com"]}, "origins.0"),
        ("sites", {"client_id": "CLIENT", "name": "x", "origins": ["example.com"]}, "origins.0"),
        ("sites", {"client_id": "CLIENT", "name": "x", "origins": ["https://a.example/x"]}, "origins.0"),
        ("sites", {"client_id": "CLIENT", "name": "x", "origins": ["javascript://a"]}, "origins.0"),
        ("sites", {"client_id": "CLIENT", "name": "x", "origins": ["https://a:b@c.example"]}, "origins.0"),
        ("sites", {"client_id": "CLIENT", "name": "x", "limits": {"tries": 0}}, "limits.tries"),
        ("sites", {"client_id": "CLIENT", "name": "x", "limits": {"luck": 1}}, "limits.luck"),
        ("sites", {"client_id": "CLIENT", "name": "x", "limits": {"tries": 1.5}}, "limits.tries"),
        ("sites", {"client_id": "CLIENT", "name": "x", "order": "both"}, "order"),
        ("sites", {"client_id": "CLIENT", "name": "x", "caller_id": "911"}, "caller_id"),
        ("sites", {"client_id": "CLIENT", "name": "x", "calendar_id": "nope"}, "calendar_id"),
        ("sites", {"client_id": "CLIENT", "name": "x", "queue_calendars": {"q": "nope"}}, "queue_calendars.q"),
        ("sites", {"client_id": "CLIENT", "name": "x", "when_closed": "call"}, "when_closed"),
        ("sites", {"client_id": "CLIENT", "name": "x", "missed": {"dids": ["+12125550199"]}}, "missed.dids.0"),
        ("sites", {"client_id": "CLIENT", "name": "x", "missed": {"dids": ["call me"]}}, "missed.dids.0"),
        ("sites", {"client_id": "CLIENT", "name": "x", "missed": {"luck": 1}}, "missed.luck"),
        ("sites", {"client_id": "CLIENT", "name": "x", "offer_queues": ["a,b"]}, "offer_queues.0"),
        ("sites", {"client_id": "CLIENT", "name": "x", "missed": {"delay_minutes": -1}}, "missed.delay_minutes"),
        ("calendars", {"client_id": "CLIENT", "name": "x"}, "timezone"),
        ("calendars", {"client_id": "CLIENT", "name": "x", "timezone": "Mars/Base"}, "timezone"),
        ("calendars", hours_of("monday", ("09:00", "25:00")), "weekly.monday.0.closes"),
        ("calendars", hours_of("monday", ("24:00", "24:00")), "weekly.monday.0.opens"),
        ("calendars", hours_of("monday", ("17:00", "09:00")), "weekly.monday.0.closes"),
        ("calendars", hours_of("monday", ("09:00", "12:00"), ("11:59", "13:00")), "weekly.monday.1.opens"),
        ("calendars", hours_of("mondays", ("09:00", "12:00")), "weekly.mondays"),
        ("calendars", special_of("2026-02-30"), "special_days.0.date"),
        ("calendars", special_of("2026-12-24", "2026-12-24"), "special_days.1.date"),
        ("calendars", special_of("24.12.2026"), "special_days.0.date"),
        ("calendars", {**special_of(), "country": "XX"}, "country"),
        ("calendars", {**special_of(), "country": "DE", "subdivision": "ZZ"}, "subdivision"),
        ("calendars", {**special_of(), "subdivision": "BY"}, "subdivision"),
        ("calendars", {**special_of(), "slot_minutes": 1}, "slot_minutes"),
        ("calendars", {**special_of(), "agents": -1}, "agents"),
        ("calendars", {**special_of(), "ahead_days": 91}, "ahead_days"),
        ("calendars", {**special_of(), "colour": "red"}, "colour"),
        ("customers", {"client_id": "CLIENT", "numbers": ["12"]}, "numbers.0"),
        ("customers", {"client_id": "CLIENT", "email": "no"}, "email"),
        ("agents", {"username": "a b", "password": "long enough", "name": "x", "role": "agent"}, "username"),
        ("agents", {"username": "a", "password": "short", "name": "x", "role": "agent"}, "password"),
        ("agents", {"username": "a", "password": "long enough", "name": "x", "role": "king"}, "role"),
        ("agents", {"username": "a", "password": "long enough", "name": "x", "role": "viewer"}, "client_id"),
        (
            "agents",
            {"username": "a", "password": "long enough", "name": "x", "role": "agent", "devices": ["Local/1@x"]},
            "devices.0",
        ),
        (
            "agents",
            {"username": "a", "password": "long enough", "name": "x", "role": "agent", "devices": ["PJSIP/1\n"]},
            "devices.0",
        ),
        (
            "agents",
            {"username": "a", "password": "long enough", "name": "x", "role": "agent", "devices": ["PJSIP/1@x"]},
            "devices.0",
        ),
        (
            "agents",
            {"username": "a", "password": "long enough", "name": "x", "role": "agent", "devices": ["user/" + 99 * "x"]},
            "devices.0",
        ),
        ("scripts", {"client_id": "CLIENT", "name": "x", "body": "a\u0000b"}, "body"),
    ],
)
def test_what_is_wrong_is_refused_and_named(
    web: Web, admin: str, path: str, body: dict[str, Any], field: str
) -> None:
    if body.get("client_id") == "CLIENT":
        body = {**body, "client_id": web.company("A")}
    status, _, named = code(web.ask("POST", f"/api/v1/{path}", admin, json=body))
    assert (status, named) == (422, field)


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (b"{", "application/json", (400, "json_invalid")),
        (b"", "application/json", (400, "json_invalid")),
        (b"[1]", "application/json", (422, "invalid")),
        (b'"x"', "application/json", (422, "invalid")),
        (b"\xff\xfe", "application/json", (400, "json_invalid")),
        (b'{"name": NaN}', "application/json", (400, "json_invalid")),
        (b'{"name": "a", "name": "b"}', "application/json", (400, "json_invalid")),
        (b"[" * 20_000, "application/json", (400, "json_invalid")),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "application/json", (400, "json_invalid")),
        (b'{"name": ' + b"9" * 5000 + b"}", "application/json", (400, "json_invalid")),
        (b'{"name": "' + b"x" * 70_000 + b'"}', "application/json", (413, "too_large")),
        (b"name=x", "application/x-www-form-urlencoded", (415, "media_type")),
        (b'{"name": "x"}', "text/plain", (415, "media_type")),
    ],
)
def test_a_body_that_is_no_json_of_ours(
    web: Web, admin: str, data: bytes, kind: str, expected: tuple[int, str]
) -> None:
    answer = web.ask("POST", "/api/v1/clients", admin, data=data, content_type=kind)
    assert code(answer)[:2] == expected
    assert answer.get_json(force=True)["field"] == "body"


def test_addresses_and_methods_that_are_not_there(web: Web, admin: str) -> None:
    assert code(web.ask("GET", "/api/v1/nothing"))[:2] == (404, "not_found")
    answer = web.ask("PUT", "/api/v1/clients", admin, json={})
    assert code(answer)[:2] == (405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]
    assert code(web.ask("GET", "/api/v1/clients/%00", admin))[0] == 404
    assert code(web.ask("GET", "/api/v1/clients?name=a%0D%0Ab", admin)) == (422, "control_character", "name")
    assert code(web.ask("GET", "/api/v1/clients?colour=red", admin)) == (422, "unknown_field", "colour")
    assert code(web.ask("GET", "/api/v1/clients?limit=5&limit=6", admin)) == (422, "invalid", "limit")
    for limit in ("0", "x", "100000"):
        assert code(web.ask("GET", f"/api/v1/clients?limit={limit}", admin))[::2] == (422, "limit")
    for cursor in ("x", "AAAA", "MjAyNi0wMS0wMQ"):
        assert code(web.ask("GET", f"/api/v1/clients?cursor={cursor}", admin)) == (422, "invalid", "cursor")


def test_lists_are_paged_without_gaps_or_repeats(web: Web, admin: str) -> None:
    for n in range(7):
        make(web, admin, "clients", name=f"Client {n}")
    seen: list[str] = []
    path = "/api/v1/clients?limit=3"
    cursor = None
    for expected in (3, 3, 1):
        page = web.ask("GET", path + (f"&cursor={cursor}" if cursor else ""), admin).get_json()
        assert len(page["items"]) == expected
        seen += [row["name"] for row in page["items"]]
        cursor = page["next"]
    assert cursor is None
    assert seen == [f"Client {n}" for n in reversed(range(7))]
    log = web.ask("GET", "/api/v1/audit?limit=2", admin).get_json()
    rest = web.ask("GET", f"/api/v1/audit?limit=2&cursor={log['next']}", admin).get_json()
    assert rest["items"][0]["id"] < log["items"][-1]["id"]


def test_each_change_is_audited_and_announced(web: Web, admin: str, redis: Redis) -> None:
    heard = redis.pubsub(ignore_subscribe_messages=True)
    heard.subscribe(keys.CHANGED)
    heard.get_message(timeout=1)
    client = make(web, admin, "clients", name="A")["id"]
    web.ask("PATCH", f"/api/v1/clients/{client}", admin, json={"name": "B"})
    web.ask("DELETE", f"/api/v1/clients/{client}", admin)
    names = [message["data"] for _ in range(3) if (message := heard.get_message(timeout=5))]
    heard.close()
    assert names == ["clients"] * 3
    rows = web.ask("GET", f"/api/v1/audit?object={client}", admin).get_json()["items"]
    assert [row["action"] for row in rows] == ["clients.delete", "clients.change", "clients.create"]


def test_roles_may_do_what_they_may(web: Web, admin: str) -> None:
    client = web.company("A")
    tokens = {role: web.person(role, role, client if role == "viewer" else None) for role in
              ("agent", "supervisor", "viewer")}  # fmt: skip
    new = {
        "clients": {"name": "new"},
        "dids": {"client_id": client, "number": "+12125550101"},
        "sites": {"client_id": client, "name": "x"},
        "customers": {"client_id": client, "name": "x"},
        "calendars": {"client_id": client, "name": "x", "timezone": "UTC"},
        "scripts": {"client_id": client, "name": "x", "body": "x"},
        "agents": {"username": "new", "password": "long enough", "name": "x", "role": "agent"},
    }
    may = {"agent": {"customers"}, "supervisor": {"customers", "scripts", "calendars"}, "viewer": set()}
    for role, token in tokens.items():
        for path, body in new.items():
            status = web.ask("POST", f"/api/v1/{path}", token, json=body).status_code
            assert (status == 201) == (path in may[role]), (role, path, status)
        for path in ("board", "audit", "agents"):
            status = web.ask("GET", f"/api/v1/{path}", token).status_code
            assert (status == 200) == (role == "supervisor"), (role, path)
        stop = web.ask("PUT", "/api/v1/dialing", token, json={"state": "stopped"})
        assert (stop.status_code == 200) == (role == "supervisor")
    assert web.ask("GET", "/api/v1/dialing", admin).get_json()["state"] == "stopped"


def test_nobody_changes_their_own_role_or_locks_themselves_out(web: Web, admin: str) -> None:
    me = web.agent_id("admin")
    for body in ({"active": False}, {"role": "agent"}):
        assert code(web.ask("PATCH", f"/api/v1/agents/{me}", admin, json=body))[:2] == (403, "forbidden")
    assert code(web.ask("DELETE", f"/api/v1/agents/{me}", admin))[:2] == (403, "forbidden")


def tenant(web: Web, admin: str, name: str, number: str) -> dict[str, str]:
    """A client with one row of everything; ids by collection."""
    client = make(web, admin, "clients", name=name)["id"]
    script = make(web, admin, "scripts", client_id=client, name="s", body=f"secret of {name}")["id"]
    rows = {
        "clients": client,
        "scripts": script,
        "dids": make(web, admin, "dids", client_id=client, number=number)["id"],
        "sites": make(web, admin, "sites", client_id=client, name=f"secret of {name}")["id"],
        "calendars": make(web, admin, "calendars", client_id=client, name=f"secret of {name}", timezone="UTC")["id"],
        "customers": make(
            web, admin, "customers", client_id=client, name=f"secret of {name}", numbers=[number]
        )["id"],
        "agents": make(web, admin, "agents", username=f"agent-{client[:8]}", password="long enough",
                       name=f"secret of {name}", role="agent", client_id=client)["id"],
        "calls": f"call-{client}",
    }  # fmt: skip
    now = datetime.now(UTC)
    with web.database.begin() as db:
        db.add(
            Call(id=rows["calls"], client_id=client, pbx="lab", started_at=now, note=f"secret of {name}")
        )
        db.add(
            Callback(
                created_at=now, client_id=client, site_id=rows["sites"], number=number, name=f"secret of {name}",
                due_at=now, expires_at=now, status="queued",
            )
        )  # fmt: skip
    return rows


@pytest.mark.parametrize("role", ["viewer", "supervisor", "agent", "administrator"])
def test_whoever_belongs_to_one_client_meets_nothing_of_another_anywhere(
    web: Web, admin: str, role: str
) -> None:
    ours = tenant(web, admin, "ours", "+12125550101")
    theirs = tenant(web, admin, "theirs", "+12125550102")
    token = web.person("scoped", role, ours["clients"])
    needles = [*theirs.values(), "theirs", "+12125550102"]
    asked = 0
    for rule in web.app.url_map.iter_rules():
        if not rule.rule.startswith("/api/v1/") or rule.endpoint == "docs.document":
            continue
        collection = rule.rule.split("/")[3]
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            path = rule.rule
            for name in ("<row_id>", "<call_id>"):
                path = path.replace(name, theirs.get(collection, "x"))
            path = path.replace("<pop_id>", f"{theirs['calls']}:x").replace("<callback_id>", "x")
            if rule.endpoint.startswith(("session.", "callbacks.")):
                continue
            body = {"name": "stolen", "note": "stolen", "disposition": "stolen", "answers": {}, "body": "x"}
            kept = {} if method in ("GET", "DELETE") else {"json": _fitting(web, rule.endpoint, method, body, theirs)}
            answer = web.ask(method, path, token, **kept)
            asked += 1
            if "<" in rule.rule:
                assert answer.status_code in (403, 404, 422), (method, path, answer.data)
            text = answer.get_data(as_text=True)
            assert not any(needle in text for needle in needles), (method, path, text)
    assert asked > 30
    for path, row in theirs.items():
        with web.database.read() as db:
            if path == "sites":
                assert db.get_one(Site, row).name == "secret of theirs"
        assert web.ask("GET", f"/api/v1/{path}/{row}", admin).status_code == 200


def _fitting(
    web: Web, endpoint: str, method: str, body: dict[str, Any], theirs: dict[str, str]
) -> dict[str, Any]:
    """A body that passes the schema of that view, aimed at the other client."""
    if endpoint.startswith("collections.adding"):
        return {
            "clients": {"name": "new"},
            "dids": {"client_id": theirs["clients"], "number": "+12125550109"},
            "sites": {"client_id": theirs["clients"], "name": "x"},
            "customers": {"client_id": theirs["clients"], "name": "x"},
            "calendars": {"client_id": theirs["clients"], "name": "x", "timezone": "UTC"},
            "scripts": {"client_id": theirs["clients"], "name": "x", "body": "x"},
            "agents": {
                "username": "new", "password": "long enough", "name": "x", "role": "agent",
                "client_id": theirs["clients"],
            },
        }[endpoint.rpartition("_")[2]]  # fmt: skip
    if endpoint.startswith("collections.changing"):
        collection = endpoint.rpartition("_")[2]
        return {"number": "+12125550110"} if collection == "dids" else {"name": "stolen"}
    return {
        "calls.dispose": {"disposition": "stolen"},
        "calls.set_answers": {"answers": {}},
        "me.set_state": {"state": "offline"},
        "me.acknowledge": {},
        "board.set_dialing": {"state": "stopped"},
    }.get(endpoint, {})
