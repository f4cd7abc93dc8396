"""Fixtures of the browser tests. A plugin of its own, since a second conftest.py would hide the first from imports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import PASSWORD, Desk
from pages import DESKTOP, AgentPage, launch, sign_in
from playwright.sync_api import Browser, Page, sync_playwright

from bridge.live import keys


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Desk]:
    running = Desk(tmp_path_factory.mktemp("desk"), migrated_database)
    yield running
    running.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("no chromium on the PATH; install it with: apt install chromium")
    with sync_playwright() as playwright:
        running = launch(playwright, chromium)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh browser profile at the size of a small desk screen."""
    context = browser.new_context(viewport=DESKTOP, locale="en-US", timezone_id="America/New_York")
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def maria(page: Page, desk: Desk) -> AgentPage:
    """Maria at her desk, ready, with nothing left over from another test."""
    desk.redis.delete(keys.pops(desk.agents["maria"]))
    agent = sign_in(page, desk.url, "maria", PASSWORD, "PJSIP/101").live()
    agent.ready()
    return agent
