"""The recorder: reads `rb:calls` in batches and writes SQL. An entry is acknowledged once its work is committed."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from prometheus_client import Counter
from redis import Redis
from sqlalchemy.exc import SQLAlchemyError

from bridge.domain.attempts import CallbackStatus
from bridge.domain.errors import RingbridgeError, Unavailable
from bridge.live import calls, jobs
from bridge.live.calls import CallReader, Entry
from bridge.live.connection import DOWN, connect
from bridge.services import callbacks, missed, news
from bridge.services.recording import Recording, record
from bridge.services.stopping import stop_event
from bridge.settings import Settings
from bridge.store.database import Sessions, open_database

log = structlog.get_logger(__name__)
_BATCH = 50
_BLOCK_MS = 1000
_TRIM_SECONDS = 30.0
_WAIT_SECONDS = 0.5

POISON = Counter("ringbridge_recorder_poison_total", "Call events that could not be written and were skipped")
RECORDED = Counter("ringbridge_recorder_events_total", "Call events written to the database")


class Recorder:
    """One consumer of the group `recorder`. Several do no harm, though one is enough."""

    def __init__(self, settings: Settings, sessions: Sessions, redis: Redis) -> None:
        self._settings = settings
        self._sessions = sessions
        self._redis = redis
        self._reader = CallReader(redis, calls.RECORDER, f"{socket.gethostname()}-{os.getpid()}")
        self._home = settings.dialing.regions[0] if settings.dialing.regions else "US"
        self._next_trim = 0.0

    def step(self, block_ms: int = _BLOCK_MS) -> int:
        """Read one batch and write it; says how many entries it had.

        Raises Unavailable or redis' errors where a part is down: call `again`, wait, and go on.
        """
        entries = self._reader.read(_BATCH, block_ms)
        if entries:
            self._write(entries)
            self._reader.ack(entry.id for entry in entries)
        if time.monotonic() >= self._next_trim:
            self._next_trim = time.monotonic() + _TRIM_SECONDS
            calls.trim(self._redis)
        return len(entries)

    def again(self) -> None:
        """Begin with what was read and not acknowledged."""
        self._reader.read_again()

    def _write(self, entries: Sequence[Entry]) -> None:
        try:
            self._commit(entries)
        except Unavailable:
            raise
        except (RingbridgeError, SQLAlchemyError, TypeError, ValueError, KeyError, AttributeError) as error:
            if len(entries) == 1:
                # One entry that can never be written must not stop all those behind it.
                POISON.inc()
                entry = entries[0]
                log.error("call event skipped", entry=entry.id, type=entry.type, error=type(error).__name__)
                return
            for entry in entries:
                self._write([entry])

    def _commit(self, entries: Sequence[Entry]) -> None:
        with self._sessions.begin() as session:
            work = Recording(session, self._home)
            new = record(work, entries)
            made = missed.call_back(session, self._settings, work.over, datetime.now(UTC))
        RECORDED.inc(new)
        news.publish(self._redis, session)
        for call, pbx in work.hang_up.items():
            callbacks.send_hangup(self._redis, pbx, call)
        for row in made:
            if row.status == CallbackStatus.QUEUED:
                jobs.enqueue(self._redis, jobs.DIAL, callbacks.DIAL_JOB, row.id)


def run(settings: Settings, stop: threading.Event | None = None) -> None:
    """Go on until SIGTERM or SIGINT, or until `stop` is set. Redis or database down: it waits and goes on."""
    stop = stop or stop_event()
    redis = connect(settings)
    sessions = open_database(settings)
    recorder = Recorder(settings, sessions, redis)
    trouble = ""
    while not stop.is_set():
        try:
            recorder.step()
        except Unavailable as error:
            reason = error.message
        except DOWN as error:
            reason = f"Redis does not answer ({type(error).__name__})"
        else:
            if trouble:
                log.info("recording again")
                trouble = ""
            continue
        if reason != trouble:
            trouble = reason
            log.warning("recording waits", reason=reason)
        recorder.again()
        stop.wait(_WAIT_SECONDS)
    sessions.close()
