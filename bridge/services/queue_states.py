"""Keeps the agents' states and the PBX's queues alike: a pause on the page pauses the phone, and the other way round.

One thread of the listener compares both with what they last agreed on, which is kept in SQL, so that a new listener
goes on from there. `domain.mirroring` has the rule.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from redis import Redis
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from bridge.domain.errors import Unavailable
from bridge.domain.mirroring import SIGNED_OUT, Agreed, Member, Page, Standing, Step, is_out, merge
from bridge.pbx.port import Outcome, PbxLink, Reason
from bridge.services import news
from bridge.services.lease import LeaseKeeper
from bridge.settings import Settings
from bridge.store.database import Sessions, changed
from bridge.store.models import Agent, AgentState
from bridge.store.queries import leases

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.5
_COMMAND_SECONDS = 5.0
_SHOWS_SECONDS = 2.0
"""The news of a command comes on another connection than its answer, and may be a moment later."""
_AGAIN_SECONDS = 2.0
_REFUSED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Row:
    agent: str
    device: str | None
    page: Page
    raw: Any
    """The column as it was read."""
    agreed: Agreed | None
    agreed_device: str | None


class Mirror:
    """The states of one PBX's agents, for one term of office."""

    def __init__(
        self, settings: Settings, pbx: str, sessions: Sessions, redis: Redis, link: PbxLink, keeper: LeaseKeeper
    ) -> None:
        self._pbx = pbx
        self._first = bool(settings.pbx) and settings.pbx[0].name == pbx
        self._pushes = settings.dialing.mode != "observe"
        self._sessions = sessions
        self._redis = redis
        self._link = link
        self._keeper = keeper
        self._not_before: dict[str, float] = {}
        """Agents of whom the PBX did not take a command, and when it is tried again."""
        self.counts: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        """Until `stop`."""
        while not stop.wait(_LOOK_SECONDS):
            try:
                self.step(stop.wait)
            except Unavailable as error:
                log.debug("agents' states wait for the database", why=error.message)

    def step(self, wait: Callable[[float], object] = time.sleep) -> None:
        """Bring all agents one step on. Raises Unavailable."""
        members = self._link.members()
        if members is None or not self._keeper.is_valid():
            return
        with self._sessions.read() as session:
            rows = self._rows(session)
        for row in rows:
            if self._not_before.get(row.agent, 0.0) > time.monotonic():
                continue
            try:
                self._one(row, members, wait)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 - calls are heard on, and the other agents mirrored, whatever one is
                self.counts["mirror_fault"] += 1
                self._not_before[row.agent] = time.monotonic() + _REFUSED_SECONDS
                log.error("an agent's state is not mirrored", agent=row.agent, error=type(error).__name__)

    def _one(self, row: _Row, members: Mapping[str, Member], wait: Callable[[float], object]) -> None:
        if row.agreed is not None and row.agreed_device not in (None, row.device):
            # At another phone now: the one they left must not ring an empty desk.
            self._leave(row, str(row.agreed_device), members, wait)
            return
        member = members.get(row.device) if row.device is not None else None
        step = merge(row.agreed, row.page, member)
        if step.push is not None and row.device is not None:
            step = self._push(row, row.device, step, wait)
        if step.agreed == row.agreed and step.page is None:
            return
        self._keep(row, step)

    def _leave(self, row: _Row, device: str, members: Mapping[str, Member], wait: Callable[[float], object]) -> None:
        member = members.get(device)
        if member is not None and not is_out(member) and not self._taken(device):
            want = Member(Standing.OUT, SIGNED_OUT)
            if not self._tell(row.agent, device, want, wait).ok and row.agent in self._not_before:
                return
        self._keep(row, Step(None))

    def _push(self, row: _Row, device: str, step: Step, wait: Callable[[float], object]) -> Step:
        """Tell the PBX; what is agreed then is what it says itself."""
        if step.push is None:
            return step
        if not self._pushes:
            return Step(step.agreed and Agreed(row.page, (self._link.members() or {}).get(device)))
        outcome = self._tell(row.agent, device, step.push, wait)
        if not outcome.ok:
            return Step(row.agreed)
        if step.agreed is None:
            return step
        return Step(Agreed(row.page, (self._link.members() or {}).get(device, step.push)))

    def _tell(self, agent: str, device: str, want: Member, wait: Callable[[float], object]) -> Outcome:
        outcome = self._link.set_member(device, want, _COMMAND_SECONDS)
        self.counts[f"mirror_{outcome.reason}"] += 1
        if not outcome.ok:
            refused = outcome.reason is Reason.REFUSED
            pause = _REFUSED_SECONDS if refused else _AGAIN_SECONDS
            self._not_before[agent] = time.monotonic() + pause
            if refused:
                log.warning("the PBX did not take an agent's state", agent=agent, why=outcome.detail)
            return outcome
        self._not_before.pop(agent, None)
        end = time.monotonic() + _SHOWS_SECONDS
        available = want.standing is Standing.AVAILABLE
        while time.monotonic() < end:
            now = (self._link.members() or {}).get(device)
            if now is None or (now.standing is Standing.AVAILABLE) is available:
                break
            wait(0.02)
        return outcome

    def _keep(self, row: _Row, step: Step) -> None:
        now = datetime.now(UTC)
        values: dict[str, Any] = {"mirrored": _written(step.agreed, row.device)}
        if step.page is not None:
            values |= {"state": step.page.state, "reason": step.page.reason[:100] or None, "since": now}
        with self._sessions.begin() as session:
            if not leases.is_held(session, self._keeper.lease):
                return
            won = changed(
                session,
                update(AgentState)
                .where(
                    AgentState.agent_id == row.agent,
                    AgentState.state == row.page.state,
                    AgentState.reason.is_(row.page.reason or None)
                    if not row.page.reason
                    else AgentState.reason == row.page.reason,
                    AgentState.device == row.device,
                )
                .values(**values),
            )
            if won and step.page is not None:
                self.counts["mirror_followed"] += 1
                state = session.get(AgentState, row.agent, populate_existing=True)
                if state is not None:
                    news.note_agent(session, state)
        news.publish(self._redis, session)

    def _rows(self, session: Session) -> list[_Row]:
        here = AgentState.pbx == self._pbx
        found = session.execute(
            select(AgentState.agent_id, AgentState.device, AgentState.state, AgentState.reason, AgentState.mirrored)
            .join(Agent, Agent.id == AgentState.agent_id)
            .where(
                or_(here, AgentState.pbx.is_(None)) if self._first else here,
                or_(AgentState.state != "offline", AgentState.mirrored.is_not(None)),
            )
        )
        return [
            _Row(agent, device, Page(state, reason or ""), raw, *_read(raw))
            for agent, device, state, reason, raw in found
        ]

    def _taken(self, device: str) -> bool:
        """Somebody else sits there."""
        with self._sessions.read() as session:
            found = session.scalar(
                select(AgentState.agent_id).where(AgentState.device == device, AgentState.state != "offline").limit(1)
            )
        return found is not None


def _written(agreed: Agreed | None, device: str | None) -> dict[str, Any] | None:
    if agreed is None:
        return None
    member = agreed.member
    return {
        "device": device,
        "page": [agreed.page.state, agreed.page.reason],
        "member": None if member is None else [str(member.standing), member.reason],
    }


def _read(raw: Any) -> tuple[Agreed | None, str | None]:
    """What was agreed, and of which phone; what cannot be read was never agreed."""
    try:
        page, member = Page(*raw["page"]), raw["member"]
        agreed = Agreed(page, None if member is None else Member(Standing(member[0]), member[1]))
        return agreed, raw["device"]
    except (KeyError, TypeError, ValueError, IndexError):
        return None, None
