"""The pages of Ringbridge as a person uses them: page objects for every browser test.

Selectors live here alone. A test that runs against the lab uses these classes too:

    agent = sign_in(page, url, "maria", password, device="PJSIP/101")
    agent.ready()
    pop = agent.pop()          # waits until one is painted
    agent.save("sale", "Wants two")
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Playwright, ViewportSize, expect

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--no-default-browser-check"),
    # Nothing but this machine can be reached, so no test depends on what is outside.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
DESKTOP: ViewportSize = {"width": 1366, "height": 768}
TABLET: ViewportSize = {"width": 820, "height": 1180}
PHONE: ViewportSize = {"width": 390, "height": 844}
ZOOMED: ViewportSize = {"width": 320, "height": 640}
"""What is left of a desk screen for someone who reads at 400 %."""
WCAG = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}


# Five seconds is what a page has for everything otherwise: too few on a machine that does much else.
expect.set_options(timeout=30_000)


def launch(playwright: Playwright, chromium: str) -> Browser:
    """The machine's own Chromium, without a network of its own."""
    return playwright.chromium.launch(executable_path=chromium, args=list(QUIET), timeout=120_000)


def sign_in(page: Page, url: str, username: str, password: str, device: str | None = None) -> AgentPage:
    """Sign in with the keyboard alone, choosing a phone where there is a choice."""
    page.goto(f"{url}/login")
    expect(page.locator("#username")).to_be_focused()
    page.keyboard.type(username)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    expect(page.locator("#devices:not([hidden]), #work")).to_be_visible()
    if "/login" in page.url:
        choose_phone(page, device)
    page.wait_for_url(re.compile(r"/(agent|supervisor)$"))
    return AgentPage(page)


def choose_phone(page: Page, device: str | None) -> None:
    """Second step of the sign-in, with arrow keys; the phone that is preset where `device` is None."""
    radios = page.locator("#device-list input:not([disabled])")
    expect(page.locator("#device-list input:checked")).to_be_focused()
    for _ in range(radios.count()):
        if device is None or page.locator("#device-list input:checked").get_attribute("value") == device:
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")


def violations(page: Page) -> list[str]:
    """What axe-core objects to, a line each."""
    found: dict[str, Any] = Axe().run(page, options=WCAG).response
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def sideways(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def keep(page: Page, name: str) -> None:
    """A picture for people, where RINGBRIDGE_SCREENSHOTS names a folder for it."""
    folder = os.environ.get("RINGBRIDGE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / name)


@contextmanager
def faultless(page: Page) -> Iterator[None]:
    """Nothing in here may throw in the page or be refused by its Content-Security-Policy."""
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Security Policy" in line.text else None)
    yield
    assert faults == []


class AgentPage:
    """The page an agent works on."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def live(self) -> AgentPage:
        """Wait for the event stream."""
        expect(self.page.locator("#link")).to_have_attribute("data-link", "live")
        return self

    @property
    def state(self) -> str:
        """ready, paused, wrapup or offline."""
        return self.page.locator("#idle-state").get_attribute("data-state") or ""

    def expect_state(self, state: str) -> None:
        expect(self.page.locator("#idle-state")).to_have_attribute("data-state", state)

    def ready(self) -> None:
        self.page.keyboard.press("Alt+r")
        self.expect_state("ready")

    def pause(self, reason: int = 1) -> None:
        """Pause with the n-th reason of the menu."""
        self.page.keyboard.press("Alt+p")
        self.page.keyboard.press(str(reason))
        self.expect_state("paused")

    def wrapup(self) -> None:
        self.page.keyboard.press("Alt+w")
        self.expect_state("wrapup")

    @property
    def pops(self) -> Locator:
        """Every call on the page, shown or in a tab."""
        return self.page.locator(".pop")

    @property
    def tabs(self) -> Locator:
        return self.page.locator(".tab")

    def pop(self, state: str | None = None, seconds: float = 30) -> Locator:
        """The call that is shown; waits for it, and for its state (ringing, connected, held, ended)."""
        shown = self.page.locator(f'.pop[data-state="{state}"]' if state else ".pop").locator("visible=true")
        expect(shown).to_be_visible(timeout=seconds * 1000)
        return shown

    def slot(self, slot: str) -> Locator:
        """A part of the shown call: name, number, state, client-name, script, greeting, customer, callback ..."""
        return self.page.locator(f'.pop:not([hidden]) [data-slot="{slot}"]')

    def text(self, slot: str) -> str:
        """What a part of the shown call says now."""
        return self.slot(slot).inner_text().strip()

    def expect_text(self, slot: str, words: str) -> None:
        """Wait until a part of the shown call says this."""
        expect(self.slot(slot)).to_have_text(words)

    def idle(self) -> None:
        """Wait until no call is on the page."""
        expect(self.page.locator("#idle")).to_be_visible()

    def choose_outcome(self, position: int) -> None:
        self.page.keyboard.press(f"Alt+{position}")

    def write(self, note: str) -> None:
        self.page.keyboard.press("Alt+n")
        expect(self.page.locator(".pop:not([hidden]) textarea")).to_be_focused()
        self.page.keyboard.type(note)

    def save(self, position: int | None = None, note: str = "") -> None:
        """Choose the n-th outcome, write a note, save: all by keys."""
        if position is not None:
            self.choose_outcome(position)
        if note:
            self.write(note)
        self.page.keyboard.press("Alt+s")

    def hang_up(self) -> None:
        self.page.keyboard.press("Alt+h")

    @property
    def problems(self) -> Locator:
        return self.page.locator(".problem")


class SupervisorPage:
    """The board of the day."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(f"{url}/supervisor")
        expect(page.locator("#link")).to_have_attribute("data-link", "live")

    def rows(self, table: str) -> Locator:
        """`agents`, `callbacks` or `calls`."""
        return self.page.locator(f"#{table} tr")

    def move_dialling(self, *, confirm: bool = True) -> None:
        """Press the big switch and answer its question."""
        self.page.locator("#dialling").click()
        expect(self.page.locator("#confirm")).to_be_visible()
        self.page.locator("#confirm-yes" if confirm else "#confirm button[value=no]").click()
        expect(self.page.locator("#confirm")).to_be_hidden()

    @property
    def dialling(self) -> str:
        return self.page.locator("#dialling-word").inner_text()


class CallbackWidget:
    """A visitor's form, wherever a page holds it, and how their callback goes on."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        page.goto(address)

    @property
    def launcher(self) -> Locator:
        """The button in the page's corner; it says how a callback goes on while the form is closed."""
        return self.page.locator("ringbridge-call .launch")

    def open(self) -> CallbackWidget:
        """Press the button in the corner with the keyboard; returns when the form is there."""
        self.launcher.focus()
        self.page.keyboard.press("Enter")
        return self.ready()

    def ready(self) -> CallbackWidget:
        expect(self.page.locator("#wish")).to_be_visible()
        return self

    def fill(self, number: str, *, name: str = "", note: str = "", consent: bool = True) -> None:
        """Everything but the time, from field to field with the Tab key."""
        page = self.page
        page.locator("#number").focus()
        page.keyboard.insert_text(number)
        page.keyboard.press("Tab")
        page.keyboard.insert_text(name)
        page.locator("#note").focus()
        page.keyboard.insert_text(note)
        page.keyboard.press("Tab")
        if consent:
            expect(page.locator("#consent")).to_be_focused()
            page.keyboard.press("Space")

    def later(self) -> None:
        self.page.locator("[name=moment][value=later]").check()

    def submit(self) -> None:
        self.page.locator("#wish [type=submit]").focus()
        self.page.keyboard.press("Enter")

    def expect_now(self, words: str | re.Pattern[str], seconds: float = 30) -> None:
        expect(self.page.locator("#now")).to_have_text(words, timeout=seconds * 1000)

    def fault(self, field: str = "") -> Locator:
        """What is said at a field, or about the whole form."""
        return self.page.locator(f"#{field}-fault" if field else "#fault")

    @property
    def cancel(self) -> Locator:
        return self.page.locator("#cancel")

    def move(self) -> None:
        """Ask for another time; returns when one can be chosen."""
        self.page.locator("#move").click()
        expect(self.page.locator("#moving form")).to_be_visible()

    def keep(self, name: str) -> None:
        keep(self.page, name)


class CalendarsPage:
    """The opening hours, as a supervisor changes them."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(f"{url}/supervisor/calendars")
        expect(page.locator("#form")).to_be_visible()

    def day(self, name: str) -> Locator:
        return self.page.locator(f"[data-day={name}]")

    def save(self) -> None:
        self.page.locator("#save").click()

    def saved(self) -> None:
        expect(self.page.locator("#toast")).to_contain_text("Saved")
        expect(self.page.locator("#save")).to_be_disabled()


class CallbacksPage:
    """The supervisor's callbacks."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(f"{url}/supervisor/callbacks")
        expect(page.locator("#link")).to_have_attribute("data-link", "live")

    @property
    def rows(self) -> Locator:
        return self.page.locator("#rows tr[data-id]")

    def row(self, text: str) -> Locator:
        """The one that says this."""
        return self.rows.filter(has_text=text)

    def count(self, group: str) -> int:
        """What stands on a group's button."""
        return int(self.page.locator(".group", has_text=group).locator("b").inner_text())

    def group(self, group: str) -> None:
        self.page.locator(".group", has_text=group).click()

    def search(self, number: str) -> None:
        """Type a number and press Enter."""
        self.page.locator("#number").fill(number)
        self.page.keyboard.press("Enter")

    def pick(self, text: str) -> None:
        self.row(text).locator("input").check()

    def act(self, what: str, *, expected: str) -> None:
        """Press a button for what is picked; its question says `expected`, and is answered with yes."""
        self.page.locator(f"#{what}").click()
        expect(self.page.locator("#confirm-text")).to_contain_text(expected)
        self.page.locator("#confirm-yes").click()
