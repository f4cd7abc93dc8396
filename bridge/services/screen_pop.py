"""The pop builder: call events in (`rb:calls`, group `pops`), what agents see out (`rb:screens`).

What a batch of events shows is written in one transaction together with its acknowledgement, so a
process that dies leaves either all of it or nothing, and nothing is popped twice. One process
builds at a time, since a call's events must be read in order; another waits for its lease.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import redis
import structlog

from bridge.domain.calls import CallEventType
from bridge.live import keys, screens
from bridge.live.connection import DOWN as REDIS_DOWN
from bridge.live.connection import connect
from bridge.services.pop_building import CallStory, PopBook, PopState, Shown, pop_id
from bridge.services.pop_facts import BUDGET_SECONDS, DOWN, PopFacts
from bridge.services.pop_rows import PopRows
from bridge.settings import Settings
from bridge.store.database import Sessions, open_database

log = structlog.get_logger(__name__)

GROUP = "pops"
LEASE_MS = 3000
READ_MS = 500
BATCH = 128
STORY_SECONDS = 24 * 3600
KEEP_ENDED = timedelta(hours=1)
"""How long a call that nobody has written down yet is shown to a page that is loaded again."""
STALE = timedelta(hours=1)
"""A phone that rang longer ago pops no more."""
RELOAD_SECONDS = 30.0

Entry = tuple[str, Mapping[str, str]]


class PopBuilder:
    """One pop builder on one Redis connection; `step` handles one batch."""

    def __init__(
        self,
        live: redis.Redis,
        sessions: Sessions,
        rows: PopRows,
        name: str,
        *,
        budget_seconds: float = BUDGET_SECONDS,
    ) -> None:
        self._live = live
        self._rows = rows
        self._name = name
        self._lock = threading.RLock()
        self._stories: dict[str, CallStory] = {}
        self._leading = False
        self.facts = PopFacts(sessions, self._fill_in, budget_seconds=budget_seconds)
        self._book = PopBook(self.facts)

    def step(self, block_ms: int = READ_MS) -> int:
        """Read and handle what is new; the number of entries. Raises redis.RedisError."""
        if not self._lead():
            return 0
        entries = self._read(block_ms)
        if entries:
            with self._lock:
                self._handle(entries)
        return len(entries)

    def resign(self) -> None:
        """Let the next process begin at once."""
        if self._leading and self._live.get(keys.POPS_LEASE) == self._name:
            self._live.delete(keys.POPS_LEASE)
        self._leading = False

    def sweep(self, now: datetime) -> None:
        """Forget calls that ended long ago and were never written down."""
        for key in self._live.scan_iter(match=keys.pops("*"), count=500):
            pops = cast(dict[str, str], self._live.hgetall(key))
            old = [field for field, text in pops.items() if _is_over(text, now)]
            if old:
                self._live.hdel(key, *old)

    def _lead(self) -> bool:
        if self._live.set(keys.POPS_LEASE, self._name, nx=True, px=LEASE_MS):
            self._leading = False
        elif self._live.get(keys.POPS_LEASE) == self._name:
            self._live.pexpire(keys.POPS_LEASE, LEASE_MS)
        else:
            self._leading = False
            threading.Event().wait(READ_MS / 1000)
            return False
        if not self._leading:
            self._take_over()
        return True

    def _take_over(self) -> None:
        """What another process read and did not finish is handled first, in order."""
        try:
            self._live.xgroup_create(keys.CALLS, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        with self._lock:
            self._stories.clear()
            self._book.pops.clear()
        cursor = "0-0"
        while True:
            answer = self._live.xautoclaim(
                keys.CALLS, GROUP, self._name, min_idle_time=0, start_id=cursor, count=BATCH
            )
            cursor, entries = answer[0], answer[1]
            if entries:
                with self._lock:
                    self._handle(entries)
            if cursor == "0-0":
                break
        self._leading = True

    def _read(self, block_ms: int) -> list[Entry]:
        try:
            answer = cast(
                list[tuple[str, list[Entry]]],
                self._live.xreadgroup(GROUP, self._name, {keys.CALLS: ">"}, count=BATCH, block=block_ms),
            )
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._leading = False  # Redis was emptied: begin again with a new group
            return []
        return answer[0][1] if answer else []

    def _handle(self, entries: Iterable[Entry]) -> None:
        self.facts.begin()
        entries = list(entries)
        shown: list[Shown] = []
        touched: dict[str, CallStory] = {}
        for _, fields in entries:
            if not fields or not fields.get("call"):
                continue
            try:
                shown += self._event(fields, touched)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                # One entry that cannot be read must not stop every pop after it.
                log.error("call event not understood", type=fields.get("type"), error=repr(error))
        if self._commit(shown, touched.values(), [id for id, _ in entries]):
            self._rows.add(shown)
            for story in touched.values():
                if story.ended:
                    self._forget(story)

    def _event(self, fields: Mapping[str, str], touched: dict[str, CallStory]) -> list[Shown]:
        call, type = fields["call"], fields["type"]
        at = datetime.fromisoformat(fields["at"])
        story = self._story(call)
        if type == CallEventType.OFFERED and datetime.now(UTC) - at > STALE:
            return []
        touched[call] = story
        shown = self._book.apply(story, type, at, json.loads(fields.get("data") or "{}"))
        if type == CallEventType.STARTED:
            self.facts.prefetch(story)
        return shown

    def _story(self, call: str) -> CallStory:
        story = self._stories.get(call)
        if story is None:
            text = cast("str | None", self._live.get(keys.story(call)))
            story = CallStory(**json.loads(text)) if text else CallStory(call=call)
            for agent in story.agents:
                stored = cast("str | None", self._live.hget(keys.pops(agent), pop_id(call, agent)))
                if stored:
                    self._book.pops[pop_id(call, agent)] = json.loads(stored)
            self._stories[call] = story
        return story

    def _commit(self, shown: Iterable[Shown], stories: Iterable[CallStory], acks: list[str]) -> bool:
        """Write a batch as a whole, unless another process leads by now."""
        with self._live.pipeline(transaction=True) as pipe:
            try:
                pipe.watch(keys.POPS_LEASE)  # type: ignore[no-untyped-call]
                if pipe.get(keys.POPS_LEASE) != self._name:
                    self._leading = False
                    return False
                pipe.multi()
                for one in shown:
                    _write(pipe, one)
                for story in stories:
                    text = json.dumps(story.as_dict(), separators=(",", ":"))
                    pipe.set(keys.story(story.call), text, ex=STORY_SECONDS)
                if acks:
                    pipe.xack(keys.CALLS, GROUP, *acks)
                pipe.execute()
            except redis.WatchError:
                self._leading = False
                return False
            except redis.RedisError:
                # Whether it was written is unknown: read the truth again from Redis.
                self._leading = False
                raise
        return True

    def _forget(self, story: CallStory) -> None:
        self._book.forget(story)
        self.facts.forget(story.call)
        self._stories.pop(story.call, None)

    def _fill_in(self, call: str) -> None:
        """The customer came late: tell the pages that show the call already."""
        with self._lock:
            story = self._stories.get(call)
            if story is None:
                return
            now = datetime.now(UTC)
            shown = [self._book.fill_in(story, agent, now) for agent in story.agents]
            try:
                self._commit([one for one in shown if one is not None], [], [])
            except redis.RedisError as error:
                log.warning("late customer not shown", call=call, error=type(error).__name__)


def _write(pipe: redis.client.Pipeline, one: Shown) -> None:
    screens.publish(pipe, screens.agent_topic(one.agent), one.event, dict(one.data), one.pop)
    key = keys.pops(one.agent)
    if one.stored is None:
        pipe.hdel(key, one.pop)
    else:
        pipe.hset(key, one.pop, json.dumps(one.stored, separators=(",", ":")))
        pipe.expire(key, STORY_SECONDS)


def _is_over(text: str, now: datetime) -> bool:
    """Whether a stored pop has been there long enough; one that cannot be read has."""
    try:
        pop = json.loads(text)
        began = datetime.fromisoformat(pop["connected_at"] or pop["at"])
        talk = timedelta(milliseconds=(pop.get("ended") or {}).get("talk_ms") or 0)
        keep = KEEP_ENDED if pop["state"] == PopState.ENDED else timedelta(seconds=STORY_SECONDS)
    except (AttributeError, KeyError, TypeError, ValueError):
        return True
    return now - began - talk > keep


def run(settings: Settings, stop: threading.Event | None = None) -> None:
    """Build pops until told to stop (SIGTERM, SIGINT, or `stop`)."""
    stop = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    sessions = open_database(settings)
    rows = PopRows(sessions)
    live = connect(settings)
    builder = PopBuilder(live, sessions, rows, f"{socket.gethostname()}:{os.getpid()}")
    keeper = threading.Thread(
        target=_keep_fresh, args=(settings, builder, stop), name="freshness", daemon=True
    )
    _load(builder)
    rows.start()
    keeper.start()
    log.info("pop builder ready")
    pause = 0.1
    while not stop.is_set():
        try:
            builder.step()
            pause = 0.1
        except REDIS_DOWN as error:
            log.warning("Redis does not answer; pops wait", error=str(error), retry_seconds=pause)
            stop.wait(pause)
            pause = min(pause * 2, 2.0)
    try:
        builder.resign()
    except REDIS_DOWN:
        log.info("lease left to expire")
    rows.stop()
    builder.facts.close()


def _load(builder: PopBuilder) -> None:
    try:
        builder.facts.load()
    except DOWN as error:
        log.warning("clients and scripts not loaded; pops go on with what is known", error=str(error))


def _keep_fresh(settings: Settings, builder: PopBuilder, stop: threading.Event) -> None:
    """Load clients and scripts again when they change, and every 30 seconds."""
    live = connect(settings)
    while not stop.is_set():
        try:
            with live.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
                heard.subscribe(keys.CHANGED)
                while not stop.is_set():
                    _load(builder)
                    builder.sweep(datetime.now(UTC))
                    _wait_for_change(heard, stop)
        except REDIS_DOWN:
            _load(builder)
            stop.wait(1.0)


def _wait_for_change(heard: redis.client.PubSub, stop: threading.Event) -> None:
    waited = 0.0
    while waited < RELOAD_SECONDS and not stop.is_set():
        if heard.get_message(timeout=0.5) is not None:
            stop.wait(0.05)  # changes come in groups: load once for all of them
            while heard.get_message(timeout=0) is not None:
                pass
            return
        waited += 0.5
