"""A small company in the database: a client, a site, agents at their phones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from redis import Redis

from bridge.domain.attempts import AttemptState
from bridge.services import attempts, callbacks
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Agent, AgentState, Attempt, Callback, Client, NumberLock, Site

NOW = datetime(2026, 5, 4, 15, 0, tzinfo=UTC)
NUMBER = "+16465550101"
"""A number of the lab's world that answers."""


def found_company(sessions: Sessions, *, agents: int = 1, now: datetime = NOW) -> None:
    """Client `acme`, site `shop`, agents `agent-1` ... ready at PJSIP/101 ..."""
    with sessions.begin() as session:
        session.add(Client(id="acme", name="Acme", created_at=now))
        session.flush()
        session.add(Site(id="shop", client_id="acme", key="shop-key", name="Shop", created_at=now))
        for number in range(1, agents + 1):
            agent = f"agent-{number}"
            session.add(
                Agent(
                    id=agent,
                    username=agent,
                    password_hash="",
                    name=agent,
                    role="agent",
                    devices=[f"PJSIP/10{number}"],
                    extension=f"10{number}",
                    created_at=now,
                )
            )
            session.flush()
            session.add(
                AgentState(
                    agent_id=agent,
                    state="ready",
                    since=now - timedelta(minutes=10 - number),
                    device=f"PJSIP/10{number}",
                    pbx="lab",
                )
            )


def change_site(sessions: Sessions, **values: object) -> None:
    """Set columns of the site."""
    with sessions.begin() as session:
        site = session.get_one(Site, "shop")
        for name, value in values.items():
            setattr(site, name, value)


def ask(
    sessions: Sessions,
    redis: Redis,
    settings: Settings,
    number: str = NUMBER,
    *,
    key: str | None = None,
    ip: str = "192.0.2.1",
    now: datetime = NOW,
    **wish: str | None,
) -> callbacks.CallbackView:
    """A visitor fills in the form."""
    filled = callbacks.Wish(number=number, **wish)  # type: ignore[arg-type]
    return callbacks.create(sessions, redis, settings, "shop", filled, idempotency_key=key, ip=ip, now=now)


def callback(sessions: Sessions, callback_id: str) -> Callback:
    with sessions.read() as session:
        return session.get_one(Callback, callback_id)


def attempt(sessions: Sessions, attempt_id: str) -> Attempt:
    with sessions.read() as session:
        return session.get_one(Attempt, attempt_id)


def agent_state(sessions: Sessions, agent: str = "agent-1") -> AgentState:
    with sessions.read() as session:
        return session.get_one(AgentState, agent)


def lock(sessions: Sessions, number: str = NUMBER) -> NumberLock | None:
    with sessions.read() as session:
        return session.get(NumberLock, number)


def step(
    sessions: Sessions,
    attempt_id: str,
    state: AttemptState,
    reason: str | None = None,
    q850: int | None = None,
    now: datetime = NOW,
    over: bool = False,
) -> bool:
    """Move an attempt in a transaction of its own."""
    with sessions.begin() as session:
        return attempts.move(session, attempt_id, state, reason, q850, now=now, over=over)
