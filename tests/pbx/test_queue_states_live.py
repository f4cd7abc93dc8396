"""Agents' states and the queues of a real PBX, kept alike in both directions, over a restart of the PBX too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from doubles.company import agent_state, found_company
from links import Link, Sink, link_to
from redis import Redis
from rig import until

from bridge.domain.mirroring import PAUSED_AT_PHONE, Member, Standing
from bridge.services.queue_states import Mirror
from bridge.settings import Pbx, Settings
from bridge.store.database import Sessions
from bridge.store.models import AgentState
from bridge.store.queries import leases
from ringbridge_lab.lab import Lab

pytestmark = pytest.mark.pbx


class Floor:
    """One agent at 101, the mirror, and somebody at the PBX's console."""

    def __init__(self, lab: Lab, sessions: Sessions, link: Link) -> None:
        self.lab, self.sessions, self.link = lab, sessions, link
        self.device = lab.device("101")

    def page(self, state: str, reason: str | None = None) -> None:
        with self.sessions.begin() as session:
            row = session.get_one(AgentState, "agent-1")
            row.state, row.reason = state, reason

    def shows(self, state: str, reason: str | None = None) -> None:
        def now() -> bool:
            row = agent_state(self.sessions)
            return (row.state, row.reason) == (state, reason)

        until(now, what=f"the page to show {state}")

    def stands(self, standing: Standing) -> None:
        def now() -> bool:
            known = (self.link.members() or {}).get(self.device)
            return known is not None and known.standing is standing and self.console() is standing

        until(now, what=f"the phone to be {standing} at the PBX")

    def console(self) -> Standing:
        """What the PBX itself says."""
        if self.lab.pbx == "asterisk":
            with self.lab.company_ami() as ami:
                told = ami.command("queue show").splitlines()
            lines = [line for line in told if "101" in line and "has taken" in line]
            return Standing.PAUSED if lines and all("(paused" in line for line in lines) else Standing.AVAILABLE
        with self.lab.company_esl() as esl:
            said = esl.api("callcenter_config agent get status 101@company").strip()
        return {"Available": Standing.AVAILABLE, "On Break": Standing.PAUSED}.get(said, Standing.OUT)

    def at_the_pbx(self, *, pause: bool) -> None:
        """Somebody changes it there."""
        if self.lab.pbx == "asterisk":
            with self.lab.company_ami() as ami:
                for member in self.link._members.handles(self.device):
                    reason = {"Reason": "Coffee"} if pause else {}
                    ami.action("QueuePause", Interface=member, Paused=str(pause).lower(), **reason)
            return
        with self.lab.company_esl() as esl:
            for agent in self.link._members.handles(self.device):
                esl.api(f"callcenter_config agent set status {agent} '{'On Break' if pause else 'Available'}'")


@pytest.fixture
def floor(lab: Lab, sessions: Sessions, redis: Redis, settings: Settings) -> Iterator[Floor]:
    found_company(sessions)
    with sessions.begin() as session:
        session.get_one(AgentState, "agent-1").device = lab.device("101")
        lease = leases.claim(session, "lab", "test", timedelta(hours=1))
    sink = Sink()
    link = link_to(lab, sink)
    keeper: Any = SimpleNamespace(lease=lease, is_valid=lambda: True)
    own = settings.model_copy(update={"pbx": (Pbx(name="lab"),)})
    mirror = Mirror(own, "lab", sessions, redis, link, keeper)
    stop = threading.Event()
    thread = threading.Thread(target=mirror.run, args=(stop,))
    link.start()
    try:
        until(lambda: link.members(), what="the members of the queues")
        thread.start()
        yield Floor(lab, sessions, link)
    finally:
        stop.set()
        thread.join(20)
        for extension in ("101", "102"):
            link.set_member(lab.device(extension), Member(Standing.AVAILABLE), 10)
        link.stop()


def test_a_pause_goes_both_ways(lab: Lab, floor: Floor) -> None:
    floor.page("paused", "Lunch")
    floor.stands(Standing.PAUSED)
    floor.page("ready")
    floor.stands(Standing.AVAILABLE)
    floor.at_the_pbx(pause=True)
    floor.shows("paused", "Coffee" if lab.pbx == "asterisk" else PAUSED_AT_PHONE)
    floor.at_the_pbx(pause=False)
    floor.shows("ready")
    floor.page("wrapup")
    floor.stands(Standing.PAUSED)
    floor.shows("wrapup")
    floor.page("offline")
    floor.stands(Standing.PAUSED if lab.pbx == "asterisk" else Standing.OUT)
    floor.page("ready")
    floor.stands(Standing.AVAILABLE)


def test_a_pause_while_the_pbx_is_down_is_told_when_it_is_up(lab: Lab, floor: Floor) -> None:
    floor.page("ready")
    floor.stands(Standing.AVAILABLE)
    until(lambda: agent_state(floor.sessions).mirrored, what="an agreement")
    lab.kill_company()
    until(lambda: floor.link.members() is None, what="the link to be down")
    floor.page("paused", "Lunch")
    lab.start_company()
    floor.stands(Standing.PAUSED)
    floor.shows("paused", "Lunch")
