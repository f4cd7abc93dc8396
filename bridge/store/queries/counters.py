"""Counting in SQL: limits that a flushed Redis must not reopen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from bridge.store.models import Counter

_PARTS = 12
"""A span is counted in this many parts, so that a limit slides: nobody doubles it at a full hour."""


def count(session: Session, scope: str, subject: str, span: timedelta, now: datetime) -> int:
    """Add one, and say how many there were within `span` up to now, this one included.

    Two transactions that count the same subject wait for each other, so no limit is passed by a race.
    """
    part = span / _PARTS
    window = datetime.fromtimestamp(now.timestamp() // part.total_seconds() * part.total_seconds(), UTC)
    bump(session, scope, subject, window)
    total = session.scalar(
        select(func.sum(Counter.count)).where(
            Counter.scope == scope, Counter.subject == subject, Counter.window > now - span
        )
    )
    return int(total or 0)


def bump(session: Session, scope: str, subject: str, window: datetime) -> None:
    """Add one to a counter."""
    dialect = session.get_bind().dialect.name
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(Counter)
    session.execute(
        insert.values(scope=scope, subject=subject, window=window, count=1).on_conflict_do_update(
            index_elements=["scope", "subject", "window"], set_={"count": Counter.count + 1}
        )
    )


def forget_before(session: Session, at: datetime) -> None:
    """Drop counters whose window began before `at`."""
    session.execute(delete(Counter).where(Counter.window < at))
