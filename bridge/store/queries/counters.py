"""Counting in SQL: limits that a flushed Redis must not reopen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Executable, and_, bindparam, delete, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from bridge.store.models import Counter, table

_COUNTERS = table(Counter)

_PARTS = 12
"""A span is counted in this many parts, so that a limit slides: nobody doubles it at a full hour."""


def count(
    session: Session, scope: str, subject: str, span: timedelta, now: datetime, *, amount: int = 1
) -> int:
    """Add one (or `amount`), and say how many there were within `span` up to now, this one included."""
    return count_each(session, [(scope, subject, span)], now, amount=amount)[0]


def total(session: Session, scope: str, subject: str, span: timedelta, now: datetime) -> int:
    """How many there were within `span` up to now; adds none."""
    asked = {"scope0": scope, "subject0": subject, "after0": now - span}
    found = session.connection().execute(_totals(1), asked).one_or_none()
    return int(found[1]) if found is not None else 0


def count_each(
    session: Session, subjects: Sequence[tuple[str, str, timedelta]], now: datetime, *, amount: int = 1
) -> list[int]:
    """Add one (or `amount`) to each (scope, subject), and say how many there were within its span, this included.

    Two transactions that count the same subject wait for each other, so no limit is passed by a race; all of them
    name their scopes in the same order, so that none waits in a circle.
    """
    rows: list[dict[str, Any]] = []
    asked: dict[str, Any] = {}
    for number, (scope, subject, span) in enumerate(subjects):
        part = (span / _PARTS).total_seconds()
        window = datetime.fromtimestamp(now.timestamp() // part * part, UTC)
        rows.append({"scope": scope, "subject": subject, "window": window, "count": amount})
        asked |= {f"scope{number}": scope, f"subject{number}": subject, f"after{number}": now - span}
    connection = session.connection()
    connection.execute(_bump(connection.dialect.name), rows)
    found: dict[str, int] = {
        scope: int(total) for scope, total in connection.execute(_totals(len(rows)), asked)
    }
    return [found[scope] for scope, _, _ in subjects]


@cache
def _bump(dialect: str) -> Executable:
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(_COUNTERS)
    more = {"count": _COUNTERS.c.count + insert.excluded["count"]}
    statement: Executable = insert.on_conflict_do_update(
        index_elements=["scope", "subject", "window"], set_=more
    )
    return statement


@cache
def _totals(subjects: int) -> Executable:
    """Made once: to build a statement takes SQLAlchemy longer than SQLite takes to run it."""
    which = (
        and_(
            _COUNTERS.c.scope == bindparam(f"scope{number}"),
            _COUNTERS.c.subject == bindparam(f"subject{number}"),
            _COUNTERS.c.window > bindparam(f"after{number}"),
        )
        for number in range(subjects)
    )
    return (
        select(_COUNTERS.c.scope, func.sum(_COUNTERS.c.count)).where(or_(*which)).group_by(_COUNTERS.c.scope)
    )


def forget_before(session: Session, at: datetime) -> None:
    """Drop counters whose window began before `at`."""
    session.execute(delete(Counter).where(Counter.window < at))
