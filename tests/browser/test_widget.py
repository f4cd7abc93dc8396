"""The callback widget in a real browser, on a shop's page of another origin with a strict policy, and the real web part
behind it: ask, watch, cancel, and what goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from desk import Desk
from pages import DESKTOP, PHONE, ZOOMED, CallbackWidget, faultless, sideways, violations
from playwright.sync_api import Browser, Page, Route, ViewportSize, expect
from rig import until
from sqlalchemy import func, select, update

from bridge.domain.callbacks import instant
from bridge.live import screens
from bridge.services import news
from bridge.store.models import AgentState, Callback
from ringbridge_lab.storefront import FOLDER, TEL, Storefront

pytest_plugins = ["desk_fixtures"]
pytestmark = pytest.mark.browser

CONSENT = 'Yes, call me & <b>only</b> me "today".'
_numbers = itertools.count(10)


@pytest.fixture(scope="module")
def shop() -> Iterator[Storefront]:
    running = Storefront()
    yield running
    running.close()


@pytest.fixture(scope="module")
def site(desk: Desk, shop: Storefront) -> str:
    """The key of a site that asks for consent, and lets the shop's pages use it."""
    limits = {"per_ip_hour": 1000, "per_number_day": 1000, "per_site_hour": 1000}
    row = desk.admin.post("/api/v1/sites", {
        "client_id": desk.client, "name": "www", "timezone": "America/New_York", "consent_text": CONSENT,
        "limits": limits, "origins": [shop.origin],
    })  # fmt: skip
    shop.open(desk.url, row["key"], CONSENT)
    return str(row["key"])


@pytest.fixture
def visitor(page: Page, shop: Storefront, site: str) -> CallbackWidget:
    """On the shop's product page, with the widget opened."""
    return CallbackWidget(page, f"{shop.origin}/").open()


def number() -> str:
    return f"+164655501{next(_numbers):02d}"


def kept(desk: Desk, to: str) -> list[Callback]:
    with desk.database.read() as db:
        return list(db.scalars(select(Callback).where(Callback.number == to)))


def tell(desk: Desk, callback: Callback, status: str, reason: str | None = None) -> None:
    """What the recorder would say as the call goes on."""
    with desk.database.begin() as db:
        row = db.get_one(Callback, callback.id)
        row.status, row.reason = status, reason
    data = {"id": callback.id, "status": status, "reason": reason, "promised_at": None}
    screens.publish(desk.redis, screens.callback_topic(callback.id), "status", data)


def test_a_visitor_asks_with_keys_alone_and_watches_to_the_end(visitor: CallbackWidget, desk: Desk) -> None:
    to = number()
    with faultless(visitor.page):
        visitor.fill(to, name="Ann <i>Lee</i>", note="two\nlines")
        visitor.submit()
        visitor.expect_now("We have your wish")
        (row,) = kept(desk, to)
        assert (row.name, row.note, row.consent_text) == ("Ann <i>Lee</i>", "two lines", CONSENT)
        assert visitor.page.locator("#wish:visible").count() == 0
        for status, words in (
            ("calling_agent", "Calling our agent"),
            ("calling_customer", "Your phone rings now"),
            ("connected", "You are connected"),
        ):
            tell(desk, row, status)
            visitor.expect_now(words)
        expect(visitor.cancel).to_be_hidden()
        tell(desk, row, "done")
        visitor.expect_now("Thank you for the call")
        visitor.page.locator("#again").click()
        expect(visitor.page.locator("#number")).to_be_focused()
        visitor.page.reload()
        expect(visitor.launcher).to_have_text("Call me back")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "Enter the number"),
        ("hello", "This is no phone number"),
        ("+1 900 555 0101", "Numbers of this kind"),
        ("+44 20 7946 0958", "Numbers of this country"),
        ("<img src=x onerror=document.title='owned'>", "This is no phone number"),
    ],
)
def test_a_bad_number_is_told_at_its_field(visitor: CallbackWidget, desk: Desk, typed: str, words: str) -> None:
    with desk.database.read() as db:
        before = db.scalar(select(func.count()).select_from(Callback))
    visitor.fill(typed)
    visitor.submit()
    expect(visitor.fault("number")).to_contain_text(words)
    field = visitor.page.locator("#number")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    assert "number-fault" in (field.get_attribute("aria-describedby") or "")
    with desk.database.read() as db:
        assert db.scalar(select(func.count()).select_from(Callback)) == before
    visitor.page.locator("#number").fill(number())
    visitor.submit()
    expect(visitor.fault("number")).to_be_hidden()
    visitor.expect_now("We have your wish")


def test_nobody_is_called_who_did_not_agree(visitor: CallbackWidget, desk: Desk) -> None:
    to = number()
    expect(visitor.page.locator("#consent-text")).to_have_text(CONSENT)
    visitor.fill(to, consent=False)
    visitor.submit()
    expect(visitor.fault("consent")).to_contain_text("only if you agree")
    expect(visitor.page.locator("#consent")).to_be_focused()
    assert kept(desk, to) == []


def offer(page: Page, *, now: bool, zone: str = "America/New_York", slots: int = 6) -> str:
    """Free times from tomorrow on, as the endpoint tells them; the first one's wall time."""
    day = (datetime.now(UTC) + timedelta(days=1)).date()
    rows = [
        {"wall_time": f"{day + timedelta(days=n // 3)}T{9 + n % 3:02d}:30", "zone": zone} for n in range(slots)
    ]
    times = [
        {"wall_time": row["wall_time"], "at": news.rfc3339(instant(row["wall_time"], zone))} for row in rows
    ]
    body = json.dumps({"timezone": zone, "now": now, "slots": times})
    page.route("**/api/v1/slots?*", lambda route: route.fulfill(
        content_type="application/json", body=body, headers={"Access-Control-Allow-Origin": "*"},
    ))  # fmt: skip
    return rows[1]["wall_time"] if slots else ""


def test_a_time_is_chosen_on_the_visitors_clock_and_kept_on_the_sites(
    page: Page, shop: Storefront, site: str, desk: Desk
) -> None:
    to = number()
    second = offer(page, now=True, zone="Europe/Warsaw")
    visitor = CallbackWidget(page, f"{shop.origin}/").open()
    visitor.fill(to)
    expect(page.locator("#day")).to_be_hidden()
    visitor.later()
    expect(page.locator("#when-zone")).to_contain_text("America/New York")
    shown = instant(second, "Europe/Warsaw").astimezone(ZoneInfo("America/New_York"))
    page.locator("#when").select_option(f"{shown:%-I:%M}\u202f{shown:%p}")
    visitor.submit()
    visitor.expect_now("Your callback is booked")
    (row,) = kept(desk, to)
    assert (row.wall_time, row.timezone) == (f"{second}:00", "Europe/Warsaw")
    assert row.due_at == instant(second, "Europe/Warsaw")
    visitor.cancel.click()
    visitor.expect_now("Nobody will call you")
    assert kept(desk, to)[0].status == "cancelled"


def test_a_site_without_hours_takes_any_time_of_the_visitors_clock(
    page: Page, shop: Storefront, site: str, desk: Desk
) -> None:
    to = number()
    any_time = json.dumps({"timezone": "Europe/Warsaw", "now": True, "any_time": True, "slots": []})
    page.route("**/api/v1/slots?*", lambda route: route.fulfill(
        content_type="application/json", body=any_time, headers={"Access-Control-Allow-Origin": "*"},
    ))  # fmt: skip
    visitor = CallbackWidget(page, f"{shop.origin}/").open()
    visitor.fill(to)
    visitor.later()
    page.locator("#when").fill("2020-01-01T10:00")
    visitor.submit()
    expect(visitor.fault("when")).to_contain_text("in the past")
    day = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    page.locator("#when").fill(f"{day}T09:30")
    visitor.submit()
    visitor.expect_now("Your callback is booked")
    (row,) = kept(desk, to)
    assert (row.wall_time, row.timezone) == (f"{day}T09:30:00", "America/New_York")


def test_a_closed_shop_offers_times_alone(page: Page, shop: Storefront, site: str, desk: Desk) -> None:
    offer(page, now=False)
    visitor = CallbackWidget(page, f"{shop.origin}/").open()
    expect(page.locator("#wish")).to_contain_text("We are closed now")
    assert page.locator("[name=moment]").count() == 0
    to = number()
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("Your callback is booked")
    assert kept(desk, to)[0].wall_time is not None


def test_the_times_are_those_of_the_sites_own_calendar(page: Page, desk: Desk) -> None:
    guarded = Storefront()
    # Never today, whatever the hour is.
    day = datetime.now(ZoneInfo("Europe/Warsaw")) + timedelta(days=2)
    calendar = desk.admin.post("/api/v1/calendars", {
        "client_id": desk.client, "name": "rare", "timezone": "Europe/Warsaw",
        "weekly": {f"{day:%A}".lower(): [{"opens": "12:00", "closes": "13:00"}]},
    })["id"]  # fmt: skip
    row = desk.admin.post("/api/v1/sites", {
        "client_id": desk.client, "name": "rare", "timezone": "America/New_York", "origins": [guarded.origin],
        "calendar_id": calendar, "consent_text": CONSENT,
    })  # fmt: skip
    guarded.open(desk.url, row["key"], CONSENT)
    visitor = CallbackWidget(page, f"{guarded.origin}/").open()
    expect(page.locator("#wish")).to_contain_text("We are closed now")
    to = number()
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("Your callback is booked")
    (made,) = kept(desk, to)
    assert (made.wall_time, made.timezone) == (f"{day:%Y-%m-%d}T12:00:00", "Europe/Warsaw")
    guarded.close()


def test_without_times_the_wish_is_for_now(page: Page, shop: Storefront, site: str) -> None:
    page.route("**/api/v1/slots?*", lambda route: route.fulfill(status=404))
    CallbackWidget(page, f"{shop.origin}/").open()
    assert page.locator("#when, [name=moment]").count() == 0


def promise(page: Page, seconds: int | None) -> None:
    """What is promised to who asks now, as the endpoint tells it."""
    page.unroute("**/api/v1/promise?*")
    body = {"promised_at": "2026-05-04T15:00:00Z", "seconds": seconds}
    allowed = {"Access-Control-Allow-Origin": "*"}
    page.route("**/api/v1/promise?*", lambda route: route.fulfill(
        status=204 if seconds is None else 200, headers=allowed, body="" if seconds is None else json.dumps(body)
    ))  # fmt: skip


def test_who_has_not_asked_yet_is_told_when_the_phone_would_ring(page: Page, desk: Desk) -> None:
    own = Storefront()
    # A site of its own: what is told may be five seconds old.
    row = desk.admin.post("/api/v1/sites", {
        "client_id": desk.client, "name": "prompt", "timezone": "America/New_York", "origins": [own.origin],
    })  # fmt: skip
    with desk.database.begin() as db:
        tom = db.get(AgentState, desk.agents["tom"]) or AgentState(agent_id=desk.agents["tom"], state="offline")
        tom.state, tom.device, tom.pbx, tom.since = "ready", "PJSIP/102", "lab", datetime.now(UTC)
        db.add(tom)
        # Those of other tests stand before.
        db.execute(update(Callback).where(Callback.status == "queued").values(status="done"))
    own.open(desk.url, row["key"], "")
    page.clock.install()
    visitor = CallbackWidget(page, f"{own.origin}/").open()
    soon = page.locator("#soon")
    with faultless(page):
        # Callers of other tests may wait, so how long it is is theirs to say.
        expect(soon).to_have_text(re.compile(r"If you ask now, your phone rings within (a minute|\d+ minutes)\."))
        with desk.database.begin() as db:
            db.get_one(AgentState, desk.agents["tom"]).state = "offline"
        promise(page, 181)
        page.clock.fast_forward(31_000)
        expect(soon).to_have_text("If you ask now, your phone rings within 4 minutes.")
        visitor.later()
        expect(soon).to_be_hidden()
        page.locator("[name=moment][value=now]").check()
        expect(soon).to_be_visible()
        promise(page, None)
        page.clock.fast_forward(31_000)
        expect(soon).to_be_hidden()
    own.close()


def test_a_visitor_moves_it_in_the_widget(visitor: CallbackWidget, desk: Desk) -> None:
    page, to = visitor.page, number()
    with faultless(page):
        visitor.fill(to)
        visitor.submit()
        visitor.expect_now("We have your wish")
        visitor.move()
        expect(page.locator("#when")).to_be_focused()
        page.locator("#when").fill("2020-05-04T09:30")
        page.keyboard.press("Enter")
        expect(visitor.fault("when")).to_have_text("This time is in the past; choose a later one.")
        day = (datetime.now(UTC) + timedelta(days=2)).date()
        page.locator("#when").fill(f"{day}T09:30")
        page.keyboard.press("Enter")
        visitor.expect_now("Your callback is booked")
        expect(page.locator("#move")).to_be_focused()
        (row,) = kept(desk, to)
        assert (row.wall_time, row.status) == (f"{day}T09:30:00", "scheduled")
        # One that was to come later may be made now.
        visitor.move()
        expect(page.locator("[name=moment][value=now]")).to_be_checked()
        page.get_by_role("button", name="Call me then").click()
        visitor.expect_now("We have your wish")
        assert [row.wall_time for row in kept(desk, to)] == [None]
        # While phones ring it is not moved: the form goes away by itself, and who was in it is not lost.
        visitor.move()
        tell(desk, row, "calling_customer")
        visitor.expect_now("Your phone rings now")
        expect(page.locator("#move, #when")).to_have_count(1)
        expect(page.locator("#move")).to_be_hidden()
        expect(page.locator("#title")).to_be_focused()


def test_it_goes_on_watching_after_a_reload_and_on_the_next_page(visitor: CallbackWidget, desk: Desk) -> None:
    to = number()
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("We have your wish")
    tell(desk, kept(desk, to)[0], "calling_customer")
    visitor.page.reload()
    expect(visitor.launcher).to_have_text("Your phone rings now")
    visitor.launcher.click()
    visitor.expect_now("Your phone rings now")
    assert len(kept(desk, to)) == 1
    # It ended while nobody looked.
    visitor.page.goto("about:blank")
    tell(desk, kept(desk, to)[0], "failed", "busy")
    visitor.page.goto(visitor.address)
    expect(visitor.launcher).to_have_text("We could not reach you")


def test_a_lost_answer_and_a_second_press_are_one_callback(visitor: CallbackWidget, desk: Desk) -> None:
    to = number()
    lost = iter([True])

    def lose(route: Route) -> None:
        if route.request.method == "POST" and next(lost, False):
            route.fetch()
            route.abort("connectionreset")
        else:
            route.continue_()

    visitor.page.route("**/api/v1/callbacks", lose)
    visitor.fill(to)
    visitor.submit()
    expect(visitor.fault()).to_contain_text("you will be called once")
    visitor.page.reload()
    visitor.open()
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("We have your wish")
    assert len(kept(desk, to)) == 1


def test_a_first_try_that_is_still_in_work_is_not_asked_anew(visitor: CallbackWidget, desk: Desk) -> None:
    used: list[str] = []

    def busy_once(route: Route) -> None:
        used.append(route.request.headers["idempotency-key"])
        problem: dict[str, Any] = {"status": 409, "code": "idempotency_in_progress", "detail": "still in work"}
        if len(used) == 1:
            route.fulfill(status=409, content_type="application/problem+json", body=json.dumps(problem))
        else:
            route.continue_()

    visitor.page.route("**/api/v1/callbacks", busy_once)
    visitor.fill(number())
    visitor.submit()
    expect(visitor.fault()).to_contain_text("still in work")
    visitor.submit()
    visitor.expect_now("We have your wish")
    assert used[0] == used[1]


def test_a_web_that_goes_away_is_told_and_comes_back(visitor: CallbackWidget, desk: Desk) -> None:
    to = number()
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("We have your wish")
    desk.stop("api", kill=True)
    expect(visitor.page.locator("#link")).to_be_visible()
    expect(visitor.page.locator("#link")).to_contain_text("your callback is not")
    desk.start_web()
    expect(visitor.page.locator("#link")).to_be_hidden(timeout=60_000)
    tell(desk, kept(desk, to)[0], "calling_agent")
    visitor.expect_now("Calling our agent", seconds=60)


def test_a_callback_that_nobody_knows_any_more_leads_back_to_the_form(visitor: CallbackWidget, site: str) -> None:
    gone = json.dumps({"id": "00000000-0000-4000-8000-000000000000", "token": "none"})
    visitor.page.evaluate("([name, text]) => sessionStorage.setItem(name, text)", [f"rb:callback:{site}", gone])
    visitor.page.reload()
    visitor.launcher.click()
    expect(visitor.fault()).to_contain_text("not known any more")
    expect(visitor.page.locator("#wish")).to_be_visible()
    visitor.page.reload()
    visitor.open()
    expect(visitor.fault()).to_be_hidden()


def test_nothing_is_stored_or_asked_before_the_visitor_does(
    page: Page, shop: Storefront, site: str, desk: Desk
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    stored = "() => [document.cookie, localStorage.length, sessionStorage.length]"
    with faultless(page):
        visitor = CallbackWidget(page, f"{shop.origin}/")
        expect(visitor.launcher).to_be_visible()
        assert [url for url in asked if url.startswith(desk.url)] == [f"{desk.url}/widget.js"]
        before = page.evaluate("() => Object.getOwnPropertyNames(window)")
        visitor.open()
        assert page.evaluate(stored) == ["", 0, 0]
        assert page.context.cookies() == []
        frame = "() => { const f = document.createElement('iframe'); document.body.append(f); const names = " \
            "Object.getOwnPropertyNames(f.contentWindow); f.remove(); return names; }"
        assert set(before) - set(page.evaluate(frame)) <= {"0"}
        to = number()
        visitor.fill(to)
        visitor.submit()
        visitor.expect_now("We have your wish")
        # What is kept then holds no number.
        assert to[2:] not in page.evaluate("() => JSON.stringify(sessionStorage)")
        assert page.context.cookies() == []


def test_the_script_is_small_cached_and_open_to_every_page(desk: Desk) -> None:
    def ask(**headers: str) -> Any:
        return urllib.request.urlopen(urllib.request.Request(f"{desk.url}/widget.js", headers=headers), timeout=30)

    with ask(**{"Accept-Encoding": "br, gzip"}) as answer:
        packed, headers = answer.read(), answer.headers
    assert len(packed) < 15 * 1024
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert headers["Content-Type"].startswith("text/javascript")
    assert "max-age" in headers["Cache-Control"]
    with ask(**{"Accept-Encoding": "gzip;q=0"}) as answer:
        assert answer.headers["Content-Encoding"] is None
        assert answer.read() == gzip.decompress(packed)
    with pytest.raises(urllib.error.HTTPError) as same:
        ask(**{"Accept-Encoding": "gzip", "If-None-Match": headers["ETag"]})
    with same.value as unchanged:
        assert unchanged.code == 304


def test_escape_closes_it_and_the_button_says_how_it_goes_on(visitor: CallbackWidget, desk: Desk) -> None:
    to = number()
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("We have your wish")
    visitor.page.keyboard.press("Escape")
    expect(visitor.launcher).to_be_focused()
    tell(desk, kept(desk, to)[0], "calling_customer")
    expect(visitor.launcher).to_have_text("Your phone rings now")


@pytest.mark.parametrize("how", ["refused", "broken", "silent"])
def test_a_service_that_is_away_leaves_a_number_to_call(
    page: Page, shop: Storefront, site: str, how: str
) -> None:
    away = [True]

    def fail(route: Route) -> None:
        if not away[0]:
            route.continue_()
        elif how == "refused":
            route.abort("connectionrefused")
        elif how == "broken":
            route.fulfill(status=503, body="<html>", headers={"Access-Control-Allow-Origin": "*"})

    page.route("**/api/v1/**", fail)
    page.clock.install()
    visitor = CallbackWidget(page, f"{shop.origin}/")
    visitor.launcher.click()
    expect(page.locator("ringbridge-call")).to_contain_text("One moment" if how == "silent" else "We cannot take")
    page.clock.run_for(11_000)
    expect(page.locator("ringbridge-call")).to_contain_text("We cannot take your wish")
    expect(page.locator("ringbridge-call .tel a")).to_have_attribute("href", f"tel:{TEL.replace(' ', '')}")
    assert violations(page) == []
    visitor.keep(f"widget-away-{how}.png")
    away[0] = False
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#number")).to_be_focused()


def test_a_page_may_add_and_remove_it_as_it_likes(page: Page, shop: Storefront, site: str, desk: Desk) -> None:
    """What React does with an element: made, given attributes, put in, taken out, put in again at once."""
    page.add_init_script("""
        window.streams = [];
        const Real = EventSource;
        window.EventSource = class extends Real { constructor(url) { super(url); streams.push(this); } };
    """)
    with faultless(page):
        visitor = CallbackWidget(page, f"{shop.origin}/contact").ready()
        page.evaluate("""() => {
            const one = document.querySelector("ringbridge-call"), place = one.parentNode;
            for (let i = 0; i < 3; i++) { one.remove(); place.append(one); }
            const two = document.createElement("ringbridge-call");
            two.setAttribute("site", one.getAttribute("site"));
            place.append(two); two.remove(); place.append(two); two.remove();
            const again = document.createElement("script");
            again.src = document.querySelector("script").src;
            window.loaded = new Promise((resolve) => again.addEventListener("load", resolve));
            document.head.append(again);
        }""".replace("again.src =", "again.src = trust(").replace('("script").src;', '("script").src);').replace(
            "() => {", "() => { const trust = (url) => trustedTypes.createPolicy('test', "
            "{ createScriptURL: (text) => text }).createScriptURL(url);", 1))
        page.evaluate("() => window.loaded")
        assert page.locator("ringbridge-call").count() == 1
        to = number()
        visitor.ready()
        visitor.fill(to)
        visitor.submit()
        visitor.expect_now("We have your wish")
        page.evaluate("""() => {
            const one = document.querySelector("ringbridge-call"), place = one.parentNode;
            one.remove(); place.append(one);
        }""")
        tell(desk, kept(desk, to)[0], "calling_agent")
        visitor.expect_now("Calling our agent")
        assert len(kept(desk, to)) == 1
        # What was taken out has stopped listening.
        assert page.evaluate("() => streams.map((one) => one.readyState)") == [2, 1]


def test_a_riddle_is_solved_beside_the_page(page: Page, shop: Storefront, site: str) -> None:
    sent: list[dict[str, Any]] = []
    cors = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
    riddle = json.dumps({"challenge": "pebble-\u0105", "bits": 12})
    page.route("**/callbacks/challenge?*", lambda route: route.fulfill(
        content_type="application/json", body=riddle, headers=cors,
    ))  # fmt: skip

    def hear(route: Route) -> None:
        if route.request.method == "POST":
            sent.append(route.request.post_data_json)
        # The first answer is too late, as from a form that stood open for long.
        body = '{"code": "x", "detail": "so be it"}' if sent[1:] else '{"code": "proof_invalid", "field": "proof"}'
        route.fulfill(status=422, content_type="application/json", headers=cors, body=body)

    page.route("**/api/v1/callbacks", hear)
    visitor = CallbackWidget(page, f"{shop.origin}/").open()
    visitor.fill(number())
    visitor.submit()
    expect(visitor.fault()).to_have_text("So be it.")
    assert len(sent) == 2
    challenge, _, nonce = sent[1]["proof"].rpartition(":")
    assert challenge == "pebble-\u0105" and "website" not in sent[0]
    digest = hashlib.sha256(f"{challenge}:{nonce}".encode()).digest()
    assert int.from_bytes(digest[:2], "big") >> 4 == 0


def test_a_puzzles_site_takes_a_form_without_scripts_at_the_second_press(page: Page, plain: Page, desk: Desk) -> None:
    guarded = Storefront()
    row = desk.admin.post("/api/v1/sites", {
        "client_id": desk.client, "name": "guarded", "timezone": "America/New_York", "origins": [guarded.origin],
        "protection": {"proof": "work"}, "consent_text": CONSENT,
    })  # fmt: skip
    guarded.open(desk.url, row["key"], CONSENT)
    to = number()
    visitor = CallbackWidget(page, f"{guarded.origin}/").open()
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("We have your wish")
    assert len(kept(desk, to)) == 1
    other = number()
    plain.goto(f"{guarded.origin}/contact")
    plain.locator("[name=number]").fill(other)
    plain.locator("[name=consent]").check()
    plain.get_by_role("button", name="Call me").click()
    expect(plain.locator(".fault")).to_contain_text("Press the button once more")
    assert kept(desk, other) == []
    expect(plain.locator("[name=consent]")).to_be_checked()

    def presses() -> bool:
        # Too soon for a person at first: the page keeps all that was typed.
        expect(plain.locator("[name=number]")).to_have_value(other)
        with plain.expect_navigation():
            plain.get_by_role("button", name="Call me").click()
        return "/callback/" in plain.url

    until(presses, what="the form to be taken")
    assert len(kept(desk, other)) == 1
    guarded.close()


@pytest.mark.parametrize(
    ("language", "launcher", "wrong"),
    [
        ("pl", "Oddzwońcie do mnie", "To nie jest numer telefonu. Sprawdź cyfry."),
        ("ru-RU", "Перезвоните мне", "Это не номер телефона. Проверьте цифры."),
        ("fr", "Call me back", "This is no phone number. Check its digits."),
    ],
)
def test_it_speaks_the_pages_language(
    page: Page, shop: Storefront, site: str, language: str, launcher: str, wrong: str
) -> None:
    offer(page, now=True)
    shop.pages["/talk"] = (FOLDER / "index.html").read_text(encoding="utf-8").replace(
        'lang="en"', f'lang="{language}"'
    )
    visitor = CallbackWidget(page, f"{shop.origin}/talk")
    expect(visitor.launcher).to_have_text(launcher)
    page.set_viewport_size(PHONE)
    visitor.open()
    visitor.fill("hello")
    visitor.later()
    visitor.submit()
    expect(visitor.fault("number")).to_have_text(wrong)
    assert violations(page) == []
    visitor.keep(f"widget-{language}.png")


def test_from_right_to_left_with_the_pages_own_words(page: Page, shop: Storefront, site: str, desk: Desk) -> None:
    offer(page, now=True)
    own = {
        "title": "نتصل بك", "number": "رقم هاتفك", "submit": "اتصلوا بي", "now": "الآن", "later": "في وقت أختاره",
        "status": {"queued": ["استلمنا طلبك", "", "سيرن هاتفك عندما يتفرغ أحدنا."]},
    }  # fmt: skip
    words = json.dumps(own, ensure_ascii=False)
    shop.pages["/rtl"] = (FOLDER / "contact.html").read_text(encoding="utf-8").replace(
        '<html lang="en">', '<html lang="ar" dir="rtl">').replace(
        "inline>", f'inline><script type="application/json">{words}</script>')  # fmt: skip
    page.set_viewport_size(PHONE)
    visitor = CallbackWidget(page, f"{shop.origin}/rtl").ready()
    expect(page.locator("#wish [type=submit]")).to_have_text("اتصلوا بي")
    label, dial = page.locator("label[for=number]").bounding_box(), page.locator("#number").bounding_box()
    assert label and dial and abs(label["x"] + label["width"] - dial["x"] - dial["width"]) < 2
    assert violations(page) == []
    assert sideways(page) <= 0
    visitor.keep("widget-rtl.png")
    visitor.fill(number())
    visitor.submit()
    visitor.expect_now("استلمنا طلبك")


@pytest.mark.parametrize("size", [DESKTOP, PHONE, ZOOMED], ids=["desktop", "phone", "zoomed"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_at_every_size(
    page: Page, shop: Storefront, site: str, desk: Desk, size: ViewportSize, scheme: Any
) -> None:
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    offer(page, now=True)
    promise(page, 200)
    visitor = CallbackWidget(page, f"{shop.origin}/")
    name = f"{size['width']}-{scheme}.png"

    def look(state: str) -> None:
        assert violations(page) == []
        assert sideways(page) <= 0
        visitor.keep(f"widget-{state}-{name}")

    expect(visitor.launcher).to_be_visible()
    look("closed")
    visitor.open()
    look("form")
    visitor.fill("hello")
    visitor.later()
    visitor.submit()
    expect(visitor.fault("number")).to_be_visible()
    look("fault")
    to = number()
    page.locator("#number").fill(to)
    page.locator("[name=moment][value=now]").check()
    visitor.submit()
    visitor.expect_now(re.compile("We have"))
    look("queued")
    visitor.move()
    look("moving")
    page.keyboard.press("Escape")
    visitor.launcher.click()
    page.locator("#stay").click()
    expect(page.locator("#move")).to_be_focused()
    (row,) = kept(desk, to)
    for status, words in (
        ("calling_agent", "Calling our agent"),
        ("calling_customer", "Your phone rings now"),
        ("failed", "We could not reach you"),
    ):
        tell(desk, row, status)
        visitor.expect_now(words)
        look(status)


def test_a_theme_is_the_pages_own(visitor: CallbackWidget) -> None:
    button = visitor.page.locator("#wish [type=submit]")
    expect(button).to_have_css("background-color", "rgb(29, 79, 145)")
    visitor.page.evaluate("() => document.documentElement.style.setProperty('--ringbridge-accent', 'rgb(120, 0, 60)')")
    expect(button).to_have_css("background-color", "rgb(120, 0, 60)")


@pytest.fixture
def plain(browser: Browser) -> Iterator[Page]:
    """A browser without scripts."""
    context = browser.new_context(viewport=PHONE, locale="en-US", java_script_enabled=False)
    yield context.new_page()
    context.close()


def test_a_plain_form_of_the_shop_ends_on_a_useful_page(plain: Page, shop: Storefront, site: str, desk: Desk) -> None:
    to = number()
    plain.goto(f"{shop.origin}/contact")
    plain.locator("[name=number]").fill("12")
    plain.locator("[name=note]").fill("Two <b>chairs</b>")
    plain.locator("[name=consent]").check()
    plain.get_by_role("button", name="Call me").click()
    expect(plain.locator("#number-told")).to_contain_text("phone number")
    expect(plain.locator("#plain-note")).to_have_value("Two <b>chairs</b>")
    plain.locator("#plain-number").fill(to)
    plain.locator("[name=consent]").check()
    plain.get_by_role("button", name="Call me").click()
    expect(plain.locator("h1")).to_have_text("We have your wish")
    (row,) = kept(desk, to)
    assert (row.note, row.consent_text) == ("Two <b>chairs</b>", CONSENT)
    tell(desk, row, "calling_agent")
    plain.get_by_role("link", name="See how it stands now").click()
    expect(plain.locator("h1")).to_have_text("Calling our agent")
    tell(desk, row, "queued")
    plain.get_by_role("button", name="Do not call me").click()
    expect(plain.locator("h1")).to_have_text("Nobody will call you")
    assert kept(desk, to)[0].status == "cancelled"


def test_the_sites_own_page_works_with_and_without_scripts(
    page: Page, plain: Page, site: str, desk: Desk
) -> None:
    to = number()
    visitor = CallbackWidget(page, f"{desk.url}/call-me/{site}").ready()
    with faultless(page):
        visitor.fill(to)
        visitor.submit()
        visitor.expect_now("We have your wish")
        assert violations(page) == []
        visitor.keep("call-me-page.png")
    plain.goto(f"{desk.url}/call-me/{site}")
    folder = os.environ.get("RINGBRIDGE_SCREENSHOTS")
    if folder:
        plain.screenshot(path=Path(folder) / "call-me-plain.png", full_page=True)
    other = number()
    day = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    plain.locator("[name=number]").fill(other)
    plain.locator("[name=when]").fill(f"{day}T09:30")
    plain.locator("[name=consent]").check()
    plain.get_by_role("button", name="Call me").click()
    expect(plain.locator("h1")).to_have_text("Your callback is booked")
    expect(plain.locator(".lead")).to_contain_text("09:30 (America/New York)")
    (row,) = kept(desk, other)
    assert (row.wall_time, row.timezone) == (f"{day}T09:30:00", "America/New_York")
    # The link that it leads to moves it, without scripts too, and is as good to read as the form.
    plain.locator("[name=when]").fill(f"{day}T11:15")
    plain.get_by_role("button", name="Call me then").click()
    expect(plain.locator(".lead")).to_contain_text("11:15 (America/New York)")
    assert kept(desk, other)[0].wall_time == f"{day}T11:15:00"
    with faultless(page):
        page.goto(plain.url)
        assert violations(page) == []
    if folder:
        plain.screenshot(path=Path(folder) / "callback-plain.png", full_page=True)


def test_a_site_that_is_not_there_is_a_plain_404(page: Page, desk: Desk) -> None:
    answer = page.goto(f"{desk.url}/call-me/nope")
    assert answer is not None and answer.status == 404
