"""Calls as rows: lists for those who may see them, and what an agent writes down of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from bridge.domain.errors import NotFound
from bridge.services import audit, news
from bridge.services.access import LEADERS, STAFF, Access, Role
from bridge.services.paging import Page, page_of
from bridge.services.presence import State
from bridge.store.models import AgentState, AttemptChange, Call, CallEventRow, Pop


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls are asked for; None asks nothing."""

    since: datetime | None = None
    until: datetime | None = None
    live: bool | None = None
    """Only those in progress, or only those that are over."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Columns of a call and the value they must have."""

    def among(self, statement: Select[Any]) -> Select[Any]:
        """The statement, narrowed to these calls."""
        if self.since is not None:
            statement = statement.where(Call.started_at >= self.since)
        if self.until is not None:
            statement = statement.where(Call.started_at < self.until)
        if self.live is not None:
            statement = statement.where(Call.ended_at.is_(None) if self.live else Call.ended_at.is_not(None))
        for name, value in self.columns.items():
            if value is not None:
                statement = statement.where(getattr(Call, name) == value)
        return statement


def find(
    db: Session,
    access: Access,
    limit: int,
    cursor: str | None,
    wanted: Wanted,
) -> Page:
    """A page of calls, the latest first; an agent sees those that rang at their own phone."""
    return page_of(db, wanted.among(_reachable(access)), Call.started_at, Call.id, limit, cursor)


def get(db: Session, access: Access, call_id: str) -> Call:
    """One call in reach. Raises NotFound."""
    call: Call | None = db.scalar(_reachable(access).where(Call.id == call_id))
    if call is None:
        raise NotFound("there is no such call")
    return call


def events(db: Session, call: Call) -> list[CallEventRow]:
    """What happened in the call, in order."""
    return list(
        db.scalars(select(CallEventRow).where(CallEventRow.call_id == call.id).order_by(CallEventRow.seq))
    )


def merged_calls(db: Session, access: Access, call: Call) -> list[str]:
    """The calls in reach that became part of this one, such as a consultation before a transfer."""
    found = _reachable(access).where(Call.merged_into == call.id).order_by(Call.started_at, Call.id)
    return [row.id for row in db.scalars(found)]


def attempt_changes(db: Session, call: Call) -> list[AttemptChange]:
    """How the attempt behind the call went from state to state; empty where we did not dial it."""
    if call.attempt_id is None:
        return []
    changes = select(AttemptChange).where(AttemptChange.attempt_id == call.attempt_id)
    return list(db.scalars(changes.order_by(AttemptChange.id)))


def dispose(
    db: Session,
    access: Access,
    now: datetime,
    call_id: str,
    disposition: str,
    note: str,
    *,
    ready: bool,
) -> Call:
    """Write down how the call went. With `ready`, an agent in wrap-up is ready again."""
    access.require(STAFF)
    call = get(db, access, call_id)
    call.disposition, call.note = disposition, note
    call.disposed_by, call.disposed_at = access.agent, now
    if access.role in LEADERS:
        audit.record(db, now, access.username, "calls.disposition", call.id, call.client_id)
    state = db.get(AgentState, access.agent) if ready else None
    if state is not None and state.state == State.WRAPUP:
        state.state, state.reason, state.since = State.READY, None, now
        news.note_agent(db, state)
    # Other tabs of this agent need not ask any more.
    news.note(
        db,
        f"agent:{access.agent}",
        "call",
        {"pop": f"{call.id}:{access.agent}", "call": call.id, "written": call.disposition},
    )
    db.flush()
    return call


def written_down(db: Session, access: Access, calls: Sequence[str]) -> set[str]:
    """Those of the calls of which this agent has said how they went."""
    if not calls:
        return set()
    return set(db.scalars(select(Call.id).where(Call.id.in_(calls), Call.disposed_by == access.agent)))


def set_answers(
    db: Session, access: Access, now: datetime, call_id: str, answers: Mapping[str, Any]
) -> Call:
    """Keep the answers to the script's questions, all at once."""
    access.require(STAFF)
    call = get(db, access, call_id)
    call.answers = dict(answers)
    if access.role in LEADERS:
        audit.record(db, now, access.username, "calls.answers", call.id, call.client_id)
    return call


def acknowledge(
    db: Session, access: Access, now: datetime, pop_id: str, painted_ms: float | None
) -> Pop:
    """The page showed the pop. Counted once: a second tab's word changes nothing."""
    access.require(STAFF)
    pop = db.get(Pop, pop_id)
    if pop is None or pop.agent_id != access.agent:
        raise NotFound("there is no such pop of yours")
    if pop.acked_at is None:
        pop.acked_at, pop.painted_ms = now, painted_ms
    return pop


def _reachable(access: Access) -> Select[Any]:
    statement = access.scope(select(Call), Call.client_id)
    if access.role is not Role.AGENT:
        return statement
    rang = select(Pop.call_id).where(Pop.agent_id == access.agent)
    return statement.where(or_(Call.agent_id == access.agent, Call.id.in_(rang)))
