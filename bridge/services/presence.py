"""Where an agent stands: ready, paused, in wrap-up or offline, and at which phone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import redis
import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.domain.errors import Conflict, Invalid
from bridge.live import screens
from bridge.services.access import STAFF, Access
from bridge.settings import Settings
from bridge.store.models import Agent, AgentState
from bridge.store.models import Session as SignIn

log = structlog.get_logger(__name__)


class State(StrEnum):
    READY = "ready"
    PAUSED = "paused"
    WRAPUP = "wrapup"
    OFFLINE = "offline"


def current(db: Session, agent_id: str, now: datetime) -> AgentState:
    """The agent's row; one who never had one is offline."""
    state = db.get(AgentState, agent_id)
    if state is None:
        state = AgentState(agent_id=agent_id, state=State.OFFLINE, since=now, live_calls=0)
        db.add(state)
        db.flush()
    return state


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

    Raises Invalid for a device that is not theirs or a pause without a reason, Conflict for a device another agent
    sits at, or where no device is chosen.
    """
    access.require(STAFF)
    state = current(db, access.agent, now)
    if wanted is State.PAUSED and not reason:
        raise Invalid("say why, so that the supervisor knows", field="reason")
    chosen = device or state.device or access.device
    if chosen is None and wanted is not State.OFFLINE:
        raise Conflict("choose a device first", field="device")
    if chosen is not None and wanted is not State.OFFLINE:
        _take_device(db, settings, access, state, chosen)
    kept_reason = reason if wanted is State.PAUSED else None
    if (state.state, state.reason) != (wanted, kept_reason):
        state.state, state.reason, state.since = wanted, kept_reason, now
    db.flush()
    return state


def view(state: AgentState) -> dict[str, Any]:
    """The body of GET and of the event `state`."""
    return {
        "state": state.state,
        "reason": state.reason,
        "since": state.since.isoformat(),
        "device": state.device,
    }


def tell(server: redis.Redis, agent_id: str, body: Mapping[str, Any]) -> None:
    """Show the new state on the agent's own pages and on the supervisors' board; a lost event is seen on reload."""
    try:
        screens.publish(server, screens.agent_topic(agent_id), "state", body)
        board = {"kind": "agent", "agent": agent_id, **body}
        screens.publish(server, screens.SUPERVISORS, "board", board)
    except redis.RedisError as error:
        log.warning("state not shown", agent=agent_id, error=type(error).__name__)


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
