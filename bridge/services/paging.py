"""Lists by cursor: newest first, stable while rows are added."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Session

from bridge.domain.errors import Invalid

MOST = 200
"""Rows of one page at most."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and the cursor of the next page (None on the last)."""

    rows: list[Any]
    cursor: str | None


def page_of(
    db: Session,
    statement: Select[Any],
    time: InstrumentedAttribute[Any],
    key: InstrumentedAttribute[Any],
    limit: int,
    cursor: str | None,
) -> Page:
    """One page of entities, by `time` and `key` downwards. Raises Invalid for a cursor that is none of ours."""
    limit = max(1, min(limit, MOST))
    if cursor:
        at, last = _read(cursor)
        if key.type.python_type is int:
            last = _integer(last)
        statement = statement.where(or_(time < at, and_(time == at, key < last)))
    statement = statement.order_by(time.desc(), key.desc()).limit(limit + 1)
    rows = list(db.scalars(statement).unique())
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, _write(getattr(rows[-1], time.key), getattr(rows[-1], key.key)) if more else None)


def _write(at: datetime, key: object) -> str:
    return base64.urlsafe_b64encode(f"{at.isoformat()}|{key}".encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[datetime, Any]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, bar, key = text.partition("|")
        moment = datetime.fromisoformat(at)
    except (ValueError, binascii.Error):
        raise _wrong() from None
    if not bar or not key or moment.tzinfo is None:
        raise _wrong()
    return moment, key


def _integer(text: str) -> int:
    if not text.isdigit() or len(text) > 18:
        raise _wrong()
    return int(text)


def _wrong() -> Invalid:
    return Invalid("this cursor is not from one of our lists; leave it out to begin anew", field="cursor")
