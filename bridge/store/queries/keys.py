"""Idempotency keys, and locks by name."""

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
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _lock_number(name)}))


def wait_for_lock(session: Session, name: str) -> None:
    """Be alone under that name until this transaction ends; on SQLite whoever writes is."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _lock_number(name)})


def _lock_number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def forget_before(session: Session, at: datetime) -> None:
    """Drop keys first used before `at`; a repeat after that is a new request."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < at))
