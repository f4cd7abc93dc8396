"""Agents' states on the page and in the PBX's queues: who follows whom, and what each PBX tells of its members."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from doubles.company import agent_state, found_company
from redis import Redis

from bridge.domain.mirroring import (
    LEFT,
    OUT_AT_PHONE,
    PAUSED_AT_PHONE,
    Agreed,
    Member,
    Page,
    Standing,
    merge,
    wanted,
)
from bridge.pbx.ami import members as ami_members
from bridge.pbx.esl import members as esl_members
from bridge.pbx.members import Members
from bridge.pbx.port import Outcome, Reason
from bridge.services.queue_states import Mirror
from bridge.services.sweeping import sweep
from bridge.settings import Pbx, Settings
from bridge.store.database import Sessions
from bridge.store.models import AgentState
from bridge.store.queries import leases

READY, LUNCH, WRAP, OFFLINE = Page("ready"), Page("paused", "Lunch"), Page("wrapup"), Page("offline")
FREE, AT_LUNCH, OUT = Member(Standing.AVAILABLE), Member(Standing.PAUSED, "Lunch"), Member(Standing.OUT)


# --- the rule ---


def test_who_never_signed_in_here_is_left_alone() -> None:
    for member in (None, FREE, AT_LUNCH, OUT):
        step = merge(None, OFFLINE, member)
        assert (step.push, step.page, step.agreed) == (None, None, None)


@pytest.mark.parametrize("page", [READY, LUNCH, WRAP])
@pytest.mark.parametrize("member", [FREE, AT_LUNCH, OUT])
def test_at_first_and_where_both_changed_the_page_wins(page: Page, member: Member) -> None:
    for agreed in (None, Agreed(Page("paused", "Before"), Member(Standing.PAUSED, "Before"))):
        step = merge(agreed, page, member)
        assert step.page is None
        after = step.push or member
        assert after.standing is wanted(page).standing
        assert merge(step.agreed, page, after).push is None


@pytest.mark.parametrize(
    ("page", "member", "now"),
    [
        (READY, AT_LUNCH, LUNCH),
        (READY, Member(Standing.PAUSED), Page("paused", PAUSED_AT_PHONE)),
        (READY, OUT, Page("paused", OUT_AT_PHONE)),
        (LUNCH, FREE, READY),
        (WRAP, FREE, READY),
        (LUNCH, Member(Standing.PAUSED, "Coffee"), Page("paused", "Coffee")),
    ],
)
def test_a_change_at_the_pbx_shows_and_is_not_sent_back(page: Page, member: Member, now: Page) -> None:
    step = merge(Agreed(page, wanted(page)), page, member)
    assert (step.push, step.page) == (None, now)
    again = merge(step.agreed, now, member)
    assert (again.push, again.page) == (None, None)


def test_a_pbx_that_keeps_no_reason_changes_none() -> None:
    bare = Member(Standing.PAUSED)
    step = merge(Agreed(LUNCH, AT_LUNCH), LUNCH, bare)
    assert (step.push, step.page) == (None, None)


def test_who_leaves_the_queues_pauses_and_who_comes_back_is_ready() -> None:
    gone = merge(Agreed(READY, FREE), READY, None)
    assert gone.page == Page("paused", LEFT)
    back = merge(gone.agreed, Page("paused", LEFT), FREE)
    assert (back.page, back.push) == (READY, None)
    # A pause of their own is not ended by being put into a queue.
    put_in = merge(Agreed(LUNCH, None), LUNCH, FREE)
    assert (put_in.page, put_in.push) == (None, wanted(LUNCH))


def test_who_signs_out_leaves_the_queues_once() -> None:
    step = merge(Agreed(READY, FREE), OFFLINE, FREE)
    assert step.push is not None and step.push.standing is Standing.OUT and step.agreed is None
    # Also out of a wrap-up, where the phone is paused already.
    assert merge(Agreed(WRAP, wanted(WRAP)), OFFLINE, Member(Standing.PAUSED)).push == step.push
    for out in (OUT, wanted(OFFLINE), Member(Standing.PAUSED, "Signed out")):
        assert merge(Agreed(READY, FREE), OFFLINE, out).push is None
    # An administrator who takes them back in has the last word.
    assert merge(None, OFFLINE, FREE).push is None


# --- what the PBXs tell ---


def test_asterisk_members() -> None:
    table = Members()
    said = {"Event": "QueueMember", "Queue": "support", "Location": "PJSIP/101", "StateInterface": "PJSIP/101"}
    local = {"Event": "QueueMember", "Queue": "sales", "Location": "Local/101@a/n", "StateInterface": "PJSIP/101"}
    paused = {"Paused": "1", "PausedReason": "Lunch"}
    table.take(ami_members.listed([{**said, **paused}, {**local, "Paused": "0"}, {"Event": "QueueParams"}]))
    assert table.by_device == {"PJSIP/101": FREE}
    assert table.handles("PJSIP/101") == ["PJSIP/101", "Local/101@a/n"]
    event = {"Event": "QueueMemberPause", "Queue": "sales", "Interface": "Local/101@a/n", "StateInterface": "PJSIP/101"}
    ami_members.hear(table, {**event, **paused})
    assert table.by_device == {"PJSIP/101": AT_LUNCH}
    for queue, interface in (("sales", "Local/101@a/n"), ("support", "PJSIP/101"), ("nowhere", "PJSIP/999")):
        ami_members.hear(table, {"Event": "QueueMemberRemoved", "Queue": queue, "Interface": interface})
    assert table.by_device == {}
    ami_members.hear(table, {"Event": "QueueMemberAdded", "Queue": "new", "Interface": "PJSIP/109", "Paused": "0"})
    assert table.by_device == {"PJSIP/109": FREE}
    hostile = ami_members.pause("PJSIP/101", Member(Standing.PAUSED, "a\r\nAction: Originate"))
    assert hostile == {"Interface": "PJSIP/101", "Paused": "true", "Reason": "a Action: Originate"}
    assert ami_members.pause("PJSIP/101", FREE) == {"Interface": "PJSIP/101", "Paused": "false"}


def test_freeswitch_agents() -> None:
    table = Members()
    text = (
        "name|instance_id|type|contact|status|state\n"
        "101@company|single_box|callback|[^^:leg_timeout=15]user/101@company|Available|Waiting\n"
        "both@company|single_box|callback|user/101@company|user/102@company|Available|Waiting\n"
        "102@company|single_box|callback|{a=b}user/102@company|On Break|Waiting\n"
        "103@company|single_box|callback|user/103@company|Logged Out|Waiting\n"
        "sales|single_box|callback|[x=1]loopback/101/agents/XML|Available|Waiting\n"
        "+OK\n"
    )
    table.take(esl_members.listed(text))
    assert table.by_device == {"user/101": FREE, "user/102": Member(Standing.PAUSED), "user/103": OUT}
    change = {"CC-Action": "agent-status-change", "CC-Agent": "101@company", "CC-Agent-Status": "On Break"}
    esl_members.hear(table, change)
    esl_members.hear(table, {**change, "CC-Agent": "stranger"})
    esl_members.hear(table, {"CC-Action": "agent-state-change", "CC-Agent": "102@company", "CC-Agent-State": "Waiting"})
    assert table.by_device["user/101"] == Member(Standing.PAUSED)
    said = "callcenter_config agent set status 101@company 'On Break'"
    assert esl_members.set_status("101@company", AT_LUNCH) == said
    with pytest.raises(esl_members.LocalError):
        esl_members.set_status("101@company' ; originate", FREE)
    assert esl_members.listed("-ERR no such command") == []


# --- the two kept alike ---


class Switchboard:
    """A PBX's queues, and what was asked of them."""

    def __init__(self) -> None:
        self.table: dict[str, Member] | None = {"PJSIP/101": FREE}
        self.asked: list[tuple[str, Standing]] = []
        self.answer = Outcome(True, Reason.DONE)

    def members(self) -> Mapping[str, Member] | None:
        return None if self.table is None else dict(self.table)

    def set_member(self, device: str, member: Member, seconds: float) -> Outcome:
        self.asked.append((device, member.standing))
        if self.answer.ok and self.table is not None:
            self.table[device] = member
        return self.answer


class Desk:
    """An agent's page, and the mirror."""

    def __init__(self, sessions: Sessions, redis: Redis, settings: Settings) -> None:
        self.sessions, self.board = sessions, Switchboard()
        with sessions.begin() as session:
            lease = leases.claim(session, "lab", "test", timedelta(minutes=5))
        keeper: Any = SimpleNamespace(lease=lease, is_valid=lambda: True)
        self.mirror = Mirror(settings, "lab", sessions, redis, cast(Any, self.board), keeper)

    def put(self, state: str, reason: str | None = None, **more: Any) -> None:
        with self.sessions.begin() as session:
            row = session.get_one(AgentState, "agent-1")
            row.state, row.reason = state, reason
            for name, value in more.items():
                setattr(row, name, value)

    def step(self) -> tuple[str, str | None]:
        self.mirror._not_before.clear()
        self.mirror.step(lambda _: None)
        row = agent_state(self.sessions)
        return row.state, row.reason


@pytest.fixture
def desk(sessions: Sessions, redis: Redis, settings: Settings) -> Desk:
    found_company(sessions)
    return Desk(sessions, redis, settings.model_copy(update={"pbx": (Pbx(name="lab"),)}))


def test_both_ways_and_no_echo(desk: Desk) -> None:
    assert desk.step() == ("ready", None) and desk.board.asked == []
    desk.put("paused", "Lunch")
    assert desk.step() == ("paused", "Lunch")
    assert desk.board.table == {"PJSIP/101": AT_LUNCH}
    desk.board.table = {"PJSIP/101": FREE}
    assert [desk.step() for _ in range(3)] == [("ready", None)] * 3
    desk.put("wrapup")
    desk.step()
    assert desk.board.table["PJSIP/101"].standing is Standing.PAUSED
    assert desk.step() == ("wrapup", None)
    assert len(desk.board.asked) == 2


def test_a_pause_while_the_pbx_is_away_is_told_when_it_is_back(desk: Desk) -> None:
    desk.step()
    desk.board.table = None
    desk.put("paused", "Lunch")
    assert desk.step() == ("paused", "Lunch") and desk.board.asked == []
    # Somebody changed it there too: the page wins.
    desk.board.table = {"PJSIP/101": Member(Standing.PAUSED, "Coffee")}
    assert desk.step() == ("paused", "Lunch")
    assert desk.board.table == {"PJSIP/101": AT_LUNCH}


def test_a_command_that_fails_is_sent_again_and_nothing_is_believed(desk: Desk) -> None:
    desk.step()
    desk.board.answer = Outcome(False, Reason.TIMEOUT)
    desk.put("paused", "Lunch")
    assert desk.step() == ("paused", "Lunch") and desk.board.table == {"PJSIP/101": FREE}
    desk.mirror.step(lambda _: None)
    assert len(desk.board.asked) == 1
    desk.board.answer = Outcome(True, Reason.DONE)
    assert desk.step() == ("paused", "Lunch") and desk.board.table == {"PJSIP/101": AT_LUNCH}


def test_one_agent_at_whom_the_mirror_fails_ends_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the listener that dies ends the listener, and with it the hearing of calls."""
    desk.step()
    desk.put("paused", "Lunch")
    with monkeypatch.context() as broken:
        broken.setattr(desk.board, "set_member", lambda *_: 1 / 0)
        assert desk.step() == ("paused", "Lunch") and desk.board.table == {"PJSIP/101": FREE}
    assert desk.mirror.counts["mirror_fault"] == 1
    desk.mirror.step(lambda _: None)
    assert desk.board.table == {"PJSIP/101": FREE}, "not again at once"
    assert desk.step() == ("paused", "Lunch") and desk.board.table == {"PJSIP/101": AT_LUNCH}


def test_another_phone_and_another_desk(desk: Desk) -> None:
    desk.board.table = {"PJSIP/101": FREE, "PJSIP/102": Member(Standing.PAUSED)}
    desk.step()
    desk.put("ready", device="PJSIP/102")
    desk.step()
    assert desk.step() == ("ready", None)
    assert {device: member.standing for device, member in desk.board.table.items()} == {
        "PJSIP/101": Standing.OUT,
        "PJSIP/102": Standing.AVAILABLE,
    }
    desk.put("offline")
    desk.step()
    assert desk.board.table["PJSIP/102"].standing is Standing.OUT
    asked = len(desk.board.asked)
    desk.board.table["PJSIP/102"] = FREE
    assert desk.step() == ("offline", None) and len(desk.board.asked) == asked


def test_what_cannot_be_read_was_never_agreed(desk: Desk) -> None:
    for strange in ({"page": 1}, {"page": ["ready", ""], "member": ["no such", ""]}, {}):
        desk.put("paused", "Lunch", mirrored=strange)
        assert desk.step() == ("paused", "Lunch")
        assert desk.board.table == {"PJSIP/101": AT_LUNCH}


def test_a_wrap_up_ends_by_itself(desk: Desk, redis: Redis, settings: Settings) -> None:
    now = datetime.now(UTC)
    desk.put("wrapup", since=now - timedelta(seconds=119))
    assert sweep(desk.sessions, redis, settings, now=now).wrapped_up == 0
    desk.put("wrapup", live_calls=1)
    assert sweep(desk.sessions, redis, settings, now=now + timedelta(seconds=1)).wrapped_up == 0
    desk.put("wrapup", live_calls=0)
    never = settings.model_copy(update={"dialing": settings.dialing.model_copy(update={"wrapup_seconds": 0})})
    assert sweep(desk.sessions, redis, never, now=now + timedelta(hours=1)).wrapped_up == 0
    assert sweep(desk.sessions, redis, settings, now=now + timedelta(seconds=1)).wrapped_up == 1
    assert agent_state(desk.sessions).state == "ready"
