"""Signing in: cookies, tokens, CSRF, limits on guessing, and what is left in the audit log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from doubles.web import PASSWORD, Web, code, web
from sqlalchemy import select, update

from bridge.store.models import Agent, Audit, Session

__all__ = ["web"]


def sign_in(web: Web, username: str = "ada", password: str = PASSWORD, **more: object):
    return web.ask("POST", "/api/v1/session", json={"username": username, "password": password}, **more)


def test_signing_in_gives_a_token_a_cookie_and_a_csrf_token(web: Web) -> None:
    web.person("ada", "agent", devices=["PJSIP/101"])
    answer = sign_in(web, "Ada")
    assert answer.status_code == 201
    body = answer.get_json()
    assert body["agent"]["username"] == "ada"
    assert body["devices"] == ["PJSIP/101"]
    cookie = answer.headers["Set-Cookie"]
    assert "rb_session=" in cookie and "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    assert web.ask("GET", "/api/v1/me", body["token"]).get_json()["username"] == "ada"
    assert PASSWORD not in str(body)


def test_the_cookie_is_secure_where_people_come_by_https(web: Web) -> None:
    from bridge.api.app import create_app
    from bridge.settings import Http

    settings = web.settings.model_copy(update={"http": Http(public_url="https://calls.example.com")})
    web.person("ada")
    client = create_app(settings).test_client()
    answer = client.post("/api/v1/session", json={"username": "ada", "password": PASSWORD})
    assert "Secure" in answer.headers["Set-Cookie"]
    assert "Strict-Transport-Security" in answer.headers


def test_secrets_are_kept_as_hashes_only(web: Web) -> None:
    token = web.person("ada")
    with web.database.read() as db:
        kept = db.scalars(select(Session.token_hash)).all()
        agent = db.scalars(select(Agent)).one()
    assert token not in kept
    assert agent.password_hash.startswith("$argon2id$")


@pytest.mark.parametrize("username", ["ada", "nobody"])
def test_a_wrong_password_and_an_unknown_user_sound_alike(web: Web, username: str) -> None:
    web.person("ada")
    assert code(sign_in(web, username, "wrong password")) == (401, "sign_in_refused", None)


def test_a_cookie_needs_the_csrf_header_to_change_anything(web: Web) -> None:
    web.person("ada", "agent", devices=["PJSIP/101"])
    client = web.client
    csrf = client.post("/api/v1/session", json={"username": "ada", "password": PASSWORD}).get_json()["csrf"]
    state = {"state": "ready", "device": "PJSIP/101"}
    assert client.get("/api/v1/me/state").status_code == 200
    assert code(client.put("/api/v1/me/state", json=state)) == (403, "csrf", None)
    wrong = {"X-CSRF-Token": "wrong"}
    assert code(client.put("/api/v1/me/state", json=state, headers=wrong)) == (403, "csrf", None)
    right = {"X-CSRF-Token": csrf}
    assert client.put("/api/v1/me/state", json=state, headers=right).status_code == 200
    assert client.get("/api/v1/session").get_json()["csrf"] == csrf


def test_every_change_by_cookie_asks_for_the_csrf_header(web: Web) -> None:
    web.person("ada")
    client = web.client
    client.post("/api/v1/session", json={"username": "ada", "password": PASSWORD})
    open_to_all = {"session.sign_in", "callbacks.create", "callbacks.cancel", "callbacks.change", "grants.standing"}
    # Plain forms of visitors, who have no session.
    open_to_all |= {"call_me.ask", "call_me.moved_away", "callback_page.act"}
    for rule in web.app.url_map.iter_rules():
        for method in rule.methods & {"POST", "PUT", "PATCH", "DELETE"}:
            if rule.endpoint in open_to_all:
                continue
            path = rule.rule.replace("<row_id>", "x").replace("<call_id>", "x").replace("<pop_id>", "x")
            assert code(client.open(path, method=method, json={}))[:2] == (403, "csrf"), rule


def test_signing_out_ends_the_session_and_the_shift(web: Web) -> None:
    web.person("ada", "agent", devices=["PJSIP/101"])
    client = web.client
    csrf = client.post("/api/v1/session", json={"username": "ada", "password": PASSWORD}).get_json()["csrf"]
    headers = {"X-CSRF-Token": csrf}
    client.put("/api/v1/me/state", json={"state": "ready", "device": "PJSIP/101"}, headers=headers)
    assert client.delete("/api/v1/session", headers=headers).status_code == 204
    assert code(client.get("/api/v1/me"))[0] == 401
    state = web.ask("GET", "/api/v1/me/state", web.tokens["ada"]).get_json()
    assert state["state"] == "offline"


def test_a_session_ends_by_itself_and_with_its_agent(web: Web) -> None:
    token = web.person("ada")
    other = web.person("bob")
    with web.database.begin() as db:
        past = datetime.now(UTC) - timedelta(seconds=1)
        db.execute(update(Session).where(Session.agent_id == web.agent_id("bob")).values(expires_at=past))
    assert code(web.ask("GET", "/api/v1/me", other)) == (401, "not_signed_in", None)
    carl = web.person("carl")
    gone = web.agent_id("carl")
    assert web.ask("PATCH", f"/api/v1/agents/{gone}", token, json={"active": False}).status_code == 200
    assert code(web.ask("GET", "/api/v1/me", carl))[0] == 401
    assert code(sign_in(web, "carl"))[0] == 401


def test_guessing_is_limited_per_username(web: Web) -> None:
    web.person("ada")
    for _ in range(10):
        assert sign_in(web, "ada", "wrong password").status_code == 401
    assert code(sign_in(web, "ada", "wrong password"))[:2] == (429, "rate_limited")
    locked = sign_in(web, "ADA")
    assert code(locked)[:2] == (429, "rate_limited")
    assert 0 < int(locked.headers["Retry-After"]) <= 900
    assert "too many tries that were refused" in locked.get_json()["detail"]


def test_guessing_from_elsewhere_does_not_lock_a_person_out(web: Web) -> None:
    web.person("ada")
    for _ in range(12):
        sign_in(web, "ada", "wrong password", environ_overrides={"REMOTE_ADDR": "203.0.113.5"})
    assert sign_in(web, "ada").status_code == 201


def test_working_a_lot_locks_nobody_out(web: Web) -> None:
    web.person("ada")
    assert [sign_in(web).status_code for _ in range(12)] == [201] * 12


def test_a_page_elsewhere_cannot_sign_a_browser_in(web: Web) -> None:
    web.person("ada")
    for origin in ("https://evil.example", "null", "http://[", ""):
        assert code(sign_in(web, headers={"Origin": origin}))[:2] == (403, "forbidden")
    assert sign_in(web, headers={"Origin": "http://localhost"}).status_code == 201


def test_a_device_must_be_ones_own(web: Web) -> None:
    web.person("ada", "agent", devices=["PJSIP/101"])
    body = {"username": "ada", "password": PASSWORD, "device": "PJSIP/999"}
    assert code(web.ask("POST", "/api/v1/session", json=body)) == (422, "invalid", "device")


def test_signing_in_is_audited_without_secrets(web: Web) -> None:
    token = web.person("ada")
    sign_in(web)
    with web.database.read() as db:
        rows = db.scalars(select(Audit).where(Audit.action == "session.open")).all()
    assert len(rows) == 2
    assert all(PASSWORD not in str(row.detail) for row in rows)
    shown = web.ask("GET", "/api/v1/audit?action=session.open", token).get_json()
    assert [row["actor"] for row in shown["items"]] == ["ada", "ada"]
