"""What a link may know of the company: whose device it is, whose DID was dialled."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from bridge.domain.calls import Directory
from bridge.store.models import Agent, AgentState, Client, Did


def load(session: Session, pbx: str) -> Directory:
    """Devices of signed-in agents and DIDs of active clients. Of two agents with one device the later counts."""
    states = session.execute(
        select(AgentState.device, AgentState.agent_id)
        .join(Agent, Agent.id == AgentState.agent_id)
        .where(
            AgentState.device.is_not(None),
            Agent.active,
            or_(AgentState.pbx.is_(None), AgentState.pbx == pbx),
        )
        # Whoever is offline gives way to whoever is not.
        .order_by(AgentState.state != "offline", AgentState.since)
    )
    dids = session.execute(
        select(Did.number, Did.client_id).join(Client, Client.id == Did.client_id).where(Client.active)
    )
    return Directory(
        agents={device: agent for device, agent in states if device},
        clients=dict(dids.tuples().all()),
    )
