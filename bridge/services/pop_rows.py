"""Writes a row for each pop, in batches, away from the thread that pops."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from bridge.services.pop_building import Shown
from bridge.services.pop_facts import DOWN
from bridge.store import models
from bridge.store.database import Sessions

log = structlog.get_logger(__name__)

LONGEST_QUEUE = 10_000


class PopRows:
    """A queue of rows and the thread that writes them; the oldest go first where it is full."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._waiting: deque[dict[str, Any]] = deque(maxlen=LONGEST_QUEUE)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pop-rows", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end; gives up after five seconds."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def add(self, shown: Iterable[Shown]) -> None:
        now = datetime.now(UTC)
        rows = [
            {
                "id": one.pop,
                "call_id": one.data["call"],
                "agent_id": one.agent,
                "offered_at": datetime.fromisoformat(one.data["at"]),
                "sent_at": now,
            }
            for one in shown
            if one.is_new
        ]
        if rows:
            self._waiting.extend(rows)
            self._wake.set()

    def flush(self) -> None:
        """Write what waits now. Raises one of DOWN; what was not written waits on."""
        rows = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not rows:
            return
        try:
            with self._sessions.begin() as session:
                dialect = session.get_bind().dialect.name
                insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
                table = models.Pop.__table__
                assert isinstance(table, Table)
                session.execute(insert(table).on_conflict_do_nothing(), rows)
        except DOWN:
            self._waiting.extendleft(reversed(rows))
            raise

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self.flush()
            except DOWN as error:
                log.warning("pop rows wait for the database", error=type(error).__name__)
                if self._stop.wait(1.0):
                    return
                self._wake.set()
            if self._stop.is_set():
                return
