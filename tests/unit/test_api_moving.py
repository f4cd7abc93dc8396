"""The visitor's link: what its token opens over REST and as a page without scripts, and what it does not."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from doubles.web import Web, code, web

from bridge.domain import hours
from bridge.store.models import Attempt, Calendar, Callback, Site, new_id

__all__ = ["web"]

NUMBER = "+12125550123"
ORIGIN = "https://www.example.com"
BERLIN = "Europe/Berlin"


@pytest.fixture
def site(web: Web) -> str:
    """A site's id; its key is `site-key`."""
    client = web.company("Acme")
    limits = {"per_ip_hour": 99, "per_number_day": 99}
    values = {"client_id": client, "key": "site-key", "name": "Main", "origins": [ORIGIN], "limits": limits}
    with web.database.begin() as db:
        row = Site(created_at=datetime.now(UTC), regions=["US"], timezone=BERLIN, **values)
        db.add(row)
    return row.id


def asked(web: Web, **body: Any) -> dict[str, Any]:
    made = web.ask("POST", "/api/v1/callbacks", json={"number": NUMBER, "site": "site-key", **body})
    assert made.status_code == 201
    return dict(made.get_json())


def tomorrow(hour: int = 10) -> str:
    return f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}T{hour:02}:00"


def change(web: Web, made: dict[str, Any], token: str | None = None, **body: Any) -> Any:
    return web.ask("PATCH", f"/api/v1/callbacks/{made['id']}", token or made["token"], json=body)


def test_moved_and_confirmed_by_its_token(web: Web, site: str) -> None:
    made = asked(web)
    assert (made["confirmed_at"], made["link"]) == (None, f"http://localhost/callback/{made['id']}?token={made['token']}")
    moved = change(web, made, when=tomorrow(), timezone=BERLIN).get_json()
    assert (moved["status"], moved["id"]) == ("scheduled", made["id"])
    assert moved["promised_at"] < moved["expires_at"]
    assert moved["confirmed_at"] is not None
    assert web.ask("GET", f"/api/v1/callbacks/{made['id']}", made["token"]).get_json() == moved
    assert change(web, made, when=None).get_json()["status"] == "queued"
    other = asked(web, number="+12125550124", when=tomorrow(), timezone=BERLIN)
    assert change(web, other, confirmed=True).get_json()["confirmed_at"] is not None


BAD: list[tuple[dict[str, Any], tuple[int, str, str]]] = [
    ({}, (422, "invalid", "body")),
    ({"confirmed": False}, (422, "invalid", "confirmed")),
    ({"timezone": BERLIN}, (422, "invalid", "when")),
    ({"when": "2030-01-01T10:00"}, (422, "invalid", "timezone")),
    ({"when": "2020-01-01T10:00:00Z"}, (422, "time_past", "when")),
    ({"when": "2099-01-01T10:00:00Z"}, (422, "too_far_ahead", "when")),
    ({"when": 5}, (422, "invalid", "when")),
    ({"when": "a\nb"}, (422, "control_character", "when")),
    ({"number": "+12125550124"}, (422, "unknown_field", "number")),
]


def test_bad_changes_name_their_field_and_change_nothing(web: Web, site: str) -> None:
    made = asked(web)
    for body, expected in BAD:
        assert code(change(web, made, **body)) == expected
    now = web.ask("GET", f"/api/v1/callbacks/{made['id']}", made["token"]).get_json()
    assert (now["status"], now["confirmed_at"]) == ("queued", None)


def test_a_body_of_ten_megabytes(web: Web, site: str) -> None:
    made = asked(web)
    path, big = f"/api/v1/callbacks/{made['id']}", b'{"when":"' + b"1" * 10_000_000 + b'"}'
    headers = {"Authorization": f"Bearer {made['token']}", "Content-Type": "application/json"}
    assert code(web.ask("PATCH", path, data=big, headers=headers))[:2] == (413, "too_large")
    form = {"token": made["token"], "do": "move", "when": "1" * 10_000_000}
    assert web.ask("POST", f"/callback/{made['id']}", data=form).status_code == 413


def test_after_its_end_and_under_a_dial_it_is_refused(web: Web, site: str) -> None:
    made = asked(web)
    path = f"/api/v1/callbacks/{made['id']}"
    hold(web, made["id"])
    assert code(change(web, made, when=tomorrow(), timezone=BERLIN))[:2] == (409, "call_in_flight")
    page = act(web, made, "move", when=tomorrow(), timezone=BERLIN)
    assert (page.status_code, "You are just being called" in text(page)) == (409, True)
    assert "Another time" not in text(page)
    with web.database.begin() as db:
        db.get_one(Callback, made["id"]).held_by = None
    assert web.ask("DELETE", path, made["token"]).status_code == 200
    for body in ({"when": tomorrow(), "timezone": BERLIN}, {"confirmed": True}):
        assert code(change(web, made, **body))[:2] == (409, "callback_ended")
    assert "has ended" in text(act(web, made, "confirm"))


def hold(web: Web, callback_id: str) -> None:
    """As if it were being dialled."""
    with web.database.begin() as db:
        row = db.get_one(Callback, callback_id)
        row.held_by, row.status = new_id(), "calling_agent"
        values = {"client_id": row.client_id, "callback_id": row.id, "number": row.number, "pbx": "lab"}
        db.add(Attempt(id=row.held_by, created_at=row.created_at, state="dialing", **values))


def test_only_its_own_token_opens_it_and_guesses_run_out(web: Web, site: str) -> None:
    first, second = asked(web), asked(web, number="+12125550124")
    answers = set()
    for made in (first, {"id": new_id()}):
        for token in (second["token"], "x"):
            refused = web.ask("PATCH", f"/api/v1/callbacks/{made['id']}", token, json={"confirmed": True})
            answers.add((refused.status_code, refused.get_data()))
            page = web.ask("GET", f"/callback/{made['id']}?token={token}")
            answers.add((page.status_code, page.get_data()))
    # One answer over REST and one page, whether there is such a callback or not.
    assert sorted(status for status, _ in answers) == [403, 403]
    for _ in range(22):
        assert web.ask("GET", f"/api/v1/callbacks/{first['id']}?token=x").status_code == 403
    for method, path in (("GET", f"/callback/{first['id']}"), ("DELETE", f"/api/v1/callbacks/{second['id']}")):
        limited = web.ask(method, path, query_string={"token": "x"})
        assert (limited.status_code, int(limited.headers["Retry-After"]) > 0) == (429, True)
    # Elsewhere nobody is held up, nor is who asks rightly.
    elsewhere = {"REMOTE_ADDR": "198.51.100.9"}
    for _ in range(31):
        right = web.ask("GET", f"/api/v1/callbacks/{first['id']}", first["token"], environ_base=elsewhere)
        assert right.status_code == 200


def test_pages_of_the_site_may_move_and_others_may_not_read(web: Web, site: str) -> None:
    made = asked(web)
    path = f"/api/v1/callbacks/{made['id']}"
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "PATCH"}
    assert "PATCH" in web.ask("OPTIONS", path, headers=asks).headers["Access-Control-Allow-Methods"]
    for origin, allowed in ((ORIGIN, ORIGIN), ("https://evil.example", None)):
        headers = {"Origin": origin}
        answer = web.ask("PATCH", path, made["token"], json={"confirmed": True}, headers=headers)
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_the_document_tells_of_it(web: Web) -> None:
    document = web.ask("GET", "/api/v1/openapi.json").get_json()
    found = document["paths"]["/api/v1/callbacks/{callback_id}"]["patch"]
    assert set(found["responses"]) >= {"200", "403", "409", "413", "422", "429"}
    assert "call_in_flight" in found["description"]
    assert "default" not in document["components"]["schemas"]["CallbackPatch"]["properties"]["when"]


# --- the page ---


def text(page: Any) -> str:
    return html.unescape(page.get_data(as_text=True))


def act(web: Web, made: dict[str, Any], do: str, **fields: str) -> Any:
    return web.ask("POST", f"/callback/{made['id']}", data={"token": made["token"], "do": do, **fields})


def show(web: Web, made: dict[str, Any], language: str = "en") -> str:
    headers = {"Accept-Language": language}
    page = web.ask("GET", f"/callback/{made['id']}?token={made['token']}", headers=headers)
    assert page.status_code == 200
    return text(page)


def test_the_page_moves_confirms_and_cancels(web: Web, site: str) -> None:
    made = asked(web, when=tomorrow(), timezone=BERLIN, name="<b>")
    page = show(web, made)
    assert "<script>" not in page and "onclick" not in page
    assert tomorrow().replace("T", " ") in page and "If nobody can call you by" in page
    assert "I wait for your call" in page
    done = act(web, made, "confirm")
    assert (done.status_code, done.headers["Cache-Control"]) == (303, "no-store")
    page = show(web, made)
    assert "You confirmed" in page and "I wait for your call" not in page
    later = tomorrow(15)
    assert act(web, made, "move", when=later, timezone=BERLIN).status_code == 303
    assert later.replace("T", " ") in show(web, made)
    assert "Ждать" not in show(web, made, "ru") and "Позвоните тогда" in show(web, made, "ru")
    assert act(web, made, "now").status_code == 303
    assert "We have your wish" in show(web, made)
    assert act(web, made, "cancel").status_code == 303
    page = show(web, made)
    assert "Nobody will call you" in page and "<form" not in page and "/call-me/site-key" in page


WRONG: list[tuple[dict[str, str], int, str]] = [
    ({"do": "move"}, 422, "Choose a day and a time"),
    ({"do": "move", "when": "2020-01-01T10:00", "timezone": BERLIN}, 422, "in the past"),
    ({"do": "move", "when": "2099-01-01T10:00", "timezone": BERLIN}, 422, "too far ahead"),
    ({"do": "move", "when": "x" * 100}, 400, ""),
    ({"do": "move", "when": "a\nb"}, 400, ""),
    ({"do": "dance"}, 400, ""),
]


def test_the_page_says_why_not(web: Web, site: str) -> None:
    made = asked(web, when=tomorrow(), timezone=BERLIN)
    for fields, status, words in WRONG:
        page = act(web, made, **fields)
        assert page.status_code == status
        assert words in text(page)
    assert "You confirmed" not in show(web, made)


def test_the_page_offers_open_times_and_outlives_the_key(web: Web, site: str) -> None:
    weekly = {day: [{"opens": "09:00", "closes": "11:00"}] for day in hours.DAYS}
    made = asked(web, when=tomorrow(), timezone=BERLIN)
    with web.database.begin() as db:
        row = db.get_one(Site, site)
        values = {"client_id": row.client_id, "name": "Office", "timezone": BERLIN, "weekly": weekly}
        db.add(Calendar(id="office", created_at=datetime.now(UTC), **values))
        row.calendar_id, row.key, row.previous_key = "office", "new-key", None
    page = show(web, made)
    offered = re.findall(r'<option value="([^"]+)"', page)
    assert tomorrow() in offered and tomorrow(11) not in offered and "datetime-local" not in page
    assert act(web, made, "move", when=offered[-1], timezone=BERLIN).status_code == 303
    refused = act(web, made, "move", when=tomorrow(13), timezone=BERLIN)
    assert (refused.status_code, "We are closed at that time" in text(refused)) == (422, True)


ENDS = [
    ("expired", "not_reached_in_time", "Nobody was free in time", "Nobody was free to call you in time."),
    ("expired", "busy", "Nobody was free in time", "Your line was busy."),
    ("failed", "wrong_number", "We could not reach you", "The number does not exist."),
    ("failed", "<i>new</i>", "We could not reach you", ""),
]


def test_the_page_tells_of_an_end_and_why(web: Web, site: str) -> None:
    made = asked(web)
    for status, reason, title, words in ENDS:
        with web.database.begin() as db:
            row = db.get_one(Callback, made["id"])
            row.status, row.reason, row.ended_at = status, reason, row.created_at
        page = show(web, made)
        assert title in page and words in page and "<i>" not in page
        assert "Ask again" in page and "If nobody" not in page


def test_a_link_that_opens_nothing_says_so(web: Web, site: str) -> None:
    made = asked(web)
    for path in (f"/callback/{made['id']}", f"/callback/{made['id']}?token=\u00e9", "/callback/none?token=x"):
        page = web.ask("GET", path)
        assert (page.status_code, page.mimetype) == (403, "text/html")
        assert "This link opens nothing" in text(page)
    with web.database.begin() as db:
        db.delete(db.get_one(Callback, made["id"]))
    assert web.ask("GET", f"/callback/{made['id']}?token={made['token']}").status_code == 404
    assert web.ask("POST", f"/callback/{made['id']}", json={}).status_code == 415


def test_an_open_tab_of_before_still_cancels(web: Web, site: str) -> None:
    made = asked(web)
    old = web.client.post(f"/call-me/site-key/{made['id']}", data={"token": made["token"]}, follow_redirects=True)
    assert "Nobody will call you" in text(old)
    looked = web.client.get(f"/call-me/site-key/{made['id']}?token={made['token']}", follow_redirects=True)
    assert "Nobody will call you" in text(looked)
