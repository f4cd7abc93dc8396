"""What two people see: a visitor at the form, an agent at the desk, a real PBX between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import DESKTOP, AgentPage, SupervisorPage, faultless, sign_in
from playwright.sync_api import Browser, Page, expect
from rig import until
from stack import PASSWORD, QUICK, Site, Stack

from ringbridge_lab.lab import Behaviour, Lab

pytestmark = [pytest.mark.pbx, pytest.mark.browser]
pytest_plugins = ["desk_fixtures"]

CONSENT = "I agree to be called by Northwind about my request."


@pytest.fixture(scope="module")
def seats(stack: Stack) -> None:
    stack.make_agent("101")
    stack.make_agent("102")


@pytest.fixture(scope="module")
def site(stack: Stack) -> Site:
    site = stack.make_site("Northwind", limits=QUICK, consent_text=CONSENT)
    client = {"client_id": site.client}
    for number in ("+12125550101", "+12125550110"):
        script = stack.admin.ok("GET", f"/api/v1/scripts?client_id={site.client}")["items"][0]["id"]
        stack.admin.ok("POST", "/api/v1/dids", {**client, "number": number, "script_id": script})
    numbers = {"numbers": ["+16465550111"]}
    stack.admin.ok(
        "POST", "/api/v1/customers", {**client, "name": "Ada Byron", "company": "Engines", **numbers}
    )
    return site


@pytest.fixture
def agent(page: Page, lab: Lab, stack: Stack, seats: None) -> Iterator[AgentPage]:
    desk = sign_in(page, f"http://127.0.0.1:{stack.port}", "agent101", PASSWORD, lab.device("101")).live()
    desk.ready()
    yield desk
    page.keyboard.press("Alt+p")


@pytest.fixture
def visitor(browser: Browser, stack: Stack, site: Site) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 420, "height": 900}, locale="en-US")
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{stack.port}/call-me/{site.key}")
    yield page
    context.close()


def keep(page: Page, name: str) -> None:
    """A screenshot for people to look at, where one is wanted."""
    folder = os.environ.get("RINGBRIDGE_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_the_form_rings_and_the_screen_knows_why(
    lab: Lab, stack: Stack, site: Site, agent: AgentPage, visitor: Page
) -> None:
    lab.phone("101", answer_after=8)
    with faultless(agent.page), faultless(visitor):
        visitor.fill("#number", "(646) 555-0113")
        visitor.fill("#name", "Grace <b>Hopper</b>")
        visitor.fill("#note", "Two pallets, {by} Friday | $5")
        visitor.check("#consent")
        visitor.click("#wish [type=submit]")
        agent.pop("ringing")
        # The pop is on the screen while the phone still rings: the world says that nobody has answered.
        made = stack.rows("SELECT id, status, consent_text FROM callbacks ORDER BY created_at DESC LIMIT 1")[
            0
        ]
        assert made["status"] == "calling_agent"
        assert made["consent_text"] == CONSENT
        assert agent.text("client-name") == "Northwind"
        expect(agent.page.locator(".pop:not([hidden])")).to_contain_text("Grace <b>Hopper</b>")
        assert "Two pallets, {by} Friday | $5" in agent.page.locator(".pop:not([hidden])").inner_text()
        assert "Hello" in agent.text("script")
        keep(agent.page, "form-pop-ringing")
        expect(visitor.locator("#progress")).to_be_visible()
        agent.pop("connected", 30)
        keep(visitor, "form-visitor")
        agent.hang_up()
        agent.pop("ended")
        agent.save(1, "Wants two pallets")
        agent.idle()
        pops = until(lambda: stack.rows("SELECT acked_at, painted_ms FROM pops WHERE acked_at IS NOT NULL"))
        assert pops[0]["painted_ms"] is not None
    until(lambda: stack.rows("SELECT status FROM callbacks WHERE id = ?", made["id"])[0]["status"] == "done")
    saved = stack.rows("SELECT disposition, note FROM calls WHERE callback_id = ?", made["id"])
    assert saved[0]["note"] == "Wants two pallets"
    assert saved[0]["disposition"]


def test_a_known_caller_to_the_did_is_known_before_the_answer(
    lab: Lab, stack: Stack, site: Site, agent: AgentPage
) -> None:
    lab.phone("101", answer_after=8)
    caller = lab.call("+12125550101", caller="+16465550111", name="<script>alert(1)</script>")
    with faultless(agent.page):
        agent.pop("ringing")
        assert "Ada Byron" in agent.page.locator(".pop:not([hidden])").inner_text()
        assert agent.text("client-name") == "Northwind"
        agent.pop("connected")
        keep(agent.page, "inbound-connected")
        caller.hang_up()
        agent.pop("ended")
        agent.save(2, "")
        agent.idle()


def test_of_five_ringing_phones_each_signed_in_agent_has_one_pop(
    lab: Lab, stack: Stack, site: Site, agent: AgentPage, browser: Browser
) -> None:
    for extension in ("101", "103", "104", "105"):
        lab.phone(extension, Behaviour.NO_ANSWER)
    lab.phone("102", answer_after=2)
    context = browser.new_context(viewport=DESKTOP)
    other = sign_in(
        context.new_page(), f"http://127.0.0.1:{stack.port}", "agent102", PASSWORD, lab.device("102")
    ).live()
    other.ready()
    caller = lab.call("+12125550110", caller="+13125550177")
    agent.pop("ringing")
    other.pop("connected")
    # Answered elsewhere: the first agent's screen says so and asks for nothing.
    expect(agent.page.locator('.pop[data-state="ringing"]')).to_have_count(0)
    assert other.pops.count() == 1
    caller.hang_up()
    other.pop("ended")
    other.save(1, "")
    other.idle()
    context.close()


def test_the_supervisor_sees_the_day(lab: Lab, stack: Stack, site: Site, browser: Browser) -> None:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    sign_in(page, f"http://127.0.0.1:{stack.port}", "boss", PASSWORD)
    board = SupervisorPage(page, f"http://127.0.0.1:{stack.port}")
    expect(board.rows("calls").first).to_be_visible()
    keep(page, "supervisor")
    for wanted in ("stopped", "on"):
        board.move_dialling()
        until(
            lambda wanted=wanted: stack.rows("SELECT value FROM switches WHERE name = 'dialing'")
            == [{"value": wanted}]
        )
    context.close()
