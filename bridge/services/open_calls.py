"""Calls that SQL holds open though the PBX has them no more: nobody saw their end, so it is published now.

It takes two losses at once: the live picture in Redis (a flush) and the process that had it in memory. Left alone,
such a call would keep its agent busy for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import select

from bridge.domain.calls import CallEvent, CallEventType, Cause
from bridge.store.database import Sessions
from bridge.store.models import Call
from bridge.uptime import uptime

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 3.0
RECORDER_SECONDS = 30.0
"""How long a recorder that lags is waited for, and how long until an end that did not arrive is told again."""
_BATCH = 500


class OpenCalls:
    """The calls of one PBX that were open in SQL at the last resync, until each has ended there."""

    def __init__(
        self,
        pbx: str,
        sessions: Sessions,
        live_calls: Callable[[], frozenset[str]],
        recorder_has_read: Callable[[str], bool],
        publish: Callable[[CallEvent], None],
    ) -> None:
        self._pbx = pbx
        self._sessions = sessions
        self._live_calls = live_calls
        self._recorder_has_read = recorder_has_read
        self._publish = publish
        self._watched: set[str] | None = None
        self._missing: dict[str, float] = {}
        self.ended = 0

    def begin_again(self) -> None:
        """The live picture is whole again: look at everything that is open."""
        self._watched = None
        self._missing = {}

    def step(self) -> None:
        """One look. Raises Unavailable, and redis' errors."""
        if self._watched is None:
            with self._sessions.read() as session:
                self._watched = set(
                    session.scalars(select(Call.id).where(Call.pbx == self._pbx, Call.ended_at.is_(None)))
                )
        if not self._watched:
            return
        alive = self._live_calls()
        gone = self._watched - alive
        for call in self._missing.keys() - gone:
            del self._missing[call]
        for call in sorted(gone)[:_BATCH]:
            since = self._missing.setdefault(call, uptime())
            waited = uptime() - since
            if waited >= SETTLE_SECONDS and (self._recorder_has_read(call) or waited >= RECORDER_SECONDS):
                self._end(call)

    def _end(self, call: str) -> None:
        with self._sessions.read() as session:
            row = session.get(Call, call)
        if row is None or row.ended_at is not None:
            if self._watched is not None:
                self._watched.discard(call)
            self._missing.pop(call, None)
            return
        self._publish(
            CallEvent(CallEventType.ENDED, self._pbx, datetime.now(UTC), call, row.last_seq + 1, _as_known(row))
        )
        # Looked at again: should this be lost too, it is told again.
        self._missing[call] = uptime() + RECORDER_SECONDS
        self.ended += 1
        log.warning("a call's end was not seen; it is ended now", call=call)


def _as_known(row: Call) -> dict[str, Any]:
    connected = row.connected_at
    return {
        "cause": str(Cause.UNCERTAIN),
        "q850": None,
        "direction": row.direction,
        "from": row.from_party,
        "to": row.to_party,
        "answered_by": None if connected is None else "person",
        "wait_ms": None if connected is None else max(0, round((connected - row.started_at).total_seconds() * 1000)),
        "talk_ms": None,
        "ended_by": None,
    }
