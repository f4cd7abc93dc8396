"""Whoever may sign in: made, changed and disabled, by an administrator over REST or on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.domain.errors import Conflict, Forbidden, Invalid, NotFound
from bridge.services import audit, news, sessions
from bridge.services.access import ADMINISTRATORS, LEADERS, Access, Role
from bridge.services.paging import Page, page_of
from bridge.store.models import Agent, AgentState, Client


def find(
    db: Session,
    access: Access,
    limit: int,
    cursor: str | None,
    role: str | None = None,
    active: bool | None = None,
    username: str | None = None,
) -> Page:
    """A page of agents, for supervisors and administrators."""
    access.require(LEADERS)
    statement = access.scope(select(Agent), Agent.client_id)
    for column, value in ((Agent.role, role), (Agent.active, active), (Agent.username, username)):
        if value is not None:
            statement = statement.where(column == value)
    return page_of(db, statement, Agent.created_at, Agent.id, limit, cursor)


def get(db: Session, access: Access, agent_id: str) -> Agent:
    """One agent. Raises NotFound."""
    access.require(LEADERS)
    agent: Agent | None = db.scalar(
        access.scope(select(Agent).where(Agent.id == agent_id), Agent.client_id)
    )
    if agent is None:
        raise NotFound("there is no such agent")
    return agent


def create(db: Session, access: Access, now: datetime, values: Mapping[str, Any]) -> Agent:
    """Add an agent; `values` holds the columns, with `password` in clear. Raises Conflict for a username in use."""
    access.require(ADMINISTRATORS)
    access.check_client(values.get("client_id"))
    agent = add(db, now, values)
    audit.record(db, now, access.username, "agents.create", agent.id, agent.client_id, _shown(values))
    return agent


def add(db: Session, now: datetime, values: Mapping[str, Any]) -> Agent:
    """The row alone, for the first administrator too, who has nobody to be let in by."""
    columns = dict(values)
    password = columns.pop("password")
    columns["username"] = columns["username"].lower()
    _check(db, columns.get("client_id"), Role(columns["role"]))
    if db.scalar(select(Agent.id).where(Agent.username == columns["username"])) is not None:
        raise Conflict("this username is taken", field="username")
    agent = Agent(created_at=now, password_hash=sessions.hash_password(password), **columns)
    db.add(agent)
    db.flush()
    db.add(AgentState(agent_id=agent.id, state="offline", since=now))
    return agent


def change(
    db: Session, access: Access, now: datetime, agent_id: str, values: Mapping[str, Any]
) -> Agent:
    """Change an agent. A new password, role, client or a disabling ends all sessions of theirs."""
    access.require(ADMINISTRATORS)
    agent = get(db, access, agent_id)
    columns = dict(values)
    if "client_id" in columns:
        access.check_client(columns["client_id"])
    if agent.id == access.agent and (
        columns.get("active") is False or columns.get("role", agent.role) != agent.role
    ):
        raise Forbidden("you cannot disable yourself or change your own role; ask another administrator")
    password = columns.pop("password", None)
    if password is not None:
        agent.password_hash = sessions.hash_password(password)
    before = (agent.role, agent.client_id, agent.active)
    for name, value in columns.items():
        setattr(agent, name, value)
    _check(db, agent.client_id, Role(agent.role))
    if password is not None or (agent.role, agent.client_id, agent.active) != before:
        sessions.close_all(db, agent.id)
    if not agent.active:
        _set_offline(db, agent.id, now)
    audit.record(db, now, access.username, "agents.change", agent.id, agent.client_id, _shown(values))
    return agent


def remove(db: Session, access: Access, now: datetime, agent_id: str) -> None:
    """Delete an agent who never took a call; one who did is disabled instead (Conflict, from the foreign keys)."""
    access.require(ADMINISTRATORS)
    agent = get(db, access, agent_id)
    if agent.id == access.agent:
        raise Forbidden("you cannot delete yourself; ask another administrator")
    sessions.close_all(db, agent.id)
    state = db.get(AgentState, agent.id)
    if state is not None:
        if state.reserved_by is not None or state.live_calls > 0:
            raise Conflict("this agent is in a call; try again when it has ended")
        db.delete(state)
    db.flush()
    db.delete(agent)
    audit.record(db, now, access.username, "agents.delete", agent.id, agent.client_id)
    db.flush()


def by_name(db: Session, username: str) -> Agent:
    """The agent of that username, for the command line. Raises NotFound."""
    agent = db.scalar(select(Agent).where(Agent.username == username.lower()))
    if agent is None:
        raise NotFound(f"there is no user {username!r}; `ringbridge user list` shows all")
    return agent


def set_password(db: Session, agent: Agent, password: str) -> None:
    """A new password; every session of theirs ends."""
    agent.password_hash = sessions.hash_password(password)
    sessions.close_all(db, agent.id)


def disable(db: Session, now: datetime, agent: Agent) -> None:
    """Sign the agent out everywhere and let them in no more."""
    agent.active = False
    sessions.close_all(db, agent.id)
    _set_offline(db, agent.id, now)


def _set_offline(db: Session, agent_id: str, now: datetime) -> None:
    state = db.get(AgentState, agent_id)
    if state is not None and state.state != "offline":
        state.state, state.reason, state.since = "offline", None, now
        news.note_agent(db, state)


def _check(db: Session, client_id: str | None, role: Role) -> None:
    if role is Role.VIEWER and client_id is None:
        raise Invalid("a viewer sees one client company; say which", field="client_id")
    if client_id is not None and db.get(Client, client_id) is None:
        raise Invalid("there is no such client", field="client_id")


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "name"}
