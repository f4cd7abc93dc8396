"""What is happening now: the supervisor's page, and the switch that stops all dialling."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from bridge.services import audit, promises
from bridge.services.access import LEADERS, STAFF, Access
from bridge.settings import Settings
from bridge.store.models import Agent, AgentState, Call, Callback, PbxLease, Switch
from bridge.store.queries import switches

_LATEST = 50


def read(db: Session, settings: Settings, access: Access, now: datetime, since: datetime) -> dict[str, Any]:
    """Links, agents, and calls and callbacks of the day that began at `since`: counts and the latest rows.

    A callback is of today where it was asked for, is due or ended today; one that is overdue stays.
    """
    access.require(LEADERS)
    begun = Call.started_at >= since
    open_and_due = and_(Callback.ended_at.is_(None), Callback.due_at < since + timedelta(days=1))
    wanted = or_(Callback.created_at >= since, Callback.ended_at >= since, open_and_due)
    calls = access.scope(select(Call), Call.client_id).where(begun)
    callbacks = access.scope(select(Callback), Callback.client_id).where(wanted)
    return {
        "at": now,
        "since": since,
        "dialing": dialing(db, settings),
        "links": links(db, settings, now),
        "agents": _agents(db, access),
        "calls": {
            "counts": _counts(db, access, Call, Call.state, begun),
            "causes": _counts(db, access, Call, Call.cause, begun),
            "rows": list(db.scalars(calls.order_by(Call.started_at.desc()).limit(_LATEST))),
        },
        "callbacks": {
            "counts": _counts(db, access, Callback, Callback.status, wanted),
            "rows": list(db.scalars(callbacks.order_by(Callback.created_at.desc()).limit(_LATEST))),
        },
        "promises": promises.kept(db, access, since),
    }


def links(db: Session, settings: Settings, now: datetime) -> list[dict[str, Any]]:
    """Each PBX of the settings, and whether someone listens to it."""
    leases = {lease.pbx: lease for lease in db.scalars(select(PbxLease))}
    return [_link(pbx.name, leases.get(pbx.name), now) for pbx in settings.pbx]


def dialing(db: Session, settings: Settings) -> dict[str, Any]:
    """Whether dialling is on, who last moved the switch and when; observe mode never dials."""
    switch = db.get(Switch, switches.DIALING)
    return {
        "state": "stopped" if switches.dialing_stopped(db) else "on",
        "observe": settings.dialing.mode == "observe",
        "by": switch.by if switch is not None else None,
        "at": switch.at if switch is not None else None,
    }


def set_dialing(
    db: Session, settings: Settings, access: Access, now: datetime, state: str
) -> dict[str, Any]:
    """Move the switch, for supervisors and administrators of all clients: it stops everyone's dialling."""
    access.require(LEADERS)
    if access.clients is not None:
        access.require(frozenset())
    switches.set_dialing(db, stopped=state == "stopped", by=access.username, now=now)
    action = "dialing.stop" if state == "stopped" else "dialing.start"
    audit.record(db, now, access.username, action, switches.DIALING)
    db.flush()
    return dialing(db, settings)


def read_dialing(db: Session, settings: Settings, access: Access) -> dict[str, Any]:
    """The switch as staff may see it."""
    access.require(STAFF)
    return dialing(db, settings)


def _link(name: str, lease: PbxLease | None, now: datetime) -> dict[str, Any]:
    if lease is None:
        return {"pbx": name, "up": False, "detail": "no listener has run for this PBX yet"}
    if lease.expires_at <= now:
        return {"pbx": name, "up": False, "detail": "its listener is not running"}
    return {"pbx": name, "up": lease.connected, "detail": lease.detail}


def _agents(db: Session, access: Access) -> list[dict[str, Any]]:
    statement = (
        access.scope(select(Agent, AgentState), Agent.client_id)
        .outerjoin(AgentState, AgentState.agent_id == Agent.id)
        .where(Agent.active.is_(True), Agent.role != "viewer")
        .order_by(Agent.name)
    )
    return [
        {
            "id": agent.id,
            "name": agent.name,
            "role": agent.role,
            "extension": agent.extension,
            "state": state.state if state is not None else "offline",
            "reason": state.reason if state is not None else None,
            "since": state.since if state is not None else None,
            "device": state.device if state is not None else None,
            "live_calls": state.live_calls if state is not None else 0,
        }
        for agent, state in db.execute(statement)
    ]


def _counts(
    db: Session, access: Access, table: Any, column: Any, of_the_day: ColumnElement[bool]
) -> dict[str, int]:
    statement = access.scope(select(column, func.count()), table.client_id)
    rows = db.execute(statement.where(of_the_day, column.is_not(None)).group_by(column))
    return {str(value): int(count) for value, count in rows}
