"""What was refused, counted for the supervisor, who hears of a flood while it lasts.

A refused request writes nothing of its own: a flood would else be a flood of writes. Each process keeps its counts and
writes them together, at most every few seconds.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from redis import Redis
from sqlalchemy.orm import Session

from bridge.domain.errors import Unavailable
from bridge.services import audit, news
from bridge.store.database import Sessions
from bridge.store.queries import counters

log = structlog.get_logger(__name__)
REFUSED = "refused"
FLOOD = "abuse.flood"
MANY = 50
"""Refused requests of a site in an hour, from which on a supervisor is told."""
_EVERY = timedelta(seconds=5)
_AT_ONCE = 200
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Door:
    """Whose door was knocked at."""

    site: str
    client: str


@dataclass(slots=True)
class Refusals:
    """The counts of one process that are not written yet; used by many threads."""

    _waiting: dict[Door, Counter[str]] = field(default_factory=dict)
    _written_at: datetime | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, sessions: Sessions, redis: Redis, door: Door, code: str, *, now: datetime) -> None:
        """Count one refusal, and write what waits where it is time. Never raises for the database or Redis."""
        with self._lock:
            self._waiting.setdefault(door, Counter())[code] += 1
            waiting = sum(counts.total() for counts in self._waiting.values())
            if self._written_at is not None and now - self._written_at < _EVERY and waiting < _AT_ONCE:
                return
            taken, self._waiting, self._written_at = self._waiting, {}, now
        try:
            with sessions.begin() as session:
                for door in sorted(taken, key=lambda each: each.site):
                    _write(session, door, taken[door], now)
        except Unavailable as error:
            log.warning("refusals were not counted", error=error.message)
            return
        news.publish(redis, session)


def _write(session: Session, door: Door, counts: Counter[str], now: datetime) -> None:
    total = counters.count(session, REFUSED, door.site, _HOUR, now, amount=counts.total())
    for code, amount in sorted(counts.items()):
        counters.count(session, f"{REFUSED}:{code}"[:40], door.site, _HOUR, now, amount=amount)
    if total >= MANY and counters.count(session, "told_flood", door.site, _HOUR, now) == 1:
        tell(session, now, FLOOD, door, {"refused": total, **counts})


def tell(session: Session, now: datetime, action: str, door: Door, detail: dict[str, object]) -> None:
    """A line of the audit log, and news for the supervisors' board; both hold no address and no number."""
    audit.record(session, now, audit.OURSELVES, action, door.site, door.client, detail)
    body = {"kind": "notice", "client_id": door.client, "site_id": door.site, "notice": action, "detail": detail}
    news.note(session, news.SUPERVISORS, "board", body)
