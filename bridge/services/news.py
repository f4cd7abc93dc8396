"""What browsers should hear of a change in SQL: noted in the session, published after its commit.

Publishing is best effort. A page that missed it reads the truth from SQL.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog
from redis import Redis, RedisError
from sqlalchemy.orm import Session

from bridge.live import screens
from bridge.store.models import AgentState, Callback

log = structlog.get_logger(__name__)
_KEY = "ringbridge.news"
SUPERVISORS = "supervisors"


def rfc3339(at: datetime | None) -> str | None:
    """A time as the API writes it: UTC, with `Z`."""
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def callback_body(row: Callback) -> dict[str, Any]:
    """What a visitor is told: the body of `GET /api/v1/callbacks/<id>` and the data of event `status`."""
    return {
        "id": row.id,
        "status": row.status,
        "reason": row.reason,
        "promised_at": rfc3339(row.promised_at),
        "expires_at": rfc3339(row.expires_at),
        "confirmed_at": rfc3339(row.confirmed_at),
    }


def state_body(row: AgentState) -> dict[str, Any]:
    """Data of event `state`, and the body of `GET /api/v1/me/state`."""
    return {
        "state": row.state,
        "reason": row.reason,
        "since": rfc3339(row.since),
        "device": row.device,
    }


def note(session: Session, to: str, event: str, data: dict[str, Any]) -> None:
    """To be published once the session's transaction is committed."""
    session.info.setdefault(_KEY, []).append((to, event, data))


def note_callback(session: Session, row: Callback) -> None:
    """The callback's status was changed."""
    note(session, f"callback:{row.id}", "status", callback_body(row))
    note(
        session,
        SUPERVISORS,
        "board",
        {"kind": "callback", "client_id": row.client_id, **callback_body(row)},
    )


def note_agent(session: Session, row: AgentState) -> None:
    """The agent's state was changed."""
    note(session, f"agent:{row.agent_id}", "state", state_body(row))
    note(session, SUPERVISORS, "board", {"kind": "agent", "agent": row.agent_id, **state_body(row)})


def publish(redis: Redis, session: Session) -> None:
    """Publish what the session's transaction left to say; call it after the commit, once. Never raises for Redis."""
    count = len(session.info.get(_KEY, ()))
    if not count:
        return
    try:
        with redis.pipeline(transaction=False) as pipe:
            write(pipe, session)
            pipe.execute()
    except RedisError as error:
        log.warning("a change was not published", error=type(error).__name__, count=count)


def write(pipe: Redis, session: Session) -> None:
    """The same onto somebody's pipeline."""
    for to, event, data in session.info.pop(_KEY, []):
        screens.publish(pipe, to, event, data)
