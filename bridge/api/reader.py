"""One native thread that reads `rb:screens` and hands what it finds to the edge's hub."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import gevent
import structlog
from redis import Redis

from bridge.api.fanout import entry_id
from bridge.live import screens
from bridge.live.connection import DOWN, connect
from bridge.live.screens import ScreenEvent
from bridge.settings import Settings

log = structlog.get_logger(__name__)

_BLOCK_MS = 1000
_COUNT = 1000
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries while Redis is down; streams stay open meanwhile."""

Hear = Callable[[list[ScreenEvent], bool], None]
"""Called in the hub with entries in order, and whether they are news or only history; must not block."""


class Reader:
    """Reads from the start of what is kept, then goes on, over any outage of Redis."""

    def __init__(self, settings: Settings, hear: Hear) -> None:
        self._settings = settings
        self._hear = hear
        self._found: deque[tuple[list[ScreenEvent], bool]] = deque()
        self._wake = gevent.get_hub().loop.async_()
        self._wake.start(self._pass_on)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screens", daemon=True)
        self._cursor = "0-0"
        self.up = False
        """Whether Redis answered last time."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does within a second or two, and is a daemon."""
        self._stop.set()

    def _pass_on(self) -> None:
        while self._found:
            events, fresh = self._found.popleft()
            self._hear(events, fresh)

    def _run(self) -> None:
        redis = connect(self._settings)
        loaded, failures = False, 0
        while not self._stop.is_set():
            try:
                if not self.up:
                    self._resume(redis)
                if not loaded:
                    loaded = self._load(redis)
                else:
                    self._give(screens.read(redis, self._cursor, _BLOCK_MS, _COUNT), fresh=True)
                self.up, failures = True, 0
            except DOWN as error:
                if self.up or failures == 0:
                    log.warning("no news for the screens: Redis does not answer", error=type(error).__name__)
                self.up = False
                self._stop.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
        redis.close()

    def _load(self, redis: Redis) -> bool:
        """Read what is kept, piece by piece; True when the end is reached."""
        events = screens.read(redis, self._cursor, block_ms=1, count=_COUNT)
        self._give(events, fresh=False)
        return len(events) < _COUNT

    def _resume(self, redis: Redis) -> None:
        """After a flush under a clock that went back, new entries may have smaller ids than ours."""
        newest = screens.last_id(redis)
        if newest != "0-0" and entry_id(newest) < entry_id(self._cursor):
            self._cursor = "0-0"

    def _give(self, events: list[ScreenEvent], *, fresh: bool) -> None:
        if not events:
            return
        self._cursor = events[-1].entry
        self._found.append((events, fresh))
        self._wake.send()
