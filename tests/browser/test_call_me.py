"""The visitor's form in a real browser, in front of the real web part: ask, watch, cancel, and what goes wrong."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from desk import Desk
from pages import DESKTOP, PHONE, ZOOMED, CallMePage, faultless, sideways, violations
from playwright.sync_api import Page, Route, ViewportSize, expect
from sqlalchemy import func, select

from bridge.live import screens
from bridge.store.models import Callback

pytest_plugins = ["desk_fixtures"]
pytestmark = pytest.mark.browser

CONSENT = 'Yes, call me & <b>only</b> me "today".'
_numbers = itertools.count(10)


@pytest.fixture(scope="module")
def site(desk: Desk) -> str:
    """The key of a site that asks for consent."""
    limits = {"per_ip_hour": 1000, "per_number_day": 1000, "per_site_hour": 1000}
    row = desk.admin.post("/api/v1/sites", {
        "client_id": desk.client, "name": "www", "timezone": "America/New_York", "consent_text": CONSENT,
        "limits": limits,
    })  # fmt: skip
    return str(row["key"])


@pytest.fixture
def visitor(page: Page, desk: Desk, site: str) -> CallMePage:
    return CallMePage(page, desk.url, site)


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


def test_a_visitor_asks_with_keys_alone_and_watches_to_the_end(visitor: CallMePage, desk: Desk) -> None:
    to = number()
    with faultless(visitor.page):
        visitor.fill(to, name="Ann <i>Lee</i>", note="two\nlines")
        visitor.submit()
        visitor.expect_now("We have your wish.")
        (row,) = kept(desk, to)
        assert (row.name, row.note, row.consent_text) == ("Ann <i>Lee</i>", "two lines", CONSENT)
        assert visitor.page.locator("#wish:visible").count() == 0
        for status, words in (
            ("calling_agent", "We are finding someone for you."),
            ("calling_customer", "Your phone is ringing."),
            ("connected", "You are connected."),
        ):
            tell(desk, row, status)
            visitor.expect_now(words)
        expect(visitor.cancel).to_be_hidden()
        tell(desk, row, "done")
        visitor.expect_now("Thank you for the call.")
        visitor.page.locator("#again").click()
        expect(visitor.page.locator("#number")).to_be_focused()
        visitor.page.reload()
        expect(visitor.page.locator("#wish")).to_be_visible()


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
def test_a_bad_number_is_told_at_its_field(visitor: CallMePage, desk: Desk, typed: str, words: str) -> None:
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
    visitor.expect_now("We have your wish.")


def test_nobody_is_called_who_did_not_agree(visitor: CallMePage, desk: Desk) -> None:
    to = number()
    expect(visitor.page.locator("#consent-text")).to_have_text(CONSENT)
    visitor.fill(to, consent=False)
    visitor.submit()
    expect(visitor.fault("consent")).to_contain_text("only if you agree")
    expect(visitor.page.locator("#consent")).to_be_focused()
    assert kept(desk, to) == []


def test_a_time_is_kept_as_the_visitors_clock_shows_it(visitor: CallMePage, desk: Desk) -> None:
    to = number()
    visitor.fill(to)
    visitor.later("2020-01-01T10:00")
    visitor.submit()
    expect(visitor.fault("when")).to_contain_text("in the past")
    day = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    visitor.later(f"{day}T09:30")
    visitor.submit()
    visitor.expect_now("Your callback is booked.")
    expect(visitor.page.locator("#more")).to_contain_text("9:30")
    (row,) = kept(desk, to)
    assert (row.wall_time, row.timezone) == (f"{day}T09:30:00", "America/New_York")
    visitor.cancel.click()
    visitor.expect_now("Nobody will call you.")
    assert kept(desk, to)[0].status == "cancelled"


def test_a_reload_goes_on_watching(visitor: CallMePage, desk: Desk) -> None:
    to = number()
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("We have your wish.")
    tell(desk, kept(desk, to)[0], "calling_customer")
    visitor.page.reload()
    visitor.expect_now("Your phone is ringing.")
    assert len(kept(desk, to)) == 1
    # It ended while nobody looked.
    visitor.page.goto("about:blank")
    tell(desk, kept(desk, to)[0], "failed", "busy")
    visitor.page.goto(visitor.address)
    visitor.expect_now("We could not reach you.")


def test_a_lost_answer_and_a_second_press_are_one_callback(visitor: CallMePage, desk: Desk) -> None:
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
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("We have your wish.")
    assert len(kept(desk, to)) == 1


def test_a_first_try_that_is_still_in_work_is_not_asked_anew(visitor: CallMePage, desk: Desk) -> None:
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
    expect(visitor.fault()).to_contain_text("Still in work")
    visitor.submit()
    visitor.expect_now("We have your wish.")
    assert used[0] == used[1]


def test_a_web_that_goes_away_is_told_and_comes_back(visitor: CallMePage, desk: Desk) -> None:
    to = number()
    visitor.fill(to)
    visitor.submit()
    visitor.expect_now("We have your wish.")
    desk.stop("api", kill=True)
    expect(visitor.page.locator("#link")).to_be_visible()
    expect(visitor.page.locator("#link")).to_contain_text("your callback is not")
    desk.start_web()
    expect(visitor.page.locator("#link")).to_be_hidden(timeout=60_000)
    tell(desk, kept(desk, to)[0], "calling_agent")
    visitor.expect_now("We are finding someone for you.", seconds=60)


def test_a_callback_that_nobody_knows_any_more_leads_back_to_the_form(visitor: CallMePage, site: str) -> None:
    gone = json.dumps({"id": "00000000-0000-4000-8000-000000000000", "token": "none"})
    visitor.page.evaluate("([name, text]) => sessionStorage.setItem(name, text)", [f"rb:callback:{site}", gone])
    visitor.page.reload()
    expect(visitor.fault()).to_contain_text("not known any more")
    expect(visitor.page.locator("#wish")).to_be_visible()
    visitor.page.reload()
    expect(visitor.fault()).to_be_hidden()


@pytest.mark.parametrize("size", [DESKTOP, PHONE, ZOOMED], ids=["desktop", "phone", "zoomed"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_at_every_size(
    visitor: CallMePage, desk: Desk, size: ViewportSize, scheme: Any
) -> None:
    visitor.page.set_viewport_size(size)
    visitor.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    visitor.fill("hello")
    visitor.later(None)
    visitor.submit()
    expect(visitor.fault("number")).to_be_visible()
    assert violations(visitor.page) == []
    assert sideways(visitor.page) <= 0
    visitor.keep(f"call-me-form-{size['width']}-{scheme}.png")
    to = number()
    visitor.page.locator("#number").fill(to)
    visitor.submit()
    visitor.expect_now(re.compile("."))
    tell(desk, kept(desk, to)[0], "calling_customer")
    visitor.expect_now("Your phone is ringing.")
    assert violations(visitor.page) == []
    assert sideways(visitor.page) <= 0
    visitor.keep(f"call-me-progress-{size['width']}-{scheme}.png")


def test_a_site_that_is_not_there_is_a_plain_404(page: Page, desk: Desk) -> None:
    answer = page.goto(f"{desk.url}/call-me/nope")
    assert answer is not None and answer.status == 404
