"""Where an agent stands: ready, paused, in wrap-up or offline, and at which phone."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.domain.errors import Conflict, Invalid
from bridge.services import news
from bridge.services.access import STAFF, Access
from bridge.settings import Settings
from bridge.store.models import Agent, AgentState
from bridge.store.models import Session as SignIn


class State(StrEnum):
    READY = "ready"
    PAUSED = "paused"
    WRAPUP = "wrapup"
    OFFLINE = "offline"


def current(db: Session, agent_id: str, now: datetime) -> AgentState:
    """The agent's row, or a new one that is not in the session: who never had one is offline."""
    state = db.get(AgentState, agent_id)
    return state or AgentState(agent_id=agent_id, state=State.OFFLINE, since=now, live_calls=0)


def set_state(
    db: Session,
    settings: Settings,
    access: Access,
    now: datetime,
    wanted: State,
    reason: str | None = None,
    device: str | None = None,
) -> AgentState:
    """Change the signed-in agent's own state.

    Raises Invalid for a device that is not theirs, Conflict for one another agent sits at, or where none is chosen.
    """
    access.require(STAFF)
    state = current(db, access.agent, now)
    db.add(state)
    chosen = device or state.device or access.device
    if chosen is None and wanted is not State.OFFLINE:
        raise Conflict("choose a device first", field="device")
    if chosen is not None and wanted is not State.OFFLINE:
        _take_device(db, settings, access, state, chosen)
    kept_reason = reason if wanted is State.PAUSED else None
    if (state.state, state.reason) != (wanted, kept_reason):
        state.state, state.reason, state.since = wanted, kept_reason, now
    news.note_agent(db, state)
    db.flush()
    return state


def _take_device(
    db: Session, settings: Settings, access: Access, state: AgentState, device: str
) -> None:
    agent = db.get(Agent, access.agent)
    if agent is None or device not in agent.devices:
        raise Invalid("this device is not among yours; an administrator can add it", field="device")
    other = db.scalar(
        select(AgentState.agent_id).where(
            AgentState.device == device,
            AgentState.state != State.OFFLINE,
            AgentState.agent_id != access.agent,
        )
    )
    if other is not None:
        raise Conflict("another agent is signed in at this device; choose another one", field="device")
    state.device = device
    if state.pbx is None and settings.pbx:
        state.pbx = settings.pbx[0].name
    session = db.get(SignIn, access.session)
    if session is not None:
        session.device = device


def holders(db: Session, devices: list[str]) -> dict[str, str]:
    """Who sits at each of these devices now."""
    rows = db.execute(
        select(AgentState.device, AgentState.agent_id).where(
            AgentState.device.in_(devices), AgentState.state != State.OFFLINE
        )
    )
    return {device: agent for device, agent in rows if device is not None}
