"""`rb:screens`: one stream of everything that goes to browsers; an entry's id is its SSE id."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from bridge.live import keys

SUPERVISORS = "supervisors"
_KEEP_ENTRIES = 10_000
_ENTRY_ID = re.compile(r"[0-9]{1,18}(-[0-9]{1,18})?")


def agent_topic(agent: str) -> str:
    return f"agent:{agent}"


def callback_topic(callback: str) -> str:
    return f"callback:{callback}"


@dataclass(frozen=True, slots=True)
class ScreenEvent:
    """One entry. `data` is JSON text, passed on as it is."""

    entry: str
    to: str
    event: str
    id: str
    data: str


def publish(redis: Redis, to: str, event: str, data: Mapping[str, Any], id: str = "") -> str:
    """Put one event onto the screens of `to`; returns its stream id. Works on a pipeline too."""
    body = json.dumps(dict(data), ensure_ascii=False, separators=(",", ":"))
    fields: dict[Any, Any] = {"v": "1", "to": to, "event": event, "id": id, "data": body}
    return cast(str, redis.xadd(keys.SCREENS, fields, maxlen=_KEEP_ENTRIES, approximate=True))


def last_id(redis: Redis) -> str:
    """The id of the newest entry, to begin reading after; "0-0" where there is none."""
    newest = cast(Any, redis.xrevrange(keys.SCREENS, count=1))
    return str(newest[0][0]) if newest else "0-0"


def read(redis: Redis, after: str, block_ms: int = 1000, count: int = 500) -> list[ScreenEvent]:
    """Entries after that id, or none after `block_ms` (less than the connection's own timeout)."""
    found = cast(Any, redis.xread({keys.SCREENS: after}, count=count, block=block_ms))
    return _events(found[0][1]) if found else []


def replay(redis: Redis, topics: Collection[str], after: str, until: str = "+") -> list[ScreenEvent]:
    """What these topics got after `after` (a `Last-Event-ID`), up to and with `until`; nothing where it is no id."""
    if not _ENTRY_ID.fullmatch(after):
        return []
    found = cast(Any, redis.xrange(keys.SCREENS, min=f"({after}", max=until, count=_KEEP_ENTRIES * 2))
    return [event for event in _events(found) if event.to in topics]


def _events(raw: Iterable[tuple[str, Mapping[str, str] | None]]) -> list[ScreenEvent]:
    return [
        ScreenEvent(
            entry, fields["to"], fields.get("event", ""), fields.get("id", ""), fields.get("data", "{}")
        )
        for entry, fields in raw
        if fields and "to" in fields
    ]
