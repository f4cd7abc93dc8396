"""The clock: once a second it enqueues the sweep. It decides nothing, so losing it loses time only."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import structlog
from redis import Redis

from bridge.domain.errors import Unavailable
from bridge.live import jobs
from bridge.live.connection import DOWN, connect
from bridge.services import sweeping
from bridge.services.stopping import stop_event
from bridge.settings import Settings
from bridge.store.database import Sessions, open_database

log = structlog.get_logger(__name__)
_SWEEP_SECONDS = 1.0
_TIDY_SECONDS = 600.0
_ENOUGH_WAITING = 3
"""Jobs that wait in the queue; more sweeps behind them would find nothing new."""
# No fixed job id: RQ would refuse the next sweep for as long as it remembers a failed one.
_QUEUE_KEY = f"rq:queue:{jobs.DEFAULT}"


def run(settings: Settings, stop: threading.Event | None = None) -> None:
    """Go on until SIGTERM or SIGINT, or until `stop` is set. Redis or database down: it keeps trying."""
    stop = stop or stop_event()
    redis = connect(settings)
    sessions = open_database(settings)
    rescheduled = False
    redis_up = True
    next_tidy = time.monotonic()
    while not stop.wait(_SWEEP_SECONDS):
        rescheduled = rescheduled or _reschedule(sessions)
        sent = _enqueue(redis, "workers.sweep.sweep")
        if sent != redis_up:
            redis_up = sent
            log.info("sweeping again") if sent else log.warning("no sweep: Redis does not answer")
        if sent and time.monotonic() >= next_tidy:
            _enqueue(redis, "workers.sweep.tidy")
            next_tidy = time.monotonic() + _TIDY_SECONDS
    sessions.close()


def _enqueue(redis: Redis, function: str) -> bool:
    try:
        if int(redis.llen(_QUEUE_KEY)) >= _ENOUGH_WAITING:
            return True
    except DOWN:
        return False
    return jobs.enqueue(redis, jobs.DEFAULT, function)


def _reschedule(sessions: Sessions) -> bool:
    """New rules of time zones come with a new start, so once is enough."""
    try:
        moved = sweeping.reschedule(sessions, now=datetime.now(UTC))
    except Unavailable as error:
        log.warning("callbacks of a chosen time not checked yet", error=error.message)
        return False
    if moved:
        log.info("time zones changed", callbacks_moved=moved)
    return True
