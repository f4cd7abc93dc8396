"""Jobs of the queue `default` that the scheduler enqueues."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from bridge.domain.errors import Unavailable
from bridge.services import sweeping
from workers.surroundings import surroundings

log = structlog.get_logger(__name__)


def sweep() -> None:
    """Put right what crashes and lost commands left behind, and enqueue what is due."""
    here = surroundings()
    try:
        sweeping.sweep(here.sessions, here.redis, here.settings, now=datetime.now(UTC))
    except Unavailable as error:
        log.warning("sweep put off", error=error.message)


def tidy() -> None:
    """Drop what has served its time."""
    try:
        sweeping.tidy(surroundings().sessions, now=datetime.now(UTC))
    except Unavailable as error:
        log.warning("tidying put off", error=error.message)
