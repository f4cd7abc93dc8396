"""From a link's thread to `rb:calls`: a bounded outbox, and the one thread that publishes from it.

A Redis that is away costs nothing until the outbox is full. One that comes back having lost its last second says
so (the batches are numbered), and gets it again from the window of what was published lately. One that was flushed
gets what the recorder had not acknowledged.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from bridge.domain.calls import CallEvent, CallEventType
from bridge.live.calls import Answer, CallStream, EncodedEvent, Published, encode, id_key
from bridge.live.connection import DOWN, why_down

log = structlog.get_logger(__name__)

OUTBOX_EVENTS = 200_000
_CHUNK_EVENTS = 500
_WINDOW_EVENTS = 20_000
_WINDOW_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_ACKNOWLEDGED_SECONDS = 0.25
_GATHER_SECONDS = 0.005
"""What follows so soon upon a batch waits for the next one: a round trip to Redis costs as much as many events."""
_KEPT_WHEN_FULL = frozenset(
    {
        CallEventType.STARTED,
        CallEventType.ENDED,
        CallEventType.MERGED,
        CallEventType.PBX_CONNECTED,
        CallEventType.PBX_LOST,
        CallEventType.PBX_RESYNCED,
    }
)
"""What is kept longest: without a call's start and end, nobody downstream can make sense of it."""


class Fenced(Exception):
    """A later holder has the lease; whatever is left here is not ours to publish."""


@dataclass(slots=True)
class Chunk:
    """Events that are published in one step with the states they led to."""

    events: list[CallEvent] = field(default_factory=list)
    live: dict[str, str | None] = field(default_factory=dict)
    encoded: list[EncodedEvent] | None = None
    batch: int = 0
    id: str = ""
    at: float = 0.0


class Outbox:
    """Events on their way, in order, bounded; `add` never waits."""

    def __init__(self, bound: int = OUTBOX_EVENTS) -> None:
        self._bound = bound
        self._chunks: deque[Chunk] = deque()
        self._count = 0
        self._filled = threading.Condition()
        self.dropped = 0
        """Events that were lost because the outbox was full: a gap."""

    def add(self, events: Sequence[CallEvent], live: Mapping[str, str | None]) -> None:
        """Called from the link's thread."""
        with self._filled:
            waits = not self._chunks
            last = self._chunks[-1] if self._chunks else None
            if last is None or len(last.events) + len(events) > _CHUNK_EVENTS:
                last = Chunk()
                self._chunks.append(last)
            last.events.extend(events)
            last.live.update(live)
            self._count += len(events)
            if self._count > self._bound:
                self._thin()
            if waits:
                self._filled.notify()

    def take(self, seconds: float) -> Chunk | None:
        """The next chunk, or None after waiting that long."""
        with self._filled:
            if not self._chunks:
                self._filled.wait(seconds)
            if not self._chunks:
                return None
            chunk = self._chunks.popleft()
            self._count -= len(chunk.events)
            return chunk

    def wake(self) -> None:
        """End a wait in `take`."""
        with self._filled:
            self._filled.notify_all()

    def __len__(self) -> int:
        return self._count

    def _thin(self) -> None:
        before = self._count
        for chunk in self._chunks:
            chunk.events = [event for event in chunk.events if event.type in _KEPT_WHEN_FULL]
        self._count = sum(len(chunk.events) for chunk in self._chunks)
        if self._count > self._bound * 3 // 4:
            # Even starts and ends are too many: the oldest half goes. Their states stay: the live picture is right.
            for chunk in list(self._chunks)[: len(self._chunks) // 2]:
                chunk.events = []
            self._count = sum(len(chunk.events) for chunk in self._chunks)
        self._merge_emptied()
        self.dropped += before - self._count
        log.error(
            "call events were dropped, because Redis has been away for too long; bring Redis back",
            dropped=before - self._count,
        )

    def _merge_emptied(self) -> None:
        merged: deque[Chunk] = deque()
        for chunk in self._chunks:
            if merged and len(merged[-1].events) + len(chunk.events) <= _CHUNK_EVENTS:
                merged[-1].events.extend(chunk.events)
                merged[-1].live.update(chunk.live)
            else:
                merged.append(chunk)
        self._chunks = merged


class Publisher:
    """Publishes an outbox as the holder of a lease. One thread only."""

    def __init__(
        self, stream: CallStream, outbox: Outbox, verify: Callable[[], bool], live: Mapping[str, str]
    ) -> None:
        """`verify` says whether SQL still has the lease as ours; `live` is the live hash as it was found."""
        self._stream = stream
        self._outbox = outbox
        self._verify = verify
        self._todo: deque[Chunk] = deque()
        self._window: deque[Chunk] = deque()
        self._base: dict[str, str] = dict(live)
        """The states as they were before the window's first chunk."""
        self._batch = 0
        self._kept = 0
        """Events in the window."""
        self._looked = 0.0
        self._asked = 0.0
        self._acknowledged: str | None = None
        self._down_since: float | None = None
        self.published = 0
        self.republished = 0
        self.gaps = 0

    @property
    def idle(self) -> bool:
        """Nothing waits to be published."""
        return not self._todo and not len(self._outbox)

    @property
    def redis_down(self) -> bool:
        return self._down_since is not None

    def run(self, stop: threading.Event) -> None:
        """Publish until `stop`. Raises Fenced."""
        wait = 0.05
        while not stop.is_set():
            try:
                self.step(0.2)
                wait = 0.05
            except DOWN as error:
                self._say_down(error)
                stop.wait(wait)
                wait = min(wait * 2, 0.5)

    def drain(self, seconds: float) -> bool:
        """Publish what is left, within that time; False where something had to stay behind."""
        end = time.monotonic() + seconds
        while not self.idle and time.monotonic() < end:
            try:
                self.step(0.0)
            except DOWN:
                time.sleep(0.05)
        return self.idle

    def step(self, seconds: float) -> None:
        """Publish one chunk, or wait that long for one. Raises Fenced, and redis' errors."""
        if not self._todo:
            self._gather()
            chunk = self._outbox.take(seconds)
            if chunk is not None:
                self._batch += 1
                chunk.batch = self._batch
                chunk.encoded = [encode(event) for event in chunk.events]
                chunk.events = []
                self._todo.append(chunk)
        if self._todo:
            self._send(self._todo[0])
        elif time.monotonic() - self._looked > _LOOK_SECONDS:
            self._handle(self._stream.look(self._batch))
            self._looked = time.monotonic()
        self._say_up()
        self._ask_acknowledged()

    def _send(self, chunk: Chunk) -> None:
        answer = self._stream.publish(chunk.batch, chunk.encoded or [], chunk.live)
        if answer.published not in (Published.OK, Published.AGAIN):
            self._handle(answer)
            return
        self._todo.popleft()
        if chunk.at:
            self.republished += len(chunk.encoded or [])
        else:
            self.published += len(chunk.encoded or [])
        chunk.id, chunk.at = answer.id, time.monotonic()
        self._window.append(chunk)
        self._kept += len(chunk.encoded or [])
        self._looked = chunk.at
        self._prune()

    def _gather(self) -> None:
        left = (self._window[-1].at if self._window else 0.0) + _GATHER_SECONDS - time.monotonic()
        if left > 0 and len(self._outbox) < _CHUNK_EVENTS:
            time.sleep(left)

    def _handle(self, answer: Answer) -> None:
        if answer.published is Published.FENCED:
            raise Fenced
        if answer.published is Published.MISSING:
            if not self._verify() or self._stream.raise_epoch() is not None:
                raise Fenced
            log.warning("Redis had lost the lease's epoch; it is restored")
        elif answer.published is Published.FLUSHED:
            self._restore_flushed()
        elif answer.published is Published.BEHIND:
            self._rewind(answer.last)

    def _restore_flushed(self) -> None:
        """Everything is gone: put the states back, and again what the recorder had not acknowledged."""
        keep = 0
        if self._acknowledged is not None:
            done = id_key(self._acknowledged)
            keep = sum(1 for chunk in self._window if id_key(chunk.id) > done)
        again = list(self._window)[len(self._window) - keep :]
        base = self._state(len(self._window) - keep)
        self._put_back(again[0].batch if again else self._batch + 1 - len(self._todo), base)
        self._base, self._window, self._kept = base, deque(), 0
        self._todo.extendleft(reversed(again))
        log.warning("Redis was flushed; the live calls are restored", republished=len(again))

    def _rewind(self, last: int) -> None:
        """The server has batches up to `last` only: go on with the next, where it is still known."""
        first = self._window[0].batch if self._window else 0
        if not first or first > last + 1:
            self.gaps += 1
            self._put_back(first or self._batch + 1 - len(self._todo), self._base)
            last = max(first - 1, 0)
            log.error("Redis lost more call events than are still known here; there is a gap in rb:calls")
        again = [chunk for chunk in self._window if chunk.batch > last]
        for _ in again:
            self._kept -= len(self._window.pop().encoded or [])
        self._todo.extendleft(reversed(again))
        if again:
            log.warning("Redis had lost its last call events; they are published again", batches=len(again))

    def _put_back(self, next_batch: int, states: Mapping[str, str]) -> None:
        if not self._stream.restore(next_batch - 1, states):
            log.warning("Redis lost the lease's epoch again while it was being restored")

    def _state(self, chunks: int) -> dict[str, str]:
        """The states after so many chunks of the window."""
        states = dict(self._base)
        for chunk in list(self._window)[:chunks]:
            _apply(states, chunk.live)
        return states

    def _prune(self) -> None:
        oldest = time.monotonic() - _WINDOW_SECONDS
        while self._window and (self._kept > _WINDOW_EVENTS or self._window[0].at < oldest):
            gone = self._window.popleft()
            self._kept -= len(gone.encoded or [])
            _apply(self._base, gone.live)

    def _ask_acknowledged(self) -> None:
        if self._window and time.monotonic() - self._asked > _ACKNOWLEDGED_SECONDS:
            self._asked = time.monotonic()
            found = self._stream.acknowledged()
            # It only grows: a group that is gone, or new, is one that was flushed, and what it had read it has read.
            if found is not None and (
                self._acknowledged is None or id_key(found) > id_key(self._acknowledged)
            ):
                self._acknowledged = found

    def _say_down(self, error: Exception) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()
            log.error("Redis does not answer; call events are kept here until it does", error=why_down(error))

    def _say_up(self) -> None:
        if self._down_since is not None:
            log.info("Redis answers again", after_seconds=round(time.monotonic() - self._down_since, 1))
            self._down_since = None


def _apply(states: dict[str, str], live: Mapping[str, str | None]) -> None:
    for call, state in live.items():
        if state is None:
            states.pop(call, None)
        else:
            states[call] = state
