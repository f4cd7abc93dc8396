"""Signing in and out. The database keeps a hash of each secret, so a stolen copy of it opens nothing."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session as Database

from bridge.domain.errors import Invalid, RingbridgeError
from bridge.services import audit, news
from bridge.services.access import Access, Role
from bridge.store.models import Agent, AgentState, Session

SIGNED_IN_FOR = timedelta(hours=12)
PASSWORD_LENGTH = (10, 200)
"""Characters of a password, least and most; the most bounds the work of hashing."""

_hasher = PasswordHasher()


class SignInRefused(RingbridgeError):
    """The username or the password is not right."""

    code = "sign_in_refused"
    status = 401


class NotSignedIn(RingbridgeError):
    """Sign in first: there is no valid session or token with this request."""

    code = "not_signed_in"
    status = 401


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new session. `token` is told once and kept nowhere."""

    token: str
    csrf: str
    expires_at: datetime
    agent: Agent


def hash_password(password: str) -> str:
    """An argon2id hash. Raises Invalid for a password that is too short or too long."""
    least, most = PASSWORD_LENGTH
    if not least <= len(password) <= most:
        raise Invalid(f"a password has {least} to {most} characters", field="password")
    return _hasher.hash(password)


@cache
def _nobody() -> str:
    """The hash of a password nobody has: an unknown user costs as much time as a known one."""
    return _hasher.hash(secrets.token_hex(16))


def hash_token(token: str) -> str:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def check_password(db: Database, username: str, password: str) -> Agent:
    """The agent of that name and password. Raises SignInRefused, after the same work in every case.

    The work takes about 50 ms of processor time and no lock of the database: call it outside a writing transaction.
    """
    agent = db.scalar(select(Agent).where(Agent.username == username.lower()))
    known = agent is not None and agent.active
    stored = agent.password_hash if agent is not None and known else _nobody()
    try:
        _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        raise SignInRefused from None
    if agent is None or not known:
        raise SignInRefused
    return agent


def open_session(
    db: Database,
    now: datetime,
    agent: Agent,
    *,
    kind: str,
    device: str | None = None,
    lifetime: timedelta = SIGNED_IN_FOR,
) -> SignedIn:
    """A session of `kind` `browser` or `token` for an agent whose password was checked. Old ones are cleared away."""
    if device is not None and device not in agent.devices:
        raise Invalid(
            "this device is not among yours; an administrator can add it", field="device"
        )
    db.execute(delete(Session).where(Session.expires_at <= now))
    token, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
    expires_at = now + lifetime
    db.add(
        Session(
            token_hash=hash_token(token),
            agent_id=agent.id,
            kind=kind,
            device=device,
            csrf=csrf,
            created_at=now,
            expires_at=expires_at,
        )
    )
    audit.record(db, now, agent.username, "session.open", agent.id, agent.client_id, {"kind": kind})
    return SignedIn(token, csrf, expires_at, agent)


def refresh_hash(db: Database, agent_id: str, password: str) -> None:
    """Hash the password anew where the parameters of argon2 have grown since."""
    agent = db.get(Agent, agent_id)
    if agent is not None and _hasher.check_needs_rehash(agent.password_hash):
        agent.password_hash = _hasher.hash(password)


def find_access(db: Database, now: datetime, token: str) -> Access:
    """Whose token it is. Raises NotSignedIn for an unknown or expired one, or where the user is disabled."""
    row = db.execute(
        select(Session, Agent)
        .join(Agent, Agent.id == Session.agent_id)
        .where(Session.token_hash == hash_token(token), Session.expires_at > now, Agent.active.is_(True))
    ).first()
    if row is None:
        raise NotSignedIn
    session, agent = row
    return Access(
        agent=agent.id,
        username=agent.username,
        name=agent.name,
        role=Role(agent.role),
        clients=None if agent.client_id is None else frozenset({agent.client_id}),
        session=session.token_hash,
        csrf=session.csrf,
        device=session.device,
    )


def alive(db: Database, now: datetime, sessions: list[str]) -> list[str]:
    """Those of the session hashes that still stand."""
    return list(
        db.scalars(
            select(Session.token_hash)
            .join(Agent, Agent.id == Session.agent_id)
            .where(
                Session.token_hash.in_(sessions), Session.expires_at > now, Agent.active.is_(True)
            )
        )
    )


def close_session(db: Database, now: datetime, access: Access) -> None:
    """End this session; the last one in a browser takes its agent offline."""
    db.execute(delete(Session).where(Session.token_hash == access.session))
    audit.record(db, now, access.username, "session.close", access.agent)
    others = db.scalar(
        select(Session.token_hash)
        .where(Session.agent_id == access.agent, Session.kind == "browser", Session.expires_at > now)
        .limit(1)
    )
    state = db.get(AgentState, access.agent)
    if others is None and state is not None and state.state != "offline":
        state.state, state.reason, state.since = "offline", None, now
        news.note_agent(db, state)


def close_all(db: Database, agent_id: str) -> None:
    """End every session of an agent: after a new password, or when they are disabled."""
    db.execute(delete(Session).where(Session.agent_id == agent_id))
