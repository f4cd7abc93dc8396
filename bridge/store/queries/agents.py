"""Which agents could take a call now."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sqlalchemy import ColumnElement, Executable, and_, bindparam, case, func, or_, select
from sqlalchemy.orm import Session

from bridge.settings import Settings
from bridge.store.models import Agent, AgentState, Callback, Site

CALLERS = ("agent", "supervisor", "administrator")
"""Roles of those who may sit at a phone."""


def site_pbx(site: Site, settings: Settings) -> str | None:
    """The PBX that dials for a site: its own, else the first of the settings; None where there is none."""
    if site.pbx is not None:
        return site.pbx if any(pbx.name == site.pbx for pbx in settings.pbx) else None
    return settings.pbx[0].name if settings.pbx else None


def free() -> ColumnElement[bool]:
    """Ready, at a phone, in no call, promised to no attempt."""
    return and_(
        AgentState.state == "ready",
        AgentState.device.is_not(None),
        AgentState.live_calls == 0,
        AgentState.reserved_by.is_(None),
    )


def _at(pbx: str, settings: Settings) -> ColumnElement[bool]:
    default = bool(settings.pbx) and settings.pbx[0].name == pbx
    return or_(AgentState.pbx == pbx, AgentState.pbx.is_(None)) if default else AgentState.pbx == pbx


def ready_agents(
    session: Session, pbx: str, settings: Settings, client_id: str, limit: int, only: str | None = None
) -> list[AgentState]:
    """Agents at that PBX who may serve the client and could take a call now, longest ready first; of all or of one."""
    return list(
        session.scalars(
            select(AgentState)
            .join(Agent, Agent.id == AgentState.agent_id)
            .where(
                free(),
                _at(pbx, settings),
                Agent.active,
                or_(Agent.client_id.is_(None), Agent.client_id == client_id),
                *((Agent.id == only,) if only is not None else ()),
            )
            .order_by(AgentState.since, AgentState.agent_id)
            .limit(limit)
        )
    )


@dataclass(frozen=True, slots=True)
class Floor:
    """Who works: agents who are free, and all who take calls in turn; `shared` where some serve every client."""

    free: int
    serving: int
    shared: bool


def floor(session: Session, pbx: str, settings: Settings, client_id: str) -> Floor:
    """The client's agents at that PBX. Who is paused takes no call, even after the one they are in."""
    default = bool(settings.pbx) and settings.pbx[0].name == pbx
    found = session.connection().execute(_floor(default=default), {"pbx": pbx, "client": client_id}).one()
    return Floor(int(found[0] or 0), int(found[1]), bool(found[2]))


@cache
def _floor(*, default: bool) -> Executable:
    at: ColumnElement[bool] = AgentState.pbx == bindparam("pbx")
    return (
        select(
            func.sum(case((free(), 1), else_=0)),
            func.count(),
            func.max(case((Agent.client_id.is_(None), 1), else_=0)),
        )
        .select_from(AgentState)
        .join(Agent, Agent.id == AgentState.agent_id)
        .where(
            AgentState.state.in_(["ready", "wrapup"]),
            AgentState.device.is_not(None),
            or_(at, AgentState.pbx.is_(None)) if default else at,
            Agent.active,
            or_(Agent.client_id.is_(None), Agent.client_id == bindparam("client")),
        )
    )


def can_be_assigned(agent: Agent | None, client_id: str) -> bool:
    """Whether this agent may be the one who makes a callback of the client."""
    return (
        agent is not None
        and agent.active
        and agent.role in CALLERS
        and agent.client_id in (None, client_id)
    )


def may_be_tried() -> ColumnElement[bool]:
    """Callbacks that anyone may make, or whose own agent is free, or no agent of theirs any more.

    Else those that wait for one busy agent would stand before all others.
    """
    own = AgentState.agent_id == Callback.assigned_to
    able = and_(
        Agent.id == Callback.assigned_to,
        Agent.active,
        Agent.role.in_(CALLERS),
        or_(Agent.client_id.is_(None), Agent.client_id == Callback.client_id),
    )
    return or_(
        Callback.assigned_to.is_(None),
        select(AgentState.agent_id).where(own, free()).exists(),
        ~select(Agent.id).where(able).exists(),
    )


def free_count(session: Session) -> int:
    """How many agents could take a call now, at any PBX."""
    return int(session.scalar(select(func.count()).select_from(AgentState).where(free())) or 0)
