"""What the call history knows of calls that are open: for a listener that finds nothing of them in Redis."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.domain.calls import CallEventType, Direction, Expected, Party, Remembered
from bridge.store.models import Attempt, Call, CallEventRow

_MOST = 10_000
_PARTY = ("device", "extension", "number", "name", "agent")


def load(session: Session, pbx: str, besides: Container[str]) -> list[Remembered]:
    """The open calls of one PBX of which Redis keeps no state (`besides` names those of which it does)."""
    rows = session.scalars(
        select(Call)
        .where(Call.pbx == pbx, Call.ended_at.is_(None), Call.last_seq > 0)
        .order_by(Call.started_at.desc())
        .limit(_MOST)
    ).all()
    return [_remembered(session, row) for row in rows if row.id not in besides]


def _remembered(session: Session, row: Call) -> Remembered:
    queue: str | None = None
    offered: set[str] = set()
    talked: set[str] = set()
    held: set[str] = set()
    last = row.started_at
    history = session.execute(
        select(CallEventRow.type, CallEventRow.at, CallEventRow.data)
        .where(CallEventRow.call_id == row.id)
        .order_by(CallEventRow.seq)
    )
    for kind, at, data in history:
        last = max(last, at)
        match kind:
            case CallEventType.QUEUED:
                queue = data.get("queue")
            case CallEventType.UNQUEUED:
                queue = None
            case CallEventType.OFFERED:
                offered |= _devices(data.get("party"))
            case CallEventType.UNOFFERED:
                offered -= _devices(data.get("party"))
            case CallEventType.CONNECTED:
                talked |= {device for party in data.get("parties") or () for device in _devices(party)}
            case CallEventType.TRANSFERRED:
                talked -= _devices(data.get("from"))
            case CallEventType.HELD:
                held |= _devices(data.get("by"))
            case CallEventType.RESUMED:
                held -= _devices(data.get("by"))
    attempt = session.get(Attempt, row.attempt_id) if row.attempt_id else None
    return Remembered(
        id=row.id,
        seq=row.last_seq,
        born=row.started_at.timestamp(),
        last=last.timestamp(),
        direction=Direction(row.direction) if row.direction else None,
        caller=_party(row.from_party),
        callee=_party(row.to_party),
        client=row.client_id,
        queue=queue,
        connected_at=_seconds(row.connected_at),
        offered=frozenset(offered),
        talked=frozenset(talked),
        held=frozenset(held),
        expected=None if attempt is None else expected(attempt),
    )


def expected(row: Attempt) -> Expected:
    """What a tracker must know of a dial of ours."""
    return Expected(
        attempt=row.id,
        agent=row.agent_id,
        agent_device=row.agent_device,
        number=row.number,
        callback=row.callback_id,
        client=row.client_id,
        agent_first=row.agent_first,
    )


def _party(shown: Mapping[str, Any] | None) -> Party | None:
    if not shown:
        return None
    return Party(**{name: shown.get(name) for name in _PARTY}, withheld=bool(shown.get("withheld")))


def _devices(shown: Mapping[str, Any] | None) -> set[str]:
    device = (shown or {}).get("device")
    return {device} if isinstance(device, str) else set()


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
