"""The public part: what a visitor may ask, what is refused, and which pages may ask at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from doubles.web import Web, code, web
from redis import Redis
from sqlalchemy import func, select

from bridge.settings import Http
from bridge.store.models import Callback, Site

__all__ = ["web"]

NUMBER = "+12125550123"
ORIGIN = "https://www.example.com"


@pytest.fixture
def key(web: Web) -> str:
    """A site's key."""
    client = web.company("A")
    with web.database.begin() as db:
        db.add(
            Site(
                created_at=datetime.now(UTC),
                client_id=client,
                key="site-key",
                name="Main",
                origins=[ORIGIN],
                regions=["US"],
                consent_text="You may call me.",
            )
        )
    return "site-key"


def ask(web: Web, key: str | None = "site-key", headers: dict[str, str] | None = None, **body: Any):
    sent = {"X-Site-Key": key, **(headers or {})} if key else dict(headers or {})
    return web.ask("POST", "/api/v1/callbacks", json={"number": NUMBER, **body}, headers=sent)


def kept(web: Web) -> int:
    with web.database.read() as db:
        return db.scalar(select(func.count()).select_from(Callback)) or 0


def test_a_visitor_asks_watches_and_cancels(web: Web, key: str) -> None:
    answer = ask(web, name="Smith & Sons, {Ltd} | $5", note="x", consent="You may call me.")
    assert answer.status_code == 201
    body = answer.get_json()
    told = {"id", "status", "reason", "promised_at", "expires_at", "confirmed_at"}
    assert set(body) == told | {"token", "link"}
    assert body["status"] == "queued"
    path = f"/api/v1/callbacks/{body['id']}"
    assert web.ask("GET", path, body["token"]).get_json()["status"] == "queued"
    assert web.ask("GET", f"{path}?token={body['token']}").status_code == 200
    assert NUMBER not in web.ask("GET", path, body["token"]).get_data(as_text=True)
    assert web.ask("DELETE", path, body["token"]).get_json()["status"] == "cancelled"
    with web.database.read() as db:
        row = db.get_one(Callback, body["id"])
    assert (row.name, row.consent_text) == ("Smith & Sons, {Ltd} | $5", "You may call me.")


def test_consent_true_keeps_the_text_the_site_shows(web: Web, key: str) -> None:
    made = ask(web, consent=True).get_json()
    with web.database.read() as db:
        assert db.get_one(Callback, made["id"]).consent_text == "You may call me."


def test_only_the_token_opens_a_callback(web: Web, key: str) -> None:
    first, second = ask(web).get_json(), ask(web, number="+12125550124").get_json()
    for method in ("GET", "DELETE"):
        for path in (f"/api/v1/callbacks/{first['id']}", "/api/v1/callbacks/none"):
            for token in (None, second["token"], "x", "\u00e9"):
                query = {} if token is None else {"token": token}
                assert code(web.ask(method, path, query_string=query))[0] == 403
    assert web.ask("GET", f"/api/v1/callbacks/{first['id']}", first["token"]).get_json()["status"] == "queued"


def test_the_same_key_is_one_callback(web: Web, key: str) -> None:
    headers = {"Idempotency-Key": "k1"}
    first, again = ask(web, headers=headers), ask(web, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.get_json() == again.get_json()
    assert kept(web) == 1
    assert code(ask(web, headers=headers, name="other"))[:2] == (422, "idempotency_mismatch")
    assert code(ask(web, headers={"Idempotency-Key": "x" * 256}))[::2] == (422, "Idempotency-Key")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"number": "hello"}, (422, "number_invalid", "number")),
        ({"number": ""}, (422, "number_invalid", "number")),
        ({"number": 12125550123}, (422, "invalid", "number")),
        ({"number": None}, (422, "invalid", "number")),
        ({"number": "+12125550123\r\nAction: Originate"}, (422, "control_character", "number")),
        ({"number": "+19005550123"}, (422, "number_type_not_allowed", "number")),
        ({"number": "+442079460123"}, (422, "region_not_allowed", "number")),
        ({"number": "911"}, (422, "number_type_not_allowed", "number")),
        ({"name": "a\nb"}, (422, "control_character", "name")),
        ({"name": "a\u0000b"}, (422, "control_character", "name")),
        ({"note": "a\r\nb"}, (422, "control_character", "note")),
        ({"queue": "a\rb"}, (422, "control_character", "queue")),
        ({"consent": "a\nb"}, (422, "control_character", "consent")),
        ({"consent": 1}, (422, "invalid", "consent")),
        ({"page_url": "javascript:alert(1)"}, (422, "invalid", "page_url")),
        ({"page_url": "http://[x"}, (422, "invalid", "page_url")),
        ({"consent": False}, (422, "consent_refused", "consent")),
        ({"page_url": "https://a\n"}, (422, "control_character", "page_url")),
        ({"when": "2030-01-01T10:00"}, (422, "invalid", "timezone")),
        ({"when": "tomorrow"}, (422, "invalid", "when")),
        ({"when": "2020-01-01T10:00:00Z"}, (422, "time_past", "when")),
        ({"when": "2099-01-01T10:00:00Z"}, (422, "too_far_ahead", "when")),
        ({"when": "2030-13-41T10:00:00Z"}, (422, "invalid", "when")),
        ({"when": "2030-01-01T10:00", "timezone": "Mars/Base"}, (422, "invalid", "timezone")),
        ({"name": "x" * 201}, (422, "too_long", "name")),
        ({"priority": 1}, (422, "unknown_field", "priority")),
        ({"site": "other"}, (422, "invalid", "site")),
    ],
)
def test_bad_input_names_its_field_and_keeps_nothing(
    web: Web, key: str, redis: Redis, body: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert code(ask(web, **body)) == expected
    assert kept(web) == 0
    assert redis.keys("rq:*") == []


def test_faults_are_told_in_words_for_people(web: Web, key: str) -> None:
    for body, words in (
        ({"name": "x" * 201}, "name: must have at most 200 characters"),
        ({"number": 5}, "number: must be a string"),
        ({"surprise": 1}, "surprise: there is no such field"),
    ):
        assert ask(web, **body).get_json()["detail"] == words
    assert web.ask("PUT", "/api/v1/callbacks").get_json()["title"] == "Method not allowed"


def test_bad_input_is_not_logged(
    web: Web, key: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    ask(web, number="+19005559876", name="Somebody Secret")
    ask(web, number="+12125559876\n", name="Somebody Secret")
    ask(web, surprise="Somebody Secret")
    said = "".join((*capsys.readouterr(), caplog.text))
    assert "5559876" not in said and "Somebody" not in said


def test_a_site_must_be_named_and_there(web: Web, key: str) -> None:
    assert code(ask(web, None)) == (422, "invalid", "site")
    assert code(ask(web, "nope")) == (422, "invalid", "site")
    assert ask(web, None, site=key).status_code == 201
    with web.database.begin() as db:
        db.query(Site).update({"active": False})
    assert code(ask(web)) == (422, "invalid", "site")


def test_only_pages_of_the_site_may_ask(web: Web, key: str) -> None:
    good = ask(web, headers={"Origin": ORIGIN})
    assert good.status_code == 201
    assert good.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert good.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in good.headers
    elsewhere = ("https://evil.example", "http://www.example.com", "https://www.example.com.evil.example")
    for origin in ("http://[", "", "null", *elsewhere):
        bad = ask(web, headers={"Origin": origin})
        assert code(bad)[:2] == (403, "origin_not_allowed")
        assert "Access-Control-Allow-Origin" not in bad.headers
    refused = ask(web, headers={"Origin": ORIGIN}, number="hello")
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN
    token = good.get_json()["token"]
    path = f"/api/v1/callbacks/{good.get_json()['id']}"
    read = web.ask("GET", path, token, headers={"Origin": ORIGIN})
    assert read.headers["Access-Control-Allow-Origin"] == ORIGIN
    other = web.ask("GET", path, token, headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


def test_a_browser_asks_before_it_sends(web: Web, key: str) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    answer = web.ask("OPTIONS", "/api/v1/callbacks", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
    stranger = web.ask("OPTIONS", "/api/v1/callbacks", headers={**asked, "Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in stranger.headers
    elsewhere = web.ask("OPTIONS", "/api/v1/clients", headers=asked)
    assert "Access-Control-Allow-Origin" not in elsewhere.headers


def test_limits_count_the_visitor_not_the_proxy(web: Web, key: str) -> None:
    from bridge.api.app import create_app

    settings = web.settings.model_copy(update={"http": Http(trusted_proxies=("127.0.0.1", "10.0.0.0/8"))})
    client = create_app(settings).test_client()

    def status(n: int, forwarded: str) -> int:
        headers = {"X-Site-Key": key, "X-Forwarded-For": forwarded}
        body = {"number": f"+1212555{n:04d}"}
        return client.post("/api/v1/callbacks", json=body, headers=headers).status_code

    assert [status(100 + n, f"6.6.6.{n}, 203.0.113.9, 10.1.1.1") for n in range(4)] == [201, 201, 201, 429]
    assert status(150, "203.0.113.10, 10.1.1.1") == 201


def test_too_many_requests_say_when_to_come_back(web: Web, key: str) -> None:
    answers = [ask(web, number=f"+1212555010{n}") for n in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0


def test_the_form_has_the_sites_own_consent_text_and_no_inline_code(web: Web, key: str) -> None:
    with web.database.begin() as db:
        db.query(Site).update({"consent_text": "I agree <script>alert(1)</script>"})
    page = web.ask("GET", f"/call-me/{key}").get_data(as_text=True)
    assert "I agree &lt;script&gt;" in page
    assert "<script>" not in page and " style=" not in page and "onclick" not in page
    assert code(web.ask("GET", "/call-me/nope"))[0] == 404
    assert ask(web, headers={"Origin": "http://localhost"}).status_code == 201


def plain(web: Web, site: str, **fields: str) -> Any:
    """A form as a browser without scripts sends it."""
    headers = {"Origin": fields.pop("origin", ORIGIN)}
    return web.ask("POST", f"/call-me/{site}", data={"number": NUMBER, "consent": "yes", **fields}, headers=headers)


def test_a_plain_form_is_a_callback_and_leads_to_its_page(web: Web, key: str) -> None:
    answer = plain(web, key, note="two\r\nlines", utm="x", when="", name=" ")
    assert answer.status_code == 303
    page = web.ask("GET", answer.headers["Location"])
    assert "We have your wish" in page.get_data(as_text=True)
    with web.database.read() as db:
        row = db.query(Callback).one()
    assert (row.note, row.name, row.consent_text) == ("two lines", "", "You may call me.")
    # Where the page was once: a tab that is open since then still cancels.
    old = web.ask("POST", f"/call-me/{key}/{row.id}", data={"token": "x"})
    assert (old.status_code, old.headers["Location"]) == (308, f"/callback/{row.id}")


def test_a_plain_form_sent_twice_is_one_callback(web: Web, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime.now(UTC)
    monkeypatch.setattr("bridge.api.call_me.now", lambda: at)
    assert plain(web, key).headers["Location"] == plain(web, key).headers["Location"]
    assert plain(web, key, key="k").headers["Location"] == plain(web, key, key="k").headers["Location"]
    assert kept(web) == 2
    assert plain(web, key, key="k", note="other").status_code == 422


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"number": "<b>"}, 422, "This is no phone number"),
        ({"number": "+19005550123"}, 422, "Numbers of this kind"),
        ({"consent": ""}, 422, "Nobody is called who did not agree"),
        ({"when": "2020-01-01T10:00"}, 422, "in the past"),
        ({"name": "x" * 201}, 422, "Must have at most 200 characters"),
        ({"origin": "https://evil.example"}, 403, "This page may not ask for callbacks"),
    ],
)
def test_a_plain_form_that_is_refused_says_why_on_a_page(
    web: Web, key: str, fields: dict[str, str], status: int, words: str
) -> None:
    answer = plain(web, key, **fields)
    page = answer.get_data(as_text=True)
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert words in page and "<b>" not in page
    assert kept(web) == 0


def test_a_plain_form_speaks_the_browsers_language(web: Web, key: str) -> None:
    def page(language: str, **fields: str) -> str:
        headers = {"Origin": ORIGIN, "Accept-Language": language}
        data = {"number": NUMBER, "consent": "yes", **fields}
        answer = web.ask("POST", f"/call-me/{key}", data=data, headers=headers)
        if answer.status_code == 303:
            answer = web.ask("GET", answer.headers["Location"], headers=headers)
        return answer.get_data(as_text=True)

    assert 'lang="pl"' in page("pl-PL,en;q=0.5") and "Mamy Twoje zgłoszenie" in page("pl-PL,en;q=0.5")
    assert "Это не номер телефона" in page("ru", number="x")
    assert "Не получилось" in page("ru", name="x" * 201)
    assert "We have your wish" in page("fr")


def test_a_plain_form_is_no_json_and_its_site_is_there(web: Web, key: str) -> None:
    assert web.ask("POST", f"/call-me/{key}", json={"number": NUMBER}).status_code == 415
    assert plain(web, "nope").status_code == 404


def test_the_widget_hears_what_to_show_and_why_it_is_refused(web: Web, key: str) -> None:
    def form(site: str, origin: str | None = ORIGIN) -> Any:
        headers = {"Origin": origin} if origin else {}
        return web.ask("GET", f"/api/v1/callbacks/form?site={site}", headers=headers)

    assert form(key).get_json() == {"consent_text": "You may call me.", "test_mode": False}
    assert form(key).headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Origin" not in form(key, None).headers
    assert code(form(key, "https://evil.example"))[:2] == (403, "origin_not_allowed")
    assert code(form("nope"))[0] == 422
    gone = web.ask("GET", "/api/v1/callbacks/none", "token", headers={"Origin": ORIGIN})
    assert (gone.status_code, gone.headers["Access-Control-Allow-Origin"]) == (403, ORIGIN)
    stranger = web.ask("GET", "/api/v1/callbacks/none", "token", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in stranger.headers


def test_the_document_says_which_headers_a_wish_may_carry(web: Web) -> None:
    document = web.client.get("/api/v1/openapi.json").get_json()
    wish = document["paths"]["/api/v1/callbacks"]["post"]
    assert {row["name"] for row in wish["parameters"] if row["in"] == "header"} == {"X-Site-Key", "Idempotency-Key"}
    stream = document["paths"]["/api/v1/callbacks/{callback_id}/events"]["get"]
    assert list(stream["responses"]["200"]["content"]) == ["text/event-stream"]
