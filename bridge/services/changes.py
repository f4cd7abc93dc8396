"""Word to other processes that rows changed, so that they reload what they keep in memory."""

from __future__ import annotations

import redis
import structlog

from bridge.live import keys

log = structlog.get_logger(__name__)


def announce(server: redis.Redis, *collections: str) -> None:
    """Publish each name on `rb:changed`. Redis being down is no fault of the change: readers reload on their own."""
    try:
        for name in collections:
            server.publish(keys.CHANGED, name)
    except redis.RedisError as error:
        log.warning("change not announced", collections=collections, error=type(error).__name__)
