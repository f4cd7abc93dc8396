"""Connections to Redis: protocol 2 for stable reply shapes, a bound on every wait, and no hidden retries.

redis-py re-sends a command whose reply was lost. What this package sends is made safe to repeat where
it is repeated, so repeating is left to the caller.
"""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from bridge.settings import Settings

DOWN = (RedisError, OSError)
"""What a Redis that does not answer raises."""

_CONNECT_SECONDS = 1.0
_REPLY_SECONDS = 5.0
_ENQUEUE_SECONDS = 0.4
_HEALTH_SECONDS = 15

Connection = Redis
"""A client of a Redis server; safe to share between threads."""


def connect(settings: Settings, *, reply_seconds: float = _REPLY_SECONDS) -> Redis:
    """A client that speaks text. Connects when first used; a blocking read must ask for less than `reply_seconds`."""
    return Redis.from_url(settings.redis_url, **_options(reply_seconds), decode_responses=True)


def connect_bytes(settings: Settings, *, reply_seconds: float = _REPLY_SECONDS) -> Redis:
    """A client that speaks bytes, as RQ's workers need it."""
    return Redis.from_url(settings.redis_url, **_options(reply_seconds))


def bytes_twin(redis: Redis, *, reply_seconds: float = _ENQUEUE_SECONDS) -> Redis:
    """A client of the same server that speaks bytes and gives up soon, for a caller who must not wait."""
    kept = {
        name: value
        for name, value in redis.connection_pool.connection_kwargs.items()
        if name in {"host", "port", "path", "db", "username", "password"} or name.startswith("ssl")
    }
    options = _options(reply_seconds) | {"socket_connect_timeout": reply_seconds}
    return Redis(connection_pool=_same_pool(redis, {**kept, **options}))


def why_down(error: Exception) -> str:
    """A word for a log line: the server's own where it answered with a refusal (OOM, READONLY, MISCONF ...)."""
    if isinstance(error, ResponseError):
        return str(error).partition(" ")[0][:40]
    return type(error).__name__


def _same_pool(redis: Redis, options: dict[str, Any]) -> Any:
    pool = redis.connection_pool
    return type(pool)(connection_class=pool.connection_class, **options)


def _options(reply_seconds: float) -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_timeout": reply_seconds,
        "socket_connect_timeout": min(_CONNECT_SECONDS, reply_seconds),
        "health_check_interval": _HEALTH_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "encoding_errors": "replace",
    }
