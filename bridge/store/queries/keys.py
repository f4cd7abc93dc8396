"""Idempotency keys."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import delete, text
from sqlalchemy.orm import Session

from bridge.store.models import IdempotencyKey


def try_key_lock(session: Session, name: str) -> bool:
    """Whether this transaction may work under that key; False while another one does.

    On SQLite writers come one after the other, so whoever is here is alone.
    """
    if session.get_bind().dialect.name != "postgresql":
        return True
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": number}))


def forget_before(session: Session, at: datetime) -> None:
    """Drop keys first used before `at`; a repeat after that is a new request."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < at))
