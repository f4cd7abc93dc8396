"""The audit log: who changed what, and who signed in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.services.access import LEADERS, Access
from bridge.services.paging import Page, page_of
from bridge.store.models import Audit

OURSELVES = "ringbridge"
"""Who is named where no person did it."""
# What a reader of the log must not learn from it.
_HIDDEN = frozenset({"password", "password_hash", "token", "number", "numbers", "email", "note", "body"})


def record(
    db: Session,
    now: datetime,
    actor: str,
    action: str,
    subject: str,
    client: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add a row to the transaction: `action` such as `clients.create`, `subject` the id it was done to."""
    shown = {key: ("(changed)" if key in _HIDDEN else value) for key, value in (detail or {}).items()}
    db.add(
        Audit(at=now, client_id=client, actor=actor[:100], action=action, object=subject[:140], detail=shown)
    )


def find(
    db: Session,
    access: Access,
    limit: int,
    cursor: str | None,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
) -> Page:
    """A page of the log, for supervisors and administrators."""
    access.require(LEADERS)
    statement = access.scope(select(Audit), Audit.client_id)
    for column, value in ((Audit.actor, actor), (Audit.action, action), (Audit.object, subject)):
        if value is not None:
            statement = statement.where(column == value)
    return page_of(db, statement, Audit.at, Audit.id, limit, cursor)
