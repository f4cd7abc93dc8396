"""Jobs of the queue `dial`."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from bridge.domain.errors import Unavailable
from bridge.services import dialling
from workers.surroundings import surroundings

log = structlog.get_logger(__name__)


def dial_callback(callback_id: str) -> None:
    """Claim this callback and send its dial; does nothing where it may not be dialled now.

    Safe to run twice: the second finds the callback held. Where the database does not answer, the
    callback is left to the sweep.
    """
    here = surroundings()
    try:
        dialling.dial(here.sessions, here.redis, here.settings, callback_id, now=datetime.now(UTC))
    except Unavailable as error:
        log.warning("claim put off", callback=callback_id, error=error.message)
