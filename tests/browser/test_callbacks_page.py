"""The supervisor's callbacks in a real browser: found, told why, and acted on many at once."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from desk import PASSWORD, Desk
from pages import (
    DESKTOP,
    PHONE,
    TABLET,
    ZOOMED,
    CallbacksPage,
    faultless,
    keep,
    sideways,
    sign_in,
    violations,
)
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from bridge.services import audit
from bridge.services.budgets import NOTICE
from bridge.services.refusals import FLOOD
from bridge.store.models import Attempt, AttemptChange, Audit, Callback, Site

pytest_plugins = ["desk_fixtures"]
pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=document.title='owned'>=1+1 \u202eevil"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A browser in a place where it is about noon: what was twenty minutes ago was today, whenever the tests run."""
    east = 12 - datetime.now(UTC).hour
    # The names of these zones count to the west.
    context = browser.new_context(viewport=DESKTOP, locale="en-US", timezone_id=f"Etc/GMT{-east:+d}" if east else "UTC")
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def shop(desk: Desk) -> Iterator[str]:
    """A site in a company without any callback: others who used the desk may have left some."""
    with desk.database.begin() as db:
        forget(db)
        row = Site(client_id=desk.client, key="shop-key", name="Northwind shop", created_at=datetime.now(UTC))
        db.add(row)
    yield row.id
    with desk.database.begin() as db:
        forget(db)
        db.execute(delete(Audit).where(Audit.action.in_([FLOOD, NOTICE])))
        db.delete(db.get_one(Site, row.id))


def forget(db: Session) -> None:
    for table in (AttemptChange, Attempt, Callback):
        db.execute(delete(table))


def add(desk: Desk, shop: str, number: str, name: str = "", status: str = "failed", **more: object) -> str:
    """A callback that was asked for twenty minutes ago, and promised for half a minute later."""
    at = datetime.now(UTC) - timedelta(minutes=20)
    values: dict[str, object] = {
        "created_at": at, "due_at": at, "promised_at": at + timedelta(seconds=30),
        "expires_at": at + timedelta(hours=8), "tries": 0,
        "ended_at": None if status in ("queued", "scheduled") else at + timedelta(minutes=5),
    }  # fmt: skip
    with desk.database.begin() as db:
        row = Callback(client_id=desk.client, site_id=shop, number=number, name=name, status=status, **(values | more))
        db.add(row)
    return row.id


def tried(desk: Desk, callback: str, reason: str, minutes: int) -> None:
    """An attempt of Tom's whose customer's phone rang."""
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    with desk.database.begin() as db:
        row = Attempt(
            created_at=at, client_id=desk.client, callback_id=callback, pbx="lab", agent_id=desk.agents["tom"],
            number="+16465550101", state="failed", reason=reason, claimed_at=at, ended_at=at + timedelta(minutes=1),
        )  # fmt: skip
        db.add(row)
        db.flush()
        change = AttemptChange(attempt_id=row.id, at=at + timedelta(seconds=9), old="dialing", new="ringing")
        db.add(change)


@pytest.fixture
def ines(page: Page, desk: Desk, shop: str) -> CallbacksPage:
    """The supervisor in front of five callbacks."""
    first = add(desk, shop, "+16465550101", "Ann Lee", reason="no_answer", tries=2, note="Asks for the larger tank")
    tried(desk, first, "busy", 19)
    tried(desk, first, "no_answer", 16)
    add(desk, shop, "+16465550102", "Bob Stone", reason="outcome_unknown")
    add(desk, shop, "+16465550103", HOSTILE, status="expired", reason="not_reached_in_time")
    add(desk, shop, "+16465550104", status="queued", assigned_to=desk.agents["tom"])
    add(desk, shop, "+16465550105", "Eve Marsh", status="cancelled", reason="cancelled_by_visitor")
    sign_in(page, desk.url, "ines", PASSWORD)
    return CallbacksPage(page, desk.url)


def status_of(desk: Desk, number: str) -> list[str]:
    with desk.database.read() as db:
        rows = db.scalars(select(Callback).where(Callback.number == number).order_by(Callback.created_at))
        return [row.status for row in rows]


def test_the_day_says_what_was_promised_what_came_of_it_and_what_to_do(ines: CallbacksPage, desk: Desk) -> None:
    page = ines.page
    with faultless(page):
        expect(ines.rows).to_have_count(5)
        ann = ines.row("Ann Lee")
        expect(ann).to_contain_text("The customer did not pick up.Re-queue it to try once more, or leave it.")
        expect(ann).to_contain_text("late")
        ann.locator("summary").click()
        expect(ann.locator(".tried li")).to_have_count(2)
        expect(ann.locator(".tried")).to_contain_text("Tom Okafor")
        waits = ines.row("(646) 555-0104")
        expect(waits).to_contain_text("For Tom Okafor")
        expect(waits).to_contain_text("It waits for Tom Okafor alone")
        expect(ines.row("<img")).to_contain_text(HOSTILE)
        assert "owned" not in page.title()
        assert ines.count("Failed or expired") == 3
        assert violations(page) == []
        assert sideways(page) <= 0
        keep(page, "callbacks.png")
        # What moves elsewhere is seen here, and what was opened stays open.
        with desk.database.read() as db:
            callback = db.scalars(select(Callback.id).where(Callback.number == "+16465550104")).one()
        desk.admin.post("/api/v1/callbacks/cancel", {"ids": [callback]})
        expect(waits).to_contain_text("A supervisor cancelled it.")
        expect(ann.locator(".tried li").first).to_be_visible()


def test_search_by_number_filters_and_export(ines: CallbacksPage, desk: Desk) -> None:
    page = ines.page
    with faultless(page):
        ines.search("646 555-0102")
        expect(ines.rows).to_have_count(1)
        expect(ines.rows).to_contain_text("Bob Stone")
        ines.search("1-800-FLOWERS")
        expect(page.locator("#number-fault")).to_contain_text("Search for a number in digits")
        assert violations(page) == []
        ines.search("0103")
        expect(page.locator("#number-fault")).to_be_empty()
        with page.expect_download() as saving:
            page.locator("#export").click()
        text = Path(saving.value.path()).read_text(encoding="utf-8-sig")
        assert re.fullmatch(r"callbacks-\d{4}-\d\d-\d\d\.csv", saving.value.suggested_filename)
        [row] = csv.DictReader(io.StringIO(text))
        assert (row["name"], row["number"]) == (HOSTILE, "'+16465550103")
        page.locator("#clear").click()
        ines.group("Cancelled")
        expect(ines.rows).to_have_count(1)
        expect(ines.rows).to_contain_text("Do not call")


def test_many_are_picked_with_keys_requeued_and_each_answered_for(ines: CallbacksPage, desk: Desk) -> None:
    page = ines.page
    with faultless(page):
        expect(ines.rows).to_have_count(5)
        boxes = page.locator("#rows input")
        boxes.first.focus()
        page.keyboard.press("Space")
        for _ in range(4):
            page.keyboard.press("Shift+ArrowDown")
        expect(page.locator("#chosen")).to_have_text("5 selected")
        page.keyboard.press("Space")
        expect(page.locator("#chosen")).to_have_text("4 selected")
        page.keyboard.press("Space")
        keep(page, "callbacks-selected.png")
        ines.act("requeue", expected="1 of them may have been talked with already")
        expect(page.locator("#results-title")).to_have_text("3 re-queued, 2 not")
        said = page.locator("#results-list")
        expect(said).to_contain_text("Eve Marsh: The customer cancelled it")
        expect(said).to_contain_text("(646) 555-0104: This callback is still open")
        assert violations(page) == []
        keep(page, "callbacks-results.png")
        page.keyboard.press("Enter")
        expect(page.locator("#chosen")).to_have_text("2 selected")
        expect(ines.rows).to_have_count(8)
    assert status_of(desk, "+16465550101") == ["failed", "queued"]


def test_assign_and_cancel(ines: CallbacksPage, desk: Desk) -> None:
    page = ines.page
    ines.pick("(646) 555-0104")
    page.locator("#assign").click()
    page.locator("#to").select_option(label="Maria Fernández")
    keep(page, "callbacks-assign.png")
    assert violations(page) == []
    page.locator("#confirm-yes").click()
    expect(ines.row("(646) 555-0104")).to_contain_text("For Maria Fernández")
    ines.pick("(646) 555-0104")
    ines.act("cancel", expected="Nobody calls these customers then")
    expect(ines.row("(646) 555-0104")).to_contain_text("Cancelled")
    assert status_of(desk, "+16465550104") == ["cancelled"]


def test_an_attack_is_told(ines: CallbacksPage, desk: Desk, shop: str) -> None:
    now = datetime.now(UTC)
    detail = {"refused": 53, "number_type_not_allowed": 40, "region_not_allowed": 13}
    with desk.database.begin() as db:
        audit.record(db, now, audit.OURSELVES, FLOOD, shop, desk.client, detail)
    ines.page.reload()
    notice = ines.page.locator(".notice")
    expect(notice).to_contain_text("Many requests refused at Northwind shop")
    expect(notice).to_contain_text("number type not allowed: 40")
    assert violations(ines.page) == []


def test_a_spent_budget_is_told(ines: CallbacksPage, desk: Desk, shop: str) -> None:
    detail = {"budget": "site", "day": "2026-05-04"}
    with desk.database.begin() as db:
        audit.record(db, datetime.now(UTC), audit.OURSELVES, NOTICE, shop, desk.client, detail)
    ines.page.reload()
    notice = ines.page.locator(".notice")
    expect(notice).to_contain_text(re.compile("The budget of Northwind shop for Monday.* was spent at "))
    expect(notice).to_contain_text("An administrator can raise the budget")


def test_the_share_of_promises_kept_and_where_callbacks_come_from(ines: CallbacksPage, desk: Desk, shop: str) -> None:
    page, at = ines.page, datetime.now(UTC) - timedelta(seconds=1)
    for number, kept in enumerate([True] * 12 + [False] * 8):
        add(desk, shop, f"+16465550{200 + number}", status="done", expected_at=at, promise_kept=kept, source="missed")
    with faultless(page):
        page.reload()
        line = page.locator("#promises")
        expect(line).to_contain_text("Promises kept today12 of 20 (60 %)")
        expect(line).to_contain_text("Northwind shop promises no time now.")
        page.locator("#day").fill("")
        page.locator("#source").select_option("missed")
        expect(ines.rows).to_have_count(20)
        expect(ines.rows.first).to_contain_text("missed call")
        assert violations(page) == []
        keep(page, "callbacks-promises.png")
        page.locator("#source").select_option("queue")
        expect(ines.rows).to_have_count(0)
        page.set_viewport_size(ZOOMED)
        assert sideways(page) <= 0
        keep(page, "callbacks-promises-320.png")


@pytest.mark.parametrize("size", [TABLET, PHONE, ZOOMED], ids=["tablet", "phone", "zoomed"])
def test_it_fits_small_screens(ines: CallbacksPage, size: dict[str, int]) -> None:
    ines.page.set_viewport_size(size)  # type: ignore[arg-type]
    expect(ines.rows).to_have_count(5)
    assert sideways(ines.page) <= 0
    assert violations(ines.page) == []
    keep(ines.page, f"callbacks-{size['width']}.png")
