"""The switch that stops all dialling at once; in SQL, so that it survives everything."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from bridge.store.models import Switch

DIALING = "dialing"
STOPPED = "stopped"
ON = "on"


def dialing_stopped(session: Session) -> bool:
    """Whether dialling was stopped; without a word it is allowed."""
    row = session.get(Switch, DIALING, populate_existing=True)
    return row is not None and row.value != ON


def set_dialing(session: Session, *, stopped: bool, by: str, now: datetime) -> None:
    """Stop all dialling, or allow it again. The caller commits."""
    session.merge(Switch(name=DIALING, value=STOPPED if stopped else ON, by=by, at=now))
