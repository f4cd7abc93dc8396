"""Opening hours in a supervisor's hands: seen, changed, refused with the field, never lost by a slip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from desk import PASSWORD, Desk
from pages import PHONE, ZOOMED, CalendarsPage, faultless, keep, sideways, sign_in, violations
from playwright.sync_api import Page, expect
from sqlalchemy import delete, select

from bridge.store.models import Calendar, Site

pytest_plugins = ["desk_fixtures"]
pytestmark = pytest.mark.browser

WEEKLY = {"monday": [{"opens": "09:00", "closes": "12:00"}, {"opens": "13:00", "closes": "24:00", "agents": 3}]}


@pytest.fixture
def calendar(desk: Desk) -> Iterator[str]:
    """A calendar that a site and one of its queues keep."""
    with desk.database.begin() as db:
        db.execute(delete(Calendar).where(~select(Site.id).where(Site.calendar_id == Calendar.id).exists()))
    made: str = desk.admin.post("/api/v1/calendars", {
        "client_id": desk.client, "name": "Aaa main", "timezone": "America/New_York", "weekly": WEEKLY,
        "country": "US", "subdivision": "NY", "agents": 2,
        "special_days": [{"date": "2026-12-24", "name": "Christmas Eve",
                          "hours": [{"opens": "09:00", "closes": "12:00"}]}],
    })["id"]  # fmt: skip
    site = desk.admin.post("/api/v1/sites", {
        "client_id": desk.client, "name": "Hours shop", "timezone": "America/New_York", "calendar_id": made,
        "queue_calendars": {"sales": made},
    })["id"]  # fmt: skip
    yield made
    with desk.database.begin() as db:
        db.delete(db.get_one(Site, site))
        db.flush()
        db.execute(delete(Calendar).where(Calendar.id == made))


@pytest.fixture
def ines(page: Page, desk: Desk, calendar: str) -> CalendarsPage:
    sign_in(page, desk.url, "ines", PASSWORD)
    return CalendarsPage(page, desk.url)


def row(desk: Desk, calendar: str) -> Any:
    with desk.database.read() as db:
        return db.get_one(Calendar, calendar)


def test_hours_are_seen_changed_and_kept(ines: CalendarsPage, desk: Desk, calendar: str) -> None:
    page = ines.page
    with faultless(page):
        expect(page.locator("#used")).to_have_text("Kept by: Hours shop; Hours shop, queue sales.")
        monday = ines.day("monday")
        expect(monday.get_by_label("Monday, closes").nth(1)).to_have_value("00:00")
        expect(ines.day("sunday")).to_contain_text("Closed")
        expect(page.locator("#holidays summary")).to_contain_text("public holidays in the year to come")
        page.locator("#holidays summary").click()
        expect(page.locator("#holidays")).to_contain_text("Independence Day")
        expect(page.locator("#save")).to_be_disabled()
        assert violations(page) == []
        keep(page, "calendars.png")
        monday.get_by_role("button", name="Same until Friday").click()
        ines.day("saturday").get_by_role("button", name="Add hours").click()
        expect(ines.day("saturday").get_by_label("Saturday, opens")).to_be_focused()
        page.locator("#add-day").click()
        page.keyboard.press("Tab")
        added = page.locator(".special-day").last
        added.get_by_label("Date", exact=True).fill("2026-12-31")
        added.get_by_label("Name of the day").fill("Stocktaking <b>")
        page.locator("#save").focus()
        page.keyboard.press("Enter")
        ines.saved()
    found = row(desk, calendar)
    assert set(found.weekly) >= {"monday", "friday", "saturday"} and found.weekly["friday"] == found.weekly["monday"]
    assert found.weekly["friday"][1] == {"opens": "13:00", "closes": "24:00", "agents": 3}
    assert found.weekly["saturday"][0]["opens"] == "09:00"
    assert [day["name"] for day in found.special_days] == ["Christmas Eve", "Stocktaking <b>"]
    assert (found.agents, found.slot_minutes, found.subdivision) == (2, 30, "NY")


def test_what_is_wrong_is_told_at_its_field_and_nothing_is_lost(
    ines: CalendarsPage, desk: Desk, calendar: str
) -> None:
    page = ines.page
    with faultless(page):
        closes = ines.day("monday").get_by_label("Monday, closes").first
        closes.fill("08:00")
        ines.save()
        expect(page.locator("#fault")).not_to_be_empty()
        expect(page.locator("[aria-invalid=true]")).to_be_focused()
        assert violations(page) == []
        # Another calendar, or none: the changes are asked about first.
        page.locator("#new").click()
        page.get_by_role("button", name="Leave it as it is").click()
        expect(closes).to_have_value("08:00")
        page.locator("#undo").click()
        expect(closes).to_have_value("12:00")
        expect(page.locator("#fault")).to_be_empty()
        page.locator("#delete").click()
        page.locator("#confirm-yes").click()
        expect(page.locator("#fault")).not_to_be_empty()
    assert row(desk, calendar).weekly["monday"][0]["closes"] == "12:00"


def test_a_new_one_is_made_and_deleted(ines: CalendarsPage, desk: Desk) -> None:
    page = ines.page
    with faultless(page):
        page.locator("#new").click()
        expect(page.locator("#name")).to_be_focused()
        page.keyboard.insert_text("Aab winter")
        page.locator("#timezone").fill("Europe/Warsaw")
        ines.save()
        ines.saved()
        expect(page.locator("#form-title")).to_have_text("Aab winter")
        page.locator("#delete").click()
        page.locator("#confirm-yes").click()
        expect(page.locator("#form-title")).to_have_text("Aaa main")


@pytest.mark.parametrize("size", [PHONE, ZOOMED], ids=["phone", "zoomed"])
def test_it_fits_small_screens(ines: CalendarsPage, size: dict[str, int]) -> None:
    ines.page.set_viewport_size(size)  # type: ignore[arg-type]
    ines.page.emulate_media(color_scheme="dark")
    assert sideways(ines.page) <= 0
    assert violations(ines.page) == []
    keep(ines.page, f"calendars-{size['width']}.png")
