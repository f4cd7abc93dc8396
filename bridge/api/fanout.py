"""Who hears what: recent entries of `rb:screens` by topic, and the open streams that wait for more.

Everything here runs in one thread, the edge's hub, and nothing blocks, so no lock is needed.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from time import monotonic

from gevent.event import Event

from bridge.live.screens import ScreenEvent

KEPT_ENTRIES = 10_000
KEPT_BYTES = 32 * 1024 * 1024
QUEUE_ENTRIES = 512
QUEUE_BYTES = 1024 * 1024
"""A stream that is so far behind is closed; its browser comes back with Last-Event-ID."""

EntryId = tuple[int, int]
START: EntryId = (0, 0)


def entry_id(text: str) -> EntryId:
    """A Redis stream id as numbers; the start for what is no id."""
    millis, _, count = text.partition("-")
    if not millis.isdigit() or (count and not count.isdigit()) or len(text) > 40:
        return START
    return int(millis), int(count or 0)


def frame(event: str, data: str, entry: str = "") -> bytes:
    """One server-sent event."""
    lines = [f"id: {entry}"] if entry else []
    lines.append(f"event: {event}")
    lines += [f"data: {line}" for line in data.splitlines() or [""]]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def chunk(data: bytes) -> bytes:
    """A piece of a body in HTTP/1.1's chunked coding, made once for all streams that get it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it goes out."""

    id: EntryId
    topic: str
    frame: bytes
    """Chunked."""
    client: str | None
    """Whose board event it is, where it says so."""


class Stream:
    """One open connection."""

    __slots__ = ("_bytes", "_frames", "address", "check", "clients", "closed", "fd", "topics", "wake")

    def __init__(
        self, topics: Collection[str], check: str | None, clients: Collection[str] | None, address: str
    ) -> None:
        self.topics = frozenset(topics)
        self.check = check
        self.clients = None if clients is None else frozenset(clients)
        self.address = address
        self.closed = False
        self.fd = -1
        """While nothing waits and nothing is being written: the socket, which then takes a frame at once."""
        self.wake = Event()
        self._frames: deque[bytes] = deque()
        self._bytes = 0

    def wants(self, entry: Entry) -> bool:
        """Whether this connection may see the entry."""
        return self.clients is None or (entry.client is not None and entry.client in self.clients)

    def put(self, data: bytes) -> bool:
        """Send or queue a frame; False where the connection is too slow or gone, which closes it.

        Writing at once, without waking the connection's greenlet, is what makes two thousand streams cheap.
        """
        if self.fd >= 0 and not self._frames:
            try:
                sent = os.write(self.fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return False
            if sent == len(data):
                return True
            data = data[sent:]
        if len(self._frames) >= QUEUE_ENTRIES or self._bytes + len(data) > QUEUE_BYTES:
            self.close()
            return False
        self._frames.append(data)
        self._bytes += len(data)
        self.wake.set()
        return True

    def take(self) -> bytes:
        """Everything that waits, as one piece."""
        data = b"".join(self._frames)
        self._frames.clear()
        self._bytes = 0
        self.wake.clear()
        return data

    def close(self) -> None:
        """End the connection once its greenlet looks."""
        self.closed = True
        self._frames.clear()
        self._bytes = 0
        self.wake.set()


@dataclass(slots=True)
class Counts:
    """For /metrics."""

    opened: int = 0
    dropped: int = 0
    entries: int = 0
    deliveries: int = 0
    refused: int = 0
    late_seconds: float = 0.0
    """The longest that one entry's fan-out took, since the last look."""


@dataclass(slots=True)
class _Topic:
    recent: deque[Entry] = field(default_factory=deque)
    streams: set[Stream] = field(default_factory=set)


class Fanout:
    """The recent entries and the open streams of this process."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.last = ""
        """The stream id of the newest entry known, "" before any is."""
        self._topics: dict[str, _Topic] = {}
        self._recent: deque[Entry] = deque()
        self._bytes = 0
        self._streams: set[Stream] = set()

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def streams(self) -> Iterable[Stream]:
        return tuple(self._streams)

    def count_at(self, address: str) -> int:
        """Open streams without a session from this address."""
        return sum(1 for stream in self._streams if stream.check is None and stream.address == address)

    def feed(self, events: Iterable[ScreenEvent], *, fresh: bool) -> None:
        """Take entries in order. Those that are not `fresh` are only kept, for streams that resume."""
        began = monotonic()
        for event in events:
            entry = Entry(
                entry_id(event.entry), event.to, chunk(frame(event.event, event.data, event.entry)), _client(event)
            )
            self.last = event.entry
            self._keep(entry)
            if fresh:
                self.counts.entries += 1
                self._deliver(entry)
        self.counts.late_seconds = max(self.counts.late_seconds, monotonic() - began)

    def add(self, stream: Stream) -> None:
        """From now on the stream gets what its topics get."""
        self._streams.add(stream)
        self.counts.opened += 1
        for name in stream.topics:
            self._topics.setdefault(name, _Topic()).streams.add(stream)

    def remove(self, stream: Stream) -> None:
        self._streams.discard(stream)
        for name in stream.topics:
            topic = self._topics.get(name)
            if topic is not None:
                topic.streams.discard(stream)
                self._tidy(name, topic)

    def since(self, stream: Stream, after: EntryId, until: EntryId | None = None) -> list[bytes]:
        """What the stream's topics got after `after`, up to and with `until`, oldest first."""
        found = [
            entry
            for name in stream.topics
            if (topic := self._topics.get(name)) is not None
            for entry in topic.recent
            if entry.id > after and (until is None or entry.id <= until) and stream.wants(entry)
        ]
        found.sort(key=lambda entry: entry.id)
        return [entry.frame for entry in found]

    def _deliver(self, entry: Entry) -> None:
        topic = self._topics.get(entry.topic)
        if topic is None:
            return
        for stream in topic.streams:
            if not stream.closed and stream.wants(entry):
                if stream.put(entry.frame):
                    self.counts.deliveries += 1
                else:
                    self.counts.dropped += 1

    def _keep(self, entry: Entry) -> None:
        self._topics.setdefault(entry.topic, _Topic()).recent.append(entry)
        self._recent.append(entry)
        self._bytes += len(entry.frame)
        while len(self._recent) > KEPT_ENTRIES or self._bytes > KEPT_BYTES:
            old = self._recent.popleft()
            self._bytes -= len(old.frame)
            topic = self._topics[old.topic]
            topic.recent.popleft()
            self._tidy(old.topic, topic)

    def _tidy(self, name: str, topic: _Topic) -> None:
        if not topic.recent and not topic.streams:
            del self._topics[name]


def _client(event: ScreenEvent) -> str | None:
    if event.event != "board":
        return None
    try:
        found = json.loads(event.data)
    except ValueError:
        return None
    client = found.get("client_id") if isinstance(found, dict) else None
    return client if isinstance(client, str) else None
