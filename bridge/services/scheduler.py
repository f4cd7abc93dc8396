"""The clock: once a second it enqueues the sweep. It decides nothing, so losing it loses time only."""

from __future__ import annotations

import threading
import time

import structlog
from redis import Redis

from bridge.live import jobs
from bridge.live.connection import DOWN, connect
from bridge.services.stopping import stop_event
from bridge.settings import Settings

log = structlog.get_logger(__name__)
_SWEEP_SECONDS = 1.0
_TIDY_SECONDS = 600.0
_ENOUGH_WAITING = 3
"""Jobs that wait in the queue; more sweeps behind them would find nothing new."""
# No fixed job id: RQ would refuse the next sweep for as long as it remembers a failed one.
_QUEUE_KEY = f"rq:queue:{jobs.DEFAULT}"


def run(settings: Settings, stop: threading.Event | None = None) -> None:
    """Go on until SIGTERM or SIGINT, or until `stop` is set. Redis down: it keeps trying."""
    stop = stop or stop_event()
    redis = connect(settings)
    redis_up = True
    next_tidy = time.monotonic()
    while not stop.wait(_SWEEP_SECONDS):
        sent = _enqueue(redis, "workers.sweep.sweep")
        if sent != redis_up:
            redis_up = sent
            log.info("sweeping again") if sent else log.warning("no sweep: Redis does not answer")
        if sent and time.monotonic() >= next_tidy:
            _enqueue(redis, "workers.sweep.tidy")
            next_tidy = time.monotonic() + _TIDY_SECONDS


def _enqueue(redis: Redis, function: str) -> bool:
    try:
        if int(redis.llen(_QUEUE_KEY)) >= _ENOUGH_WAITING:
            return True
    except DOWN:
        return False
    return jobs.enqueue(redis, jobs.DEFAULT, function)
