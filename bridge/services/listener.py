"""`ringbridge listen`: wait for the lease of a PBX, hold office, and wait again when it is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog
from redis import Redis

from bridge.domain.errors import Unavailable
from bridge.live.calls import CallStream
from bridge.live.connection import DOWN, connect, why_down
from bridge.pbx.open import open_link
from bridge.pbx.port import LinkSink, PbxLink
from bridge.services import lease
from bridge.services.holding import End, Holding, OpenLink
from bridge.services.lease import LeaseKeeper
from bridge.services.publishing import Outbox
from bridge.services.standby import Standby
from bridge.settings import Pbx, Settings
from bridge.store.database import Sessions, open_database

log = structlog.get_logger(__name__)

_STANDBY_SECONDS = 0.2
_FROZEN_SECONDS = 2.0
"""A listener that is stopped in the middle of a transaction keeps the lease's row locked no longer than this; less than
the lease itself is good for, so that a standby never waits."""


def run(settings: Settings, pbx_name: str, opener: OpenLink | None = None) -> None:
    """Listen to one PBX until SIGTERM or SIGINT. `opener` makes another link than the settings' kind, for tests.

    Raises SettingsError for a PBX that is not there or whose settings cannot work. Everything that may come back
    (PBX, Redis, database) is waited for.
    """
    pbx = settings.find_pbx(pbx_name)
    if opener is None:
        _check(settings, pbx)
    stop = threading.Event()

    def told(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, told)
        signal.signal(signal.SIGINT, told)
    sessions = open_database(settings, idle_seconds=_FROZEN_SECONDS)
    try:
        Listener(settings, pbx, sessions, connect(settings), opener or _opener(settings)).run(stop)
    finally:
        sessions.close()


def _check(settings: Settings, pbx: Pbx) -> None:
    """What no waiting mends is said before the lease is taken. Raises SettingsError."""
    pbx.read_secret()
    if settings.dialing.mode == "dial":
        pbx.read_command_secret()


def _opener(settings: Settings) -> Callable[[Pbx, LinkSink], PbxLink]:
    def opened(pbx: Pbx, sink: LinkSink) -> PbxLink:
        return open_link(pbx, sink, observe=settings.dialing.mode == "observe")

    return opened


class Listener:
    """Claims, holds, loses and claims again."""

    def __init__(
        self, settings: Settings, pbx: Pbx, sessions: Sessions, redis: Redis, opener: OpenLink
    ) -> None:
        self._settings = settings
        self._pbx = pbx
        self._sessions = sessions
        self._redis = redis
        self._opener = opener
        self._holder = lease.holder_name()
        self._standby = Standby(sessions, redis, pbx)
        self._said = ""

    def run(self, stop: threading.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            keeper = self._claim()
            if keeper is None:
                stop.wait(_STANDBY_SECONDS)
                continue
            self._say("", "holding the lease", epoch=keeper.lease.epoch)
            end = self._hold(keeper, stop)
            if not stop.is_set():
                self._say("", end.value)
        log.info("stopped", pbx=self._pbx.name)

    def _claim(self) -> LeaseKeeper | None:
        if self._standby.gives_way():
            return None
        try:
            keeper = lease.claim(self._sessions, self._pbx.name, self._holder)
            if keeper is None:
                self._say("standby", "another listener holds the lease; standing by")
                self._standby.look()
        except Unavailable as error:
            self._say(error.message, "the lease cannot be claimed", why=error.message)
            return None
        return keeper

    def _hold(self, keeper: LeaseKeeper, stop: threading.Event) -> End:
        """One term."""
        begun = self._begin(keeper, stop)
        if begun is None:
            if stop.is_set():
                return End.STOPPED
            if not keeper.wanted.is_set():
                return End.LOST
            self._standby.gave(well=False)
            return End.GIVEN
        keeper, live = begun
        holding = Holding(
            self._settings, self._pbx, self._sessions, self._redis, keeper, self._opener, Outbox(), live
        )
        end = holding.run(stop)
        if end is End.GIVEN:
            self._standby.gave(well=holding.was_connected)
        return end

    def _begin(self, keeper: LeaseKeeper, stop: threading.Event) -> tuple[LeaseKeeper, dict[str, str]] | None:
        """Put our epoch into Redis and read what the former holder left; keeps the lease while Redis is awaited."""
        waiting = threading.Event()
        renewing = threading.Thread(target=keeper.run, args=(waiting,), daemon=True)
        renewing.start()
        try:
            while not (stop.is_set() or keeper.lost.is_set() or keeper.wanted.is_set()):
                try:
                    stream = CallStream(self._redis, self._pbx.name, keeper.lease.epoch)
                    higher = stream.raise_epoch(begin=True)
                    if higher is None:
                        return keeper, stream.live()
                    # Redis knows a later epoch: either the lease is lost, or the database was restored.
                    grown = lease.outgrow(self._sessions, keeper, higher)
                    if grown is None:
                        return None
                    keeper.lost.set()
                    keeper.wake()
                    return self._begin(grown, stop)
                except DOWN as error:
                    keeper.say(False, "waiting for Redis")
                    self._say("redis", "Redis does not answer; waiting for it", error=why_down(error))
                except Unavailable as error:
                    self._say(error.message, "waiting for the database", why=error.message)
                stop.wait(0.3)
            if not keeper.lost.is_set():
                keeper.release("stopped")
            return None
        finally:
            waiting.set()
            keeper.wake()
            renewing.join(1.0)

    def _say(self, state: str, sentence: str, **facts: object) -> None:
        """Once per change of state."""
        if state and state == self._said:
            return
        self._said = state
        log.info(sentence, pbx=self._pbx.name, **facts)
