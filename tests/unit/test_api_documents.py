"""What every answer carries, what the documents say, and what an operator sees."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from doubles.web import Web, code, web
from redis import Redis

from bridge.live import keys
from bridge.live.calls import CallReader
from bridge.services import health
from bridge.store.models import PbxLease

__all__ = ["web"]


def test_every_route_is_documented_with_its_errors(web: Web) -> None:
    document = web.ask("GET", "/api/v1/openapi.json").get_json()
    assert document["openapi"].startswith("3.1")
    for rule in web.app.url_map.iter_rules():
        if not rule.rule.startswith("/api/v1/") or rule.endpoint == "docs.document":
            continue
        path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            operation = document["paths"][path][method.lower()]
            assert operation["summary"], (method, path)
            assert any(code < "300" for code in operation["responses"]), (method, path)
            problem = operation["responses"]["422"]["content"]
            assert list(problem) == ["application/problem+json"]
            assert "security" in operation


def test_every_reference_of_the_document_leads_somewhere(web: Web) -> None:
    answer = web.ask("GET", "/api/v1/openapi.json")
    schemas = answer.get_json()["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', answer.get_data(as_text=True)):
        assert name in schemas


def test_a_change_promises_no_defaults(web: Web) -> None:
    schemas = web.ask("GET", "/api/v1/openapi.json").get_json()["components"]["schemas"]
    patches = [schema for name, schema in schemas.items() if name.endswith("Patch")]
    assert patches
    for schema in patches:
        assert [name for name, field in schema["properties"].items() if "default" in field] == []


def test_the_documents_page_loads_nothing_from_elsewhere(web: Web) -> None:
    page = web.ask("GET", "/api/docs").get_data(as_text=True)
    assert "/api/v1/callbacks" in page
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert " style=" not in page and "<style" not in page


@pytest.mark.parametrize(
    "path", ["/", "/login", "/api/docs", "/api/v1/me", "/healthz", "/readyz", "/metrics", "/nope"]
)
def test_every_answer_tells_browsers_what_they_may_do(web: Web, path: str) -> None:
    headers = web.ask("GET", path).headers
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"]


def test_pages_hold_no_inline_code(web: Web) -> None:
    web.person("ada", "supervisor")
    token = web.tokens["ada"]
    for path in ("/login", "/agent", "/supervisor", "/supervisor/callbacks", "/supervisor/calendars"):
        answer = web.ask("GET", path, token)
        assert answer.status_code == 200
        page = answer.get_data(as_text=True)
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", page), path
        assert not re.search(r"\son\w+=", page) and " style=" not in page, path


def test_pages_send_people_where_they_belong(web: Web) -> None:
    agent, leader = web.person("ada", "agent"), web.person("eve", "supervisor")
    assert web.ask("GET", "/").headers["Location"] == "/login"
    assert web.ask("GET", "/agent").headers["Location"].startswith("/login")
    assert web.ask("GET", "/", agent).headers["Location"] == "/agent"
    assert web.ask("GET", "/", leader).headers["Location"] == "/supervisor"
    for path in ("/supervisor", "/supervisor/callbacks", "/supervisor/calendars"):
        assert web.ask("GET", path, agent).headers["Location"] == "/"


def test_readiness_names_each_part_that_is_missing(web: Web, redis: Redis) -> None:
    answer = web.ask("GET", "/readyz")
    assert answer.status_code == 503
    reasons = answer.get_json()["reasons"]
    assert set(reasons) == {"pbx lab", "worker dial", "worker default", "recorder", "pops"}
    assert "secret" not in answer.get_data(as_text=True)


def test_a_link_that_is_up_and_a_reader_that_reads_are_ready(web: Web, redis: Redis) -> None:
    now = datetime.now(UTC)
    with web.database.begin() as db:
        lease = PbxLease(pbx="lab", holder="x", epoch=1, expires_at=now + timedelta(minutes=1), connected=True)
        db.add(lease)
    CallReader(redis, "recorder", "one").read(block_ms=1)
    redis.set(keys.POPS_LEASE, "x")
    found = {part.name: part.reason for part in health.check(web.settings, web.database, redis, now)}
    assert (found["pbx lab"], found["recorder"], found["pops"], found["database"]) == ("", "", "", "")
    with web.database.begin() as db:
        db.get_one(PbxLease, "lab").expires_at = now - timedelta(seconds=1)
    found = {part.name: part.reason for part in health.check(web.settings, web.database, redis, now)}
    assert "not running" in found["pbx lab"]


def test_a_database_that_cannot_be_written_is_a_reason_and_a_503(web: Web) -> None:
    token = web.person("ada")
    app_database = web.app.extensions["ringbridge"].database
    with app_database.read() as db:
        db.connection().exec_driver_sql("ALTER TABLE switches RENAME TO gone")
        db.connection().exec_driver_sql("COMMIT")
        db.connection().exec_driver_sql("BEGIN")
    body = web.ask("GET", "/readyz").get_json()
    assert "ringbridge db upgrade" in body["reasons"]["database"]
    assert code(web.ask("PUT", "/api/v1/dialing", token, json={"state": "stopped"}))[:2] == (503, "unavailable")


def test_metrics_are_for_this_machine_or_an_administrator(web: Web) -> None:
    token, other = web.person("ada"), web.person("bob", "supervisor")
    web.ask("GET", "/healthz")
    local = web.ask("GET", "/metrics")
    assert local.status_code == 200
    assert b'ringbridge_requests_total{method="GET",status="200",view="operations.healthz"}' in local.data
    far = {"environ_overrides": {"REMOTE_ADDR": "203.0.113.9"}}
    assert code(web.ask("GET", "/metrics", **far))[0] == 401
    assert code(web.ask("GET", "/metrics", other, **far))[0] == 403
    assert web.ask("GET", "/metrics", token, **far).status_code == 200


def test_an_unforeseen_error_says_nothing_of_the_request(
    web: Web, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    token = web.person("ada")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Somebody Secret +12125559876")

    monkeypatch.setattr("bridge.services.tenants.find", broken)
    answer = web.ask("GET", "/api/v1/clients", token)
    assert code(answer)[:2] == (500, "internal")
    assert "Secret" not in answer.get_data(as_text=True)
    # Where a test before this one has configured the log, it goes there.
    said = "".join((*capsys.readouterr(), caplog.text))
    assert "Secret" not in said and "RuntimeError" in said
