"""The agent's page in a real browser, in front of the real web part; only the PBX's words are ours."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import pytest
from desk import PASSWORD, Desk
from pages import (
    DESKTOP,
    PHONE,
    TABLET,
    ZOOMED,
    AgentPage,
    SupervisorPage,
    choose_phone,
    faultless,
    sideways,
    sign_in,
    violations,
)
from playwright.sync_api import Browser, Page, ViewportSize, expect
from rig import until
from sqlalchemy import select

from bridge.live import screens
from bridge.store.models import Agent, AgentState, Call, Pop

pytest_plugins = ["desk_fixtures"]
pytestmark = pytest.mark.browser

HOSTILE = [
    "<img src=x onerror=document.title='owned'>",
    "</span><script>document.title='owned'</script>",
    "{{constructor.constructor('alert(1)')()}} ${1} %0AEvent: x",
    "\u202eevil\u202c Ñandú 王小明 🎉",
    "W" * 190,
]


def painted(desk: Desk, call: str, username: str = "maria") -> Pop:
    """The pop's row once the page has acknowledged it."""

    def acknowledged() -> Pop | None:
        with desk.database.read() as db:
            row = db.get(Pop, f"{call}:{desk.agents[username]}")
            return row if row is not None and row.acked_at is not None else None

    return until(acknowledged, what=f"the acknowledgement of {call}")


def keep(page: Page, name: str) -> None:
    """A picture for people, where RINGBRIDGE_SCREENSHOTS names a folder for it."""
    folder = os.environ.get("RINGBRIDGE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / name)


def recorded(desk: Desk, call: str) -> None:
    """Wait for the recorder, whose row a disposition needs."""

    def found() -> str | None:
        with desk.database.read() as db:
            return db.scalar(select(Call.id).where(Call.id == call))

    until(found, what="the call's row")


def test_signing_in_with_keys_alone_chooses_a_phone(page: Page, desk: Desk) -> None:
    with faultless(page):
        agent = sign_in(page, desk.url, "maria", PASSWORD, "PJSIP/111").live()
        agent.expect_state("paused")
        expect(page.locator("#who-name")).to_have_text("Maria Fernández")
        expect(page.locator("#who-device")).to_have_text("Phone 111")
        agent.ready()
    with desk.database.read() as db:
        state = db.get_one(AgentState, desk.agents["maria"])
        assert (state.state, state.device) == ("ready", "PJSIP/111")


def test_a_wrong_password_says_so_and_lets_one_try_again(page: Page, desk: Desk) -> None:
    page.goto(f"{desk.url}/login")
    page.keyboard.type("maria")
    page.keyboard.press("Tab")
    page.keyboard.type("not the password")
    page.keyboard.press("Enter")
    expect(page.locator("#refused")).to_contain_text("Check both and try again")
    assert violations(page) == []


def test_a_call_from_ring_to_saved_outcome(maria: AgentPage, desk: Desk) -> None:
    with faultless(maria.page):
        call = desk.ring("maria")
        maria.pop("ringing")
        # Until the lookup has answered, the name is the one that the caller's phone sent.
        maria.expect_text("name", "Dana Whitfield")
        assert maria.text("number") == "(646) 555-0142"
        assert maria.text("client-name") == "Northwind Heating"
        assert maria.text("greeting").startswith("Northwind Heating, good morning, this is Maria")
        assert "Thank you, Dana Whitfield." in maria.text("script")
        assert "ladder" in maria.text("customer")
        expect(maria.page).to_have_title("☎ Dana Whitfield · Northwind Heating")
        row = painted(desk, call)
        assert row.painted_ms is not None
        desk.connect(call, "maria")
        maria.pop("connected")
        maria.choose_outcome(1)
        maria.write("Wants the larger tank;")
        maria.page.keyboard.press("Enter")
        maria.page.keyboard.type("delivery in week 12.")
        desk.end(call)
        maria.pop("ended")
        maria.expect_state("wrapup")
        recorded(desk, call)
        maria.save()
        maria.idle()
        maria.expect_state("ready")
        expect(maria.page.locator("#recent li").first).to_contain_text("Sale")
    with desk.database.read() as db:
        row_of_call = db.get_one(Call, call)
        assert row_of_call.disposition == "sale"
        assert row_of_call.note == "Wants the larger tank; / delivery in week 12."
    maria.page.reload()
    maria.live()
    maria.idle()


def test_an_outcome_saved_while_talking_closes_the_call_when_it_ends(maria: AgentPage, desk: Desk) -> None:
    call = desk.ring("maria")
    desk.connect(call, "maria")
    maria.pop("connected")
    recorded(desk, call)
    maria.save(3, "Has a boiler already")
    expect(maria.page.locator(".pop .outcome-word")).to_contain_text("Saved")
    desk.end(call)
    maria.idle()
    maria.expect_state("ready")


def test_a_pop_needs_no_request_to_be_painted(maria: AgentPage, desk: Desk) -> None:
    asked: list[str] = []
    maria.page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    call = desk.ring("maria")
    maria.pop("ringing")
    painted(desk, call)
    assert [line for line in asked if not line.endswith("/ack")] == []
    desk.end(call, "abandoned", 0)


def test_ring_all_pops_for_both_and_clears_who_did_not_answer(
    browser: Browser, maria: AgentPage, desk: Desk
) -> None:
    context = browser.new_context()
    tom = sign_in(context.new_page(), desk.url, "tom", PASSWORD).live()
    call = desk.ring("maria", "tom")
    maria.pop("ringing")
    tom.pop("ringing")
    desk.connect(call, "tom")
    desk.say(call, "call.unoffered", party=desk.party("maria"), reason="answered_elsewhere")
    tom.pop("connected")
    maria.idle()
    desk.end(call)
    tom.pop("ended")
    context.close()


def test_what_is_saved_in_one_tab_is_not_asked_for_in_another(maria: AgentPage, desk: Desk) -> None:
    call = desk.ring("maria")
    maria.pop("ringing")
    desk.connect(call, "maria")
    second = AgentPage(maria.page.context.new_page())
    second.page.goto(f"{desk.url}/agent")
    second.live().pop("connected")
    desk.end(call)
    second.pop("ended")
    maria.pop("ended")
    recorded(desk, call)
    maria.save(1, "Once is enough")
    maria.idle()
    second.idle()
    with desk.database.read() as db:
        assert db.get_one(Call, call).note == "Once is enough"


def test_a_network_that_is_gone_is_told_at_once(maria: AgentPage) -> None:
    link = maria.page.locator("#link")
    maria.page.context.set_offline(True)
    expect(link).to_have_attribute("data-link", "down")
    maria.page.context.set_offline(False)
    maria.live()


def test_hanging_up_goes_to_the_pbx_and_a_silent_pbx_is_told(maria: AgentPage, desk: Desk) -> None:
    call = desk.ring("maria")
    maria.pop("ringing")
    recorded(desk, call)
    maria.hang_up()
    until(lambda: call in str(desk.redis.xrange("rb:commands:lab")[-1:]), what="the command")
    event = {"command": "c", "action": "hangup", "ok": False, "reason": "link_down", "detail": ""}
    screens.publish(desk.redis, screens.agent_topic(desk.agents["maria"]), "command", event, "c")
    not_hung_up = "The call was not hung up. The link to the PBX is down. Use the phone itself."
    expect(maria.problems).to_have_text(re.compile(re.escape(not_hung_up)))
    # What becomes of another wish, from wherever it came, says nothing of this one.
    other = {"command": "d", "action": "hold", "ok": False, "reason": "timeout", "detail": ""}
    screens.publish(desk.redis, screens.agent_topic(desk.agents["maria"]), "command", other, "d")
    failed = maria.problems.filter(has_text="That did not work. The PBX did not answer. Use the phone itself.")
    expect(failed).to_be_visible()
    done = {"command": "e", "action": "hold", "ok": True, "reason": "done", "detail": ""}
    screens.publish(desk.redis, screens.agent_topic(desk.agents["maria"]), "command", done, "e")
    expect(failed).to_have_count(0)
    expect(maria.problems).to_have_text(re.compile(re.escape(not_hung_up)))
    desk.end(call, "cancelled", 0)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(maria: AgentPage, desk: Desk, name: str) -> None:
    with faultless(maria.page):
        call = desk.ring("maria", number="+13125550177", name=name)
        maria.pop("ringing")
        # What turns the direction of the words after it is left out; all else is shown as it came.
        shown = name.replace("\u202e", "").replace("\u202c", "")
        expect(maria.page.locator(".pop h2")).to_have_text(shown)
        assert maria.page.locator(".pop img, .pop script, .pop iframe").count() == 0
        assert maria.page.title() != "owned"
        assert not set("\u202e\u202c") & set(maria.page.title())
        assert sideways(maria.page) <= 0
        painted(desk, call)
        desk.end(call, "abandoned", 0)
        maria.idle()


def test_two_calls_are_tabs_and_a_note_is_never_interrupted(maria: AgentPage, desk: Desk) -> None:
    first = desk.ring("maria")
    maria.pop("ringing")
    desk.connect(first, "maria")
    maria.pop("connected")
    maria.write("Half a sen")
    second = desk.ring("maria", number="+13125550178", name="Second Caller")
    expect(maria.tabs).to_have_count(2)
    painted(desk, second)
    maria.page.keyboard.type("tence")
    note = maria.page.locator(".pop:not([hidden]) textarea")
    expect(note).to_have_value("Half a sentence")
    expect(maria.page.locator("#announce-now")).to_contain_text("Second Caller")
    assert violations(maria.page) == []
    maria.page.keyboard.press("Alt+c")
    expect(maria.page.locator(".pop:not([hidden]) h2")).to_have_text("Second Caller")
    desk.end(second, "abandoned", 0)
    expect(maria.tabs).to_have_count(0)
    expect(note).to_have_value("Half a sentence")
    maria.page.reload()
    maria.live()
    maria.pop("connected")
    expect(note).to_have_value("Half a sentence")
    desk.end(first)
    maria.pop("ended")


def test_the_stream_comes_back_by_itself_and_brings_what_was_missed(maria: AgentPage, desk: Desk) -> None:
    desk.stop("api")
    expect(maria.page.locator("#link")).to_have_text("Reconnecting")
    call = desk.ring("maria")
    desk.start_web()
    # The page tries again after at most twelve seconds, and may wait ten for an answer.
    maria.pop("ringing", seconds=60)
    expect(maria.page.locator("#link")).to_have_text("Live")
    painted(desk, call)
    desk.stop("api")
    expect(maria.page.locator("#link")).to_have_text("Reconnecting")
    desk.end(call, "abandoned", 0)
    desk.start_web()
    expect(maria.page.locator("#link")).to_have_text("Live", timeout=60_000)
    maria.idle()


def test_a_session_that_ended_leads_to_the_sign_in_and_keeps_the_note(maria: AgentPage, desk: Desk) -> None:
    call = desk.ring("maria")
    maria.pop("ringing")
    desk.connect(call, "maria")
    maria.pop("connected")
    maria.choose_outcome(2)
    maria.write("Kept, I hope")
    maria.page.context.clear_cookies()
    maria.page.keyboard.press("Alt+s")
    maria.page.wait_for_url("**/login?*")
    expect(maria.page.locator("#why")).to_contain_text("notes that you had not saved are kept")
    maria.page.locator("#username").fill("maria")
    maria.page.locator("#password").fill(PASSWORD)
    maria.page.keyboard.press("Enter")
    choose_phone(maria.page, "PJSIP/101")
    maria.page.wait_for_url("**/agent")
    maria.pop("connected")
    expect(maria.page.locator(".pop textarea")).to_have_value("Kept, I hope")
    expect(maria.page.locator(".pop input:checked")).to_have_value("callback")
    desk.end(call)
    maria.pop("ended")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, TABLET, PHONE, ZOOMED])
def test_it_is_accessible_and_fits_at_every_size(
    maria: AgentPage, desk: Desk, scheme: Literal["light", "dark"], size: ViewportSize
) -> None:
    page = maria.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)
    assert violations(page) == []
    assert sideways(page) <= 0
    call = desk.ring("maria")
    maria.pop("ringing")
    painted(desk, call)
    assert violations(page) == []
    assert sideways(page) <= 0
    desk.connect(call, "maria")
    maria.pop("connected")
    at_desk = (scheme, size) == ("light", DESKTOP)
    keep(page, "agent.png" if at_desk else f"agent-{scheme}-{size['width']}.png")
    page.keyboard.press("Alt+p")
    assert violations(page) == []
    page.keyboard.press("Escape")
    desk.end(call)
    maria.pop("ended")
    assert violations(page) == []


def test_the_theme_can_be_chosen_and_stays(maria: AgentPage) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = maria.page.evaluate(ground)
    maria.page.locator("#theme").click()
    maria.page.locator("#theme").click()
    assert maria.page.evaluate(ground) != light
    maria.page.reload()
    assert maria.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_signing_out_leaves_nothing_open(maria: AgentPage, desk: Desk) -> None:
    maria.page.locator("#sign-out").click()
    maria.page.wait_for_url("**/login?why=out")
    maria.page.goto(f"{desk.url}/agent")
    maria.page.wait_for_url("**/login*")


def test_the_supervisor_sees_the_day_and_stops_all_dialling(page: Page, desk: Desk) -> None:
    call = desk.ring("maria")
    recorded(desk, call)
    page.goto(f"{desk.url}/login")
    sign_in(page, desk.url, "ines", PASSWORD)
    with faultless(page):
        board = SupervisorPage(page, desk.url)
        expect(board.rows("calls").first).to_contain_text("Northwind Heating")
        names = board.rows("agents").all_inner_texts()
        with desk.database.read() as db:
            assert len(names) == len(list(db.scalars(select(Agent.id).where(Agent.role != "viewer"))))
        expect(page.locator(".pbx")).to_contain_text("lab")
        board.move_dialling(confirm=False)
        assert board.dialling == "Dialling is on"
        board.move_dialling()
        expect(page.locator("#dialling-word")).to_have_text("All dialling is stopped")
        assert desk.admin.get("/api/v1/dialing")["state"] == "stopped"
        assert violations(page) == []
        keep(page, "supervisor.png")
        board.move_dialling()
        expect(page.locator("#dialling-word")).to_have_text("Dialling is on")
        page.emulate_media(color_scheme="dark")
        assert violations(page) == []
        assert sideways(page) <= 0
        before = board.rows("calls").count()
        desk.end(call, "abandoned", 0)
        desk.ring("maria")
        expect(board.rows("calls")).to_have_count(before + 1)
