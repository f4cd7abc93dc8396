"""The one clock that deadlines of commands are read from: Redis TIME."""

from __future__ import annotations

from redis import Redis


def now_ms(redis: Redis) -> int:
    """Milliseconds since 1970 as the server counts them. Raises redis' errors where it does not answer."""
    seconds, micros = redis.time()
    return int(seconds) * 1000 + int(micros) // 1000
