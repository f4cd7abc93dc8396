"""`rb:calls`: the fenced publish, and how a consumer group reads it.

A batch is published with the tracker's state of the calls it touched in one step, and only by the holder of
the lease. It has a number, counted from 1 in each epoch, and the server keeps the last one: a batch sent
again after a lost reply adds nothing, and a server that came back with less than it had says what is missing.

Delivery is at least once: a consumer drops what it has seen by `call` and `seq`. The stream is trimmed only past
what the `recorder` group acknowledged; at the hard cap the oldest go all the same, `rb:calls:cut` counts them,
and consumers see a jump in `seq`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from bridge.domain.calls import CallEvent
from bridge.live import clock, keys, scripts

RECORDER = "recorder"
HARD_CAP = 500_000
"""Entries; about 250 MB."""
_KEEP_MS = 3_600_000
"""Acknowledged entries stay this long for whoever looks back."""
_DEAD_CONSUMER_MS = 15_000


class Published(StrEnum):
    """What became of a batch."""

    OK = "ok"
    AGAIN = "again"
    """It was there already."""
    FENCED = "fenced"
    """A later holder publishes now."""
    MISSING = "missing"
    """The server lost our epoch: verify the lease in SQL, then `raise_epoch`."""
    FLUSHED = "flushed"
    """The server lost everything: `restore`, then go on."""
    BEHIND = "behind"
    """The server lost the last batches: publish again from the one after `last`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The fence's answer. `id` is the stream id of the last entry, `last` the last batch the server has (BEHIND)."""

    published: Published
    id: str = ""
    last: int = 0


EncodedEvent = tuple[str, str, str, str, str, str]


_json = msgspec.json.Encoder(enc_hook=str)
_pack = msgspec.msgpack.Encoder()
"""Redis' scripts read MessagePack: one argument, since thousands of a batch would cost more than its events."""


def encode(event: CallEvent) -> EncodedEvent:
    """An event as the script reads it: type, call, pbx, seq, at, data."""
    at = event.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data = _json.encode(dict(event.data)).decode()
    seq = "" if event.seq is None else str(event.seq)
    return (event.type.value, event.call or "", event.pbx, seq, at, data)


class CallStream:
    """`rb:calls` as the holder of one PBX's lease writes it."""

    def __init__(self, redis: Redis, pbx: str, epoch: int, cap: int = HARD_CAP) -> None:
        self._redis = redis
        self._pbx = pbx
        self._epoch = epoch
        self._cap = cap
        self._publish = redis.register_script(scripts.PUBLISH)
        self._raise = redis.register_script(scripts.RAISE)
        self._restore = redis.register_script(scripts.RESTORE)

    def raise_epoch(self, *, begin: bool = False) -> int | None:
        """Make ours the epoch that may publish; `begin` where a new holder starts to count batches.

        Returns None, or the higher epoch that is there already.
        """
        higher = self._raise(
            keys=[keys.epoch(self._pbx), keys.published(self._pbx)],
            args=[self._epoch, int(begin)],
        )
        return int(cast(str, higher)) if higher else None

    def live(self) -> dict[str, str]:
        """The tracker's state as last published."""
        return dict(cast(Mapping[str, str], self._redis.hgetall(keys.live(self._pbx))))

    def publish(self, batch: int, events: Sequence[EncodedEvent], live: Mapping[str, str | None]) -> Answer:
        """Publish one batch, at most once however often it is sent."""
        states = [(call, state or "") for call, state in live.items()]
        return self._call([self._epoch, batch, self._cap, _pack.encode((events, states))])

    def look(self, batch: int) -> Answer:
        """Whether the server still has everything up to `batch` and our epoch; publishes nothing."""
        return self._call([self._epoch, batch + 1, self._cap, ""])

    def restore(self, batch: int, live: Mapping[str, str]) -> bool:
        """Put the state of the calls back, as it was after `batch`. False where the epoch is not ours."""
        args: list[str | int] = [self._epoch, batch]
        for call, state in live.items():
            args.extend((call, state))
        names = [keys.epoch(self._pbx), keys.published(self._pbx), keys.live(self._pbx)]
        return bool(self._restore(keys=names, args=args))

    def acknowledged(self) -> str | None:
        """The stream id up to which the recorder has everything; None where there is no recorder group yet."""
        return acknowledged(self._redis)

    def _call(self, args: list[str | int | bytes]) -> Answer:
        reply = self._publish(
            keys=[
                keys.epoch(self._pbx),
                keys.published(self._pbx),
                keys.CALLS,
                keys.live(self._pbx),
                keys.CALLS_CUT,
            ],
            args=args,
        )
        word, value = cast(Sequence[str], reply)
        if word == Published.BEHIND:
            return Answer(Published.BEHIND, last=int(value))
        return Answer(Published(word), id=value)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `rb:calls` as a consumer sees it; `call` and `seq` are None for `pbx.*`."""

    id: str
    type: str
    pbx: str
    at: datetime
    call: str | None
    seq: int | None
    data: Mapping[str, Any]


_READING_MS = 15_000
"""A reader that said nothing for so long is not running."""


class CallReader:
    """One consumer of one group. Entries come in order; what a dead consumer of the group left comes first.

    The group begins at the stream's first entry, and is made again after a flush.
    """

    def __init__(self, redis: Redis, group: str, consumer: str) -> None:
        self._redis = redis
        self._group = group
        self._consumer = consumer
        self._own_pending: str | None = "0"
        self._next_claim = 0.0
        self._next_word = 0.0

    def read(self, count: int = 200, block_ms: int = 1000) -> list[Entry]:
        """Entries not acknowledged yet, or none after `block_ms`. Raises redis' errors where it does not answer."""
        try:
            self._say_alive()
            return self._pending(count) or self._claim(count) or self._fresh(count, block_ms)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._create()
            return []

    def ack(self, ids: Iterable[str]) -> None:
        """Those entries are done with."""
        done = list(ids)
        if done:
            self._redis.xack(keys.CALLS, self._group, *done)

    def read_again(self) -> None:
        """Begin again with what was read and not acknowledged, as after an error."""
        self._own_pending = "0"

    def _say_alive(self) -> None:
        # Redis 7.0 does not count a read that finds nothing as a sign of life.
        if time.monotonic() >= self._next_word:
            self._redis.set(keys.reading(self._group), self._consumer, px=_READING_MS)
            self._next_word = time.monotonic() + _READING_MS / 5000

    def _create(self) -> None:
        try:
            self._redis.xgroup_create(keys.CALLS, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _pending(self, count: int) -> list[Entry]:
        if self._own_pending is None:
            return []
        reply = self._redis.xreadgroup(
            self._group, self._consumer, {keys.CALLS: self._own_pending}, count=count
        )
        raw = cast(Any, reply)[0][1] if reply else []
        self._own_pending = raw[-1][0] if raw else None
        return self._entries(raw)

    def _claim(self, count: int) -> list[Entry]:
        if time.monotonic() < self._next_claim:
            return []
        reply = self._redis.xautoclaim(
            keys.CALLS, self._group, self._consumer, _DEAD_CONSUMER_MS, count=count
        )
        raw = cast(Any, reply)[1]
        if not raw:
            self._next_claim = time.monotonic() + _DEAD_CONSUMER_MS / 3000
        return self._entries(raw)

    def _fresh(self, count: int, block_ms: int) -> list[Entry]:
        reply = self._redis.xreadgroup(
            self._group, self._consumer, {keys.CALLS: ">"}, count=count, block=block_ms or None
        )
        return self._entries(cast(Any, reply)[0][1]) if reply else []

    def _entries(self, raw: Iterable[tuple[str, Mapping[str, str] | None]]) -> list[Entry]:
        """Parsed; an entry that was cut or is no event of ours is acknowledged and left out."""
        entries, strange = [], []
        for entry_id, fields in raw:
            try:
                entries.append(_parse(entry_id, fields or {}))
            except (KeyError, ValueError):
                strange.append(entry_id)
        self.ack(strange)
        return entries


def _parse(entry_id: str, fields: Mapping[str, str]) -> Entry:
    seq = fields.get("seq")
    return Entry(
        id=entry_id,
        type=fields["type"],
        pbx=fields["pbx"],
        at=datetime.fromisoformat(fields["at"]),
        call=fields.get("call"),
        seq=int(seq) if seq else None,
        data=json.loads(fields["data"]),
    )


def id_key(entry_id: str) -> tuple[int, int]:
    """A stream id as it sorts."""
    ms, _, counter = entry_id.partition("-")
    return int(ms or 0), int(counter or 0)


def acknowledged(redis: Redis, group: str = RECORDER) -> str | None:
    """The stream id up to which the group has acknowledged everything; None where it does not exist."""
    try:
        groups = cast(Sequence[Mapping[str, Any]], redis.xinfo_groups(keys.CALLS))
    except ResponseError:
        return None
    for found in groups:
        if found["name"] == group:
            if not found["pending"]:
                return str(found["last-delivered-id"])
            first = cast(Mapping[str, Any], redis.xpending(keys.CALLS, group))["min"]
            ms, counter = id_key(str(first or "0-0"))
            return f"{ms}-{counter - 1}" if counter else f"{max(ms - 1, 0)}-{2**63}"
    return None


def trim(redis: Redis, group: str = RECORDER, keep_ms: int = _KEEP_MS) -> int:
    """Cut what is older than `keep_ms` and acknowledged by the group; the recorder calls it now and then.

    Returns how many entries went. Nothing goes where the group does not exist.
    """
    done = acknowledged(redis, group)
    if done is None:
        return 0
    oldest_kept = min(id_key(done), (clock.now_ms(redis) - keep_ms, 0))
    if oldest_kept[0] <= 0:
        return 0
    return int(redis.xtrim(keys.CALLS, minid=f"{oldest_kept[0]}-{oldest_kept[1]}", approximate=True))
