"""What one call event does to SQL: the call's row, the agents in it, and the attempt behind it.

`HEARD` says which event is heard by which function. All of it happens in the transaction that stores the
event, and an event is stored once, so hearing one twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from bridge.domain.calls import CallEventType
from bridge.domain.errors import Invalid
from bridge.domain.numbers import parse_number
from bridge.live.calls import Entry
from bridge.services import dial_outcomes, news
from bridge.store.database import changed
from bridge.store.models import (
    Agent,
    AgentState,
    Attempt,
    Call,
    CallAgent,
    Callback,
    CallEventRow,
    Client,
    CustomerNumber,
    Did,
    Site,
    table,
)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Recording:
    """One transaction's work, and what is left to do after its commit."""

    session: Session
    home_region: str
    """How numbers of calls of no client are read."""
    calls: dict[str, Call] = field(default_factory=dict)
    """Those that the events speak of, as far as they are known."""
    hang_up: dict[str, str] = field(default_factory=dict)
    """Calls, with their PBX, whose attempt was cancelled before the PBX showed them."""
    over: list[Call] = field(default_factory=list)
    """Those that have ended by these events."""


def record(work: Recording, entries: Sequence[Entry]) -> int:
    """Store the events, and then all that follows, in order, from those that are new; says how many these are."""
    new = _store(work.session, entries)
    work.calls.update(_load(work.session, {call for call, _ in new}))
    count = 0
    for entry in entries:
        if entry.call is None or entry.seq is None:
            _link(work.session, entry)
        elif (entry.call, entry.seq) in new:
            # The same event may stand in one batch twice.
            new.remove((entry.call, entry.seq))
            _hear(work, entry, entry.call, entry.seq)
        else:
            continue
        count += 1
    return count


def _store(session: Session, entries: Sequence[Entry]) -> set[tuple[str, int]]:
    """Keep the events of calls, all by one statement; those that were not there before."""
    rows = [
        {"call_id": entry.call, "seq": entry.seq, "type": entry.type, "at": entry.at, "data": dict(entry.data)}
        for entry in entries
        if entry.call is not None and entry.seq is not None
    ]
    if not rows:
        return set()
    dialect = session.get_bind().dialect.name
    events = table(CallEventRow)
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(events).on_conflict_do_nothing()
    stored = session.execute(insert.returning(events.c.call_id, events.c.seq), rows)
    return {(call, seq) for call, seq in stored}


def _load(session: Session, calls: Collection[str]) -> dict[str, Call]:
    """By id, all at once: one by one they cost as much as all that follows. Another recorder waits meanwhile."""
    wanted = select(Call).where(Call.id.in_(sorted(calls))).order_by(Call.id).with_for_update()
    found = session.scalars(wanted.execution_options(populate_existing=True)) if calls else ()
    return {call.id: call for call in found}


def _hear(work: Recording, entry: Entry, call_id: str, seq: int) -> None:
    session = work.session
    call = work.calls.get(call_id)
    if call is None:
        call = work.calls[call_id] = _new_call(entry)
        session.add(call)
        session.flush()
    if seq <= call.last_seq:
        return
    call.last_seq = seq
    hear = HEARD.get(entry.type)
    if hear is not None:
        hear(work, call, entry)
    _tell(session, call, entry)


def _new_call(entry: Entry) -> Call:
    return Call(id=entry.call, pbx=entry.pbx, started_at=entry.at, state="started", last_seq=0)


def _tell(session: Session, call: Call, entry: Entry) -> None:
    news.note(
        session,
        news.SUPERVISORS,
        "board",
        {
            "kind": "call",
            "call": call.id,
            "type": entry.type,
            "state": call.state,
            "at": news.rfc3339(entry.at),
            "pbx": call.pbx,
            "direction": call.direction,
            "client_id": call.client_id,
            "agent": call.agent_id,
            "queue": call.queue,
            "number": call.customer_number,
            "cause": call.cause,
        },
    )


def _link(session: Session, entry: Entry) -> None:
    news.note(
        session,
        news.SUPERVISORS,
        "board",
        {
            "kind": "link",
            "pbx": entry.pbx,
            "type": entry.type,
            "at": news.rfc3339(entry.at),
            **dict(entry.data),
        },
    )


# --- what is heard ---


def _started(work: Recording, call: Call, entry: Entry) -> None:
    session, data = work.session, entry.data
    call.started_at = entry.at
    _know_parties(work, call, data)
    attempt = session.get(Attempt, data["attempt"], populate_existing=True) if data.get("attempt") else None
    if attempt is not None:
        call.attempt_id, call.callback_id = attempt.id, attempt.callback_id
        call.client_id = call.client_id or attempt.client_id
        call.agent_id = call.agent_id or attempt.agent_id
        call.customer_number = attempt.number
        _script_of_callback(session, call)
        _know_customer(session, call)
        dial_outcomes.started(session, attempt, call.id, entry.at)
        _hang_up_if_cancelled(work, call)


def _queued(work: Recording, call: Call, entry: Entry) -> None:
    call.queue = str(entry.data.get("queue") or "")[:100] or None
    if call.connected_at is None:
        call.state = "queued"
    if call.attempt_id is not None:
        dial_outcomes.queued(work.session, call.attempt_id, entry.at)


def _offered(work: Recording, call: Call, entry: Entry) -> None:
    party = _party(entry.data.get("party"))
    if call.state in ("started", "queued"):
        call.state = "offered"
    _enter(work.session, call, party, entry.at, talking=False)
    if call.attempt_id is not None:
        dial_outcomes.offered(work.session, call.attempt_id, party, entry.at)
        _hang_up_if_cancelled(work, call)


def _unoffered(work: Recording, call: Call, entry: Entry) -> None:
    _leave(work.session, call, _party(entry.data.get("party")).get("agent"), entry.at)


def _connected(work: Recording, call: Call, entry: Entry) -> None:
    call.state = "connected"
    call.connected_at = call.connected_at or entry.at
    parties = [_party(party) for party in entry.data.get("parties") or []]
    for party in parties:
        _enter(work.session, call, party, entry.at, talking=True)
        agent = _agent(work.session, party.get("agent"))
        if agent is not None:
            call.agent_id = agent
    if call.attempt_id is not None:
        dial_outcomes.connected(work.session, call.attempt_id, parties, entry.at)


def _held(work: Recording, call: Call, entry: Entry) -> None:
    call.state = "held"


def _resumed(work: Recording, call: Call, entry: Entry) -> None:
    call.state = "connected"


def _transferred(work: Recording, call: Call, entry: Entry) -> None:
    """For an agent who leaves it is over, unless the transfer is only announced to themselves."""
    leaving = _party(entry.data.get("from")).get("agent")
    if leaving != _party(entry.data.get("to")).get("agent"):
        _leave(work.session, call, leaving, entry.at)


def _merged(work: Recording, call: Call, entry: Entry) -> None:
    call.state, call.ended_at = "merged", entry.at
    call.merged_into = str(entry.data.get("into") or "")[:100] or None
    # Who goes on talking is in the survivor already or will be; merging ends nobody's conversation.
    work.session.execute(delete(CallAgent).where(CallAgent.call_id == call.id))
    work.session.flush()
    _recount(work.session, _agents_of_events(work.session, call.id))
    if call.attempt_id is not None:
        dial_outcomes.merged(work.session, call.attempt_id, entry.at)


def _ended(work: Recording, call: Call, entry: Entry) -> None:
    session, data = work.session, entry.data
    call.state, call.ended_at = "ended", entry.at
    call.cause = data.get("cause")
    call.q850 = data.get("q850")
    call.answered_by = data.get("answered_by")
    call.wait_ms, call.talk_ms = data.get("wait_ms"), data.get("talk_ms")
    _know_parties(work, call, data)
    present = list(session.scalars(select(CallAgent.agent_id).where(CallAgent.call_id == call.id)))
    if call.attempt_id is not None:
        dial_outcomes.ended(session, call.attempt_id, call.id, call.cause, call.q850, entry.at)
    for agent in present:
        _leave(session, call, agent, entry.at)
    work.over.append(call)


HEARD: Mapping[str, Callable[[Recording, Call, Entry], None]] = {
    CallEventType.STARTED: _started,
    CallEventType.QUEUED: _queued,
    CallEventType.OFFERED: _offered,
    CallEventType.UNOFFERED: _unoffered,
    CallEventType.CONNECTED: _connected,
    CallEventType.HELD: _held,
    CallEventType.RESUMED: _resumed,
    CallEventType.TRANSFERRED: _transferred,
    CallEventType.MERGED: _merged,
    CallEventType.ENDED: _ended,
}


# --- who it is ---


def _party(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _agent(session: Session, agent_id: Any) -> str | None:
    """An agent that exists: the listener's directory may be older than the table."""
    if not isinstance(agent_id, str) or not agent_id:
        return None
    return agent_id if session.get(Agent, agent_id) is not None else None


def _know_parties(work: Recording, call: Call, data: Mapping[str, Any]) -> None:
    """Direction, parties, client, DID and customer, as far as this event tells more than is known."""
    session = work.session
    call.direction = data.get("direction") or call.direction
    for name in ("from", "to"):
        if data.get(name):
            setattr(call, f"{name}_party", dict(data[name]))
    client = session.get(Client, data["client"]) if data.get("client") else None
    if client is not None:
        call.client_id = client.id
    if call.attempt_id is not None or data.get("attempt"):
        return
    caller, dialled = _party(call.from_party), _party(call.to_party)
    if call.direction == "inbound":
        _know_did(work, call, str(dialled.get("number") or dialled.get("extension") or ""))
        outside = caller
    elif call.direction == "outbound":
        outside = dialled
    else:
        return
    number = None if outside.get("withheld") else outside.get("number")
    if number and call.customer_number is None:
        call.customer_number = _normal(str(number), _region(work, call))
    _know_customer(session, call)


def _know_did(work: Recording, call: Call, dialled: str) -> None:
    if call.script_id is not None or not dialled:
        return
    wanted = {dialled, _normal(dialled, _region(work, call))}
    did = work.session.scalar(select(Did).where(Did.number.in_(wanted)).limit(1))
    if did is not None:
        call.client_id = call.client_id or did.client_id
        if call.client_id == did.client_id:
            call.script_id = did.script_id


def _region(work: Recording, call: Call) -> str:
    client = work.session.get(Client, call.client_id) if call.client_id else None
    return client.region if client is not None else work.home_region


def _normal(number: str, region: str) -> str:
    """E.164 where it is a number, else as it came (an extension, a short number)."""
    try:
        return parse_number(number, region)
    except Invalid:
        return number[:20]


def _know_customer(session: Session, call: Call) -> None:
    if call.customer_id is None and call.customer_number and call.client_id:
        call.customer_id = session.scalar(
            select(CustomerNumber.customer_id)
            .where(CustomerNumber.number == call.customer_number, CustomerNumber.client_id == call.client_id)
            .order_by(CustomerNumber.customer_id)
            .limit(1)
        )


def _script_of_callback(session: Session, call: Call) -> None:
    callback = session.get(Callback, call.callback_id or "")
    site = session.get(Site, callback.site_id) if callback is not None else None
    if site is not None:
        call.script_id = site.script_id


# --- agents in calls ---


def _enter(session: Session, call: Call, party: Mapping[str, Any], at: datetime, *, talking: bool) -> None:
    agent = _agent(session, party.get("agent"))
    if agent is None:
        return
    row = session.get(CallAgent, (call.id, agent))
    if row is None:
        session.add(CallAgent(call_id=call.id, agent_id=agent, talking=talking, since=at))
    elif talking:
        row.talking = True
    session.flush()
    _recount(session, [agent])


def _leave(session: Session, call: Call, agent: Any, at: datetime) -> None:
    """The agent has no more part in the call; after a conversation with the outside comes wrap-up."""
    row = session.get(CallAgent, (call.id, agent)) if isinstance(agent, str) else None
    if row is None:
        return
    talked = row.talking
    session.delete(row)
    session.flush()
    _recount(session, [row.agent_id])
    if talked and call.direction != "internal":
        _wrap_up(session, row.agent_id, at)


def _recount(session: Session, agents: list[str]) -> None:
    for agent in agents:
        live = (
            select(func.count()).select_from(CallAgent).where(CallAgent.agent_id == agent).scalar_subquery()
        )
        changed(session, update(AgentState).where(AgentState.agent_id == agent).values(live_calls=live))


def _agents_of_events(session: Session, call_id: str) -> list[str]:
    """Everybody who was offered this call: few rows, read only when calls merge."""
    rows = session.scalars(
        select(CallEventRow.data).where(
            CallEventRow.call_id == call_id,
            CallEventRow.type.in_([str(CallEventType.OFFERED), str(CallEventType.CONNECTED)]),
        )
    )
    found: dict[str, None] = {}
    for data in rows:
        for party in [data.get("party"), *(data.get("parties") or [])]:
            agent = _party(party).get("agent")
            if isinstance(agent, str):
                found[agent] = None
    return list(found)


def _wrap_up(session: Session, agent: str, at: datetime) -> None:
    won = changed(
        session,
        update(AgentState)
        .where(AgentState.agent_id == agent, AgentState.state == "ready", AgentState.live_calls == 0)
        .values(state="wrapup", reason=None, since=at),
    )
    row = session.get(AgentState, agent, populate_existing=True)
    if won and row is not None:
        news.note_agent(session, row)


def _hang_up_if_cancelled(work: Recording, call: Call) -> None:
    attempt = work.session.get(Attempt, call.attempt_id or "", populate_existing=True)
    if attempt is not None and attempt.state == "cancelled":
        work.hang_up[call.id] = call.pbx
