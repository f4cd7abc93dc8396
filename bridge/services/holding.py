"""What a listener does while it holds the lease of a PBX: one link, and the threads around it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import structlog
from redis import Redis

from bridge.domain.calls import CallEvent, CallEventType, Directory, Remembered
from bridge.domain.errors import Unavailable
from bridge.live import keys
from bridge.live.calls import CallStream
from bridge.live.connection import DOWN
from bridge.live.mailbox import Mailbox
from bridge.pbx.port import LinkSink, PbxFacts, PbxLink, QueueWish
from bridge.services import directory, remembering
from bridge.services.last_words import PartDied, told
from bridge.services.lease import LeaseKeeper
from bridge.services.mailroom import Mailroom
from bridge.services.orders import Orders
from bridge.services.publishing import Fenced, Outbox, Publisher
from bridge.services.queue_offers import Offers
from bridge.services.queue_states import Mirror
from bridge.services.reconcile import Reconciler
from bridge.settings import Pbx, Settings
from bridge.store.database import Sessions

log = structlog.get_logger(__name__)

OpenLink = Callable[[Pbx, LinkSink], PbxLink]

_DIRECTORY_SECONDS = 4.0
_METRICS_SECONDS = 5.0
# Together less than the five seconds in which a listener ends.
_FINISH_SECONDS = 1.0
_STOP_LINK_SECONDS = 1.5
_JOIN_SECONDS = 0.8
_DRAIN_SECONDS = 0.8


class _Sink:
    """Hears the link, in the link's thread; hands on and never waits."""

    def __init__(self, pbx: str, outbox: Outbox, keeper: LeaseKeeper) -> None:
        self._pbx = pbx
        self._outbox = outbox
        self._keeper = keeper
        self._reconciler: Reconciler | None = None
        self._offers: Offers | None = None
        self._said = ""
        self._version = ""
        self.connected = False
        self.was_connected = False
        self.closed = False
        self.counts: Counter[str] = Counter()

    def judge_with(self, reconciler: Reconciler, offers: Offers) -> None:
        self._reconciler, self._offers = reconciler, offers

    def events(self, batch: Sequence[CallEvent], live: Mapping[str, str | None]) -> None:
        if self.closed:
            return
        self.counts.update(event.type.value for event in batch)
        self._outbox.add(batch, live)

    def asked(self, wish: QueueWish) -> None:
        if self._offers is not None and not self.closed:
            self._offers.add(wish)

    def link_up(self, detail: str) -> None:
        self._state(True, detail)
        self._tell(CallEventType.PBX_CONNECTED, {})

    def link_down(self, reason: str) -> None:
        if self._reconciler is not None:
            self._reconciler.link_down()
        was_up = self.connected
        self._state(False, reason)
        if was_up:
            self._tell(CallEventType.PBX_LOST, {"reason": reason})

    def resynced(self, facts: PbxFacts) -> None:
        self._tell(CallEventType.PBX_RESYNCED, {"appeared": facts.appeared, "vanished": facts.vanished})
        self._version = facts.version
        self._keeper.say(True, self._with_version())
        if self._reconciler is not None:
            self._reconciler.resynced(facts)

    def link_detail(self, detail: str) -> None:
        if self.connected and not self.closed:
            self._note(detail)
            self._keeper.say(True, self._with_version())

    def _with_version(self) -> str:
        return f"{self._said}, {self._version}" if self._version else self._said

    def _state(self, connected: bool, detail: str) -> None:
        if self.closed:
            return
        self.connected = connected
        self.was_connected = self.was_connected or connected
        self._keeper.say(connected, detail)
        self._note(detail)

    def _note(self, detail: str) -> None:
        if detail != self._said:
            (log.info if self.connected else log.error)(
                "PBX connected" if self.connected else "PBX not connected", pbx=self._pbx, detail=detail
            )
            self._said = detail

    def _tell(self, kind: CallEventType, data: Mapping[str, object]) -> None:
        if not self.closed:
            self._outbox.add(
                [CallEvent(kind, self._pbx, datetime.now(UTC), data={"pbx": self._pbx, **data})], {}
            )


class End(Enum):
    """How a term of office ended."""

    STOPPED = "told to stop"
    LOST = "the lease is lost to another listener; standing by"
    GIVEN = "the lease is given to a listener that reaches what this one does not; standing by"


class Holding:
    """One term of office: from the claim of the lease until it is lost or the listener is told to stop."""

    def __init__(
        self,
        settings: Settings,
        pbx: Pbx,
        sessions: Sessions,
        redis: Redis,
        keeper: LeaseKeeper,
        open_link: OpenLink,
        outbox: Outbox,
        live: Mapping[str, str],
    ) -> None:
        """`live` is the state the former holder left; the epoch in Redis is ours already."""
        self._pbx = pbx
        self._sessions = sessions
        self._redis = redis
        self._keeper = keeper
        self._outbox = outbox
        self._stop = threading.Event()
        self._over = threading.Event()
        self._failure: PartDied | None = None
        self._threads: list[threading.Thread] = []
        self._directory = Directory()
        epoch = keeper.lease.epoch
        mailbox = Mailbox(redis, pbx.name, epoch)
        self._publisher = Publisher(CallStream(redis, pbx.name, epoch), outbox, keeper.verify, live)
        self._sink = _Sink(pbx.name, outbox, keeper)
        self._link = open_link(pbx, self._sink)
        self._link.restore(live)
        self._link.remember(self._open_calls(live))
        self._orders = Orders(
            settings,
            pbx.name,
            sessions,
            redis,
            mailbox,
            self._link,
            keeper,
            lambda: self._sink.connected,
        )
        self._mailroom = Mailroom(mailbox, self._orders, keeper, self._died)
        self._reconciler = Reconciler(
            pbx.name,
            sessions,
            redis,
            self._link,
            keeper,
            self._mailroom.attempts_in_work,
            lambda: self._publisher.idle,
            self._publish_end,
        )
        self._mirror = Mirror(settings, pbx.name, sessions, redis, self._link, keeper) if pbx.mirror_queues else None
        self._offers = Offers(settings, pbx.name, sessions, redis, keeper.is_valid, self._link.answer)
        self._sink.judge_with(self._reconciler, self._offers)

    def _open_calls(self, live: Mapping[str, str]) -> Sequence[Remembered]:
        """What only the call history knows: Redis was flushed, and who had these calls in memory is gone."""
        try:
            with self._sessions.read() as session:
                found = remembering.load(session, self._pbx.name, live)
        except Unavailable as error:
            log.warning("calls that Redis lost may begin anew: the database does not answer", why=error.message)
            return ()
        if found:
            log.warning("open calls are taken up from the call history, as Redis has lost them", calls=len(found))
        return found

    @property
    def was_connected(self) -> bool:
        """Whether the PBX was there at any time."""
        return self._sink.was_connected

    def run(self, stop: threading.Event) -> End:
        """Hold office until `stop`, or until the lease is lost or given up. Raises PartDied where a thread did."""
        self._refresh_directory()
        self._start("lease", self._keeper.run)
        self._start("publisher", self._publisher.run)
        self._link.start()
        for name, work in (
            *self._mailroom.threads(),
            ("reconcile", self._reconciler.run),
            ("offers", self._offers.run),
            ("directory", self._keep_directory),
            ("metrics", self._keep_metrics),
        ):
            self._start(name, work)
        if self._mirror is not None:
            self._start("mirror", self._mirror.run)
        keeper = self._keeper
        while not (stop.is_set() or self._over.is_set() or keeper.lost.is_set() or keeper.wanted.is_set()):
            self._over.wait(0.1)
            keeper.say_redis(self._publisher.redis_down)
            if not self._link.is_running():
                self._died("link", "the log says why")
                break
        lost = keeper.lost.is_set()
        self._end(lost=lost)
        if self._failure is not None:
            raise self._failure
        if lost:
            return End.LOST
        return End.GIVEN if keeper.wanted.is_set() else End.STOPPED

    def _start(self, name: str, work: Callable[[threading.Event], None]) -> None:
        def guarded() -> None:
            try:
                work(self._stop)
            except Fenced:
                self._keeper.lost.set()
            except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
                self._died(name, told(error))
            self._over.set()

        thread = threading.Thread(target=guarded, name=f"{self._pbx.name}-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _died(self, part: str, why: str) -> None:
        if self._failure is None:
            self._failure = PartDied(f"the listener of PBX {self._pbx.name} ends: its part {part!r} died ({why})")
        self._over.set()

    def _end(self, *, lost: bool) -> None:
        """Stop within some seconds, whatever hangs."""
        self._orders.stop()
        self._stop.set()
        for wake in (self._outbox.wake, self._keeper.wake, self._reconciler.wake):
            wake()
        end = time.monotonic() + _FINISH_SECONDS
        while self._mailroom.busy and not lost and time.monotonic() < end:
            time.sleep(0.01)
        stopping = threading.Thread(target=self._link.stop, daemon=True)
        stopping.start()
        stopping.join(_STOP_LINK_SECONDS)
        self._sink.closed = True
        self._orders.close()
        end = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if lost:
            return
        try:
            if not self._publishes() and self._publisher.drain(_DRAIN_SECONDS):
                self._keeper.release("stopped")
                return
        except Fenced:
            return
        log.error("the last call events were not published, because Redis does not answer")
        self._keeper.release("stopped")

    def _publishes(self) -> bool:
        """The publisher's thread hangs; nobody else may publish from its outbox."""
        return any(thread.is_alive() and thread.name.endswith("-publisher") for thread in self._threads)

    def _publish_end(self, event: CallEvent) -> None:
        """The end of a call that the tracker does not know."""
        if not self._sink.closed and event.call is not None:
            self._outbox.add([event], {event.call: None})

    # Directory and metrics

    def _keep_directory(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                with self._redis.pubsub(ignore_subscribe_messages=True) as changes:  # type: ignore[no-untyped-call]
                    changes.subscribe(keys.CHANGED)
                    while not stop.is_set():
                        self._refresh_directory()
                        self._wait_for_change(changes.get_message, stop)
            except DOWN:
                self._refresh_directory()
                stop.wait(1.0)

    def _wait_for_change(self, get: Callable[..., object], stop: threading.Event) -> None:
        end = time.monotonic() + _DIRECTORY_SECONDS
        while not stop.is_set() and time.monotonic() < end:
            if get(timeout=0.3):
                # Others that were changed with it.
                while get(timeout=0.0):
                    pass
                return

    def _refresh_directory(self) -> None:
        try:
            with self._sessions.read() as session:
                found = directory.load(session, self._pbx.name)
        except Unavailable:
            return
        if found != self._directory:
            self._directory = found
            self._link.set_directory(found)

    def _keep_metrics(self, stop: threading.Event) -> None:
        while not stop.wait(_METRICS_SECONDS):
            try:
                self._redis.hset(keys.listen_metrics(self._pbx.name), mapping=self._metrics())
            except DOWN:
                continue

    def _metrics(self) -> dict[Any, Any]:
        counts: dict[str, float] = {f"events_{kind}": count for kind, count in dict(self._sink.counts).items()}
        counts |= {f"command_{what}": count for what, count in dict(self._orders.counts).items()}
        counts |= dict(self._reconciler.counts)
        counts |= dict(self._mirror.counts) if self._mirror is not None else {}
        counts |= {f"link_{what}": count for what, count in self._link.counts().items()}
        return {
            **counts,
            "connected": int(self._sink.connected),
            "epoch": self._keeper.lease.epoch,
            "outbox": len(self._outbox),
            "published": self._publisher.published,
            "republished": self._publisher.republished,
            "dropped": self._outbox.dropped,
            "gaps": self._publisher.gaps,
        }
