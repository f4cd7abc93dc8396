"""Calls as they go on, for whoever looks again and again: each look tells what was recorded since the one before.

It reads SQL, as everything else does, so it shows what Ringbridge takes a call for, and needs no Redis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bridge.store.models import Call, CallEventRow

Told = tuple[Call, CallEventRow]

_REACH = timedelta(minutes=5)
"""A call that began and ended between two looks is found if it began within this time before the latest call."""
_MANY = 500


class CallWatch:
    """Follows all calls whose columns have the values in `columns`."""

    def __init__(self, columns: Mapping[str, Any], keep: timedelta = timedelta(0)) -> None:
        self._columns = {name: value for name, value in columns.items() if value is not None}
        self._keep = keep
        """How long a call that has ended is still shown."""
        self._seen: dict[str, int] = {}
        self._told: dict[str, int] = {}
        """Up to which `seq` each call was told: a call that is wanted only later is told from its beginning."""
        self._rows: dict[str, Call] = {}
        self._over: dict[str, datetime] = {}
        self._latest: datetime | None = None

    def look(self, db: Session, now: datetime) -> list[Told]:
        """What was recorded since the last look, each with its call as it is now, a call's own in order.

        The first look tells what the calls in progress have behind them.
        """
        changed = self._changed(db, now)
        rows = {row.id: row for some in _chunks(changed) for row in db.scalars(select(Call).where(Call.id.in_(some)))}
        wanted = {call: self._told.get(call, 0) for call, row in rows.items() if self._wanted(row)}
        told = [(rows[event.call_id], event) for event in _events(db, wanted)]
        self._told |= {call: rows[call].last_seq for call in wanted}
        self._settle(rows, now)
        return _in_order(told)

    def calls(self) -> list[Call]:
        """The calls in progress, and those that ended a moment ago, the oldest first."""
        found = [row for row in self._rows.values() if self._wanted(row)]
        return sorted(found, key=lambda row: (row.started_at, row.id))

    def _changed(self, db: Session, now: datetime) -> list[str]:
        """The calls with news."""
        first = self._latest is None
        latest = self._latest or db.scalar(select(func.max(Call.started_at))) or now
        # A PBX whose clock is ahead must not hide the others' calls.
        recent = Call.started_at >= min(latest, now) - _REACH
        columns = select(Call.id, Call.last_seq, Call.started_at, Call.ended_at)
        # Two questions, each with an index of its own: with OR every call there ever was would be read.
        found = list(db.execute(columns.where(Call.ended_at.is_(None))))
        found += db.execute(columns.where(recent, Call.ended_at.is_not(None)))
        known = {row.id for row in found}
        for some in _chunks([call for call in self._rows if call not in known]):
            found += db.execute(columns.where(Call.id.in_(some)))
        self._latest = max([latest, *(row.started_at for row in found)])
        before, self._seen = self._seen, {row.id: row.last_seq for row in found}
        if first:
            # What is over is not news.
            self._told = {row.id: row.last_seq for row in found if row.ended_at is not None}
            return [row.id for row in found if row.ended_at is None]
        self._told = {call: seq for call, seq in self._told.items() if call in self._seen}
        return [row.id for row in found if row.last_seq != before.get(row.id)]

    def _settle(self, rows: Mapping[str, Call], now: datetime) -> None:
        self._rows |= rows
        for call, row in list(self._rows.items()):
            if row.ended_at is not None and now - self._over.setdefault(call, now) >= self._keep:
                del self._rows[call], self._over[call]

    def _wanted(self, row: Call) -> bool:
        return all(getattr(row, name) == value for name, value in self._columns.items())


def _events(db: Session, told: Mapping[str, int]) -> list[CallEventRow]:
    """The events of these calls behind the ones that were told."""
    found: list[CallEventRow] = []
    for some in _chunks(list(told)):
        lowest = min(told[call] for call in some)
        found += db.scalars(select(CallEventRow).where(CallEventRow.call_id.in_(some), CallEventRow.seq > lowest))
    return [event for event in found if event.seq > told[event.call_id]]


def _in_order(told: list[Told]) -> list[Told]:
    """By time over all calls; within one call by `seq`, whatever its times say."""
    latest: dict[str, datetime] = {}
    keyed = []
    for call, event in sorted(told, key=lambda pair: (pair[1].call_id, pair[1].seq)):
        at = latest[call.id] = max(latest.get(call.id, event.at), event.at)
        keyed.append(((at, call.id, event.seq), (call, event)))
    return [pair for _, pair in sorted(keyed, key=lambda item: item[0])]


def _chunks(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + _MANY] for start in range(0, len(ids), _MANY))
