"""Whether everything that Ringbridge needs is there, and the sentence for each part that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import redis
from rq import Queue, Worker
from sqlalchemy import func, select

from bridge.domain.errors import RingbridgeError
from bridge.live import keys
from bridge.live.connection import DOWN, bytes_twin
from bridge.services import board, promises
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import AgentState, Attempt, Callback, Switch

_PROBE = "readyz"


@dataclass(frozen=True, slots=True)
class Part:
    """One part's health; `reason` is empty where it is well."""

    name: str
    reason: str = ""


def check(settings: Settings, database: Sessions, server: redis.Redis, now: datetime) -> list[Part]:
    """Every part, each asked on its own, so that one fault hides no other."""
    parts = [_database(database, now), _redis(server)]
    up = {part.name for part in parts if not part.reason}
    if "database" in up:
        with database.read() as db:
            parts += [
                Part(f"pbx {link['pbx']}", "" if link["up"] else link["detail"] or "the link is down")
                for link in board.links(db, settings, now)
            ]
        if not settings.pbx:
            parts.append(Part("pbx", "the settings name no [[pbx]]; run: ringbridge init"))
    if "redis" in up:
        parts += [
            _asked(name, probe)
            for name, probe in (
                ("worker dial", lambda: _worker(server, "dial")),
                ("worker default", lambda: _worker(server, "default")),
                ("recorder", lambda: _reader(server, "recorder")),
                ("pops", lambda: _pops(server)),
            )
        ]
    return parts


def counts(database: Sessions) -> dict[str, dict[str, int]]:
    """Rows by state, for metrics: callbacks, attempts and agents."""
    found: dict[str, dict[str, int]] = {}
    with database.read() as db:
        for name, column in (
            ("callbacks", Callback.status),
            ("attempts", Attempt.state),
            ("agents", AgentState.state),
        ):
            rows = db.execute(select(column, func.count()).group_by(column))
            found[name] = {str(value): int(count) for value, count in rows}
    return found


def promises_kept(database: Sessions, now: datetime) -> list[tuple[str, int, int, bool]]:
    """For each site: promises kept and broken in the last day, and whether it promises."""
    with database.read() as db:
        return promises.counts(db, now)


def listener_counters(settings: Settings, server: redis.Redis) -> dict[str, dict[str, float]]:
    """What each listener counts, by PBX; nothing where Redis does not answer."""
    found: dict[str, dict[str, float]] = {}
    try:
        for pbx in settings.pbx:
            raw = cast(dict[str, Any], server.hgetall(keys.listen_metrics(pbx.name)))
            found[pbx.name] = {name: value for name, text in raw.items() if (value := _number(text)) is not None}
    except DOWN:
        return {}
    return found


def _database(database: Sessions, now: datetime) -> Part:
    # A read proves little: a full disk and a read-only file answer those too.
    try:
        with database.begin() as db:
            db.merge(Switch(name=_PROBE, value="ok", by=_PROBE, at=now))
    except RingbridgeError as error:
        return Part("database", error.message)
    return Part("database")


def _redis(server: redis.Redis) -> Part:
    try:
        server.ping()
    except DOWN:
        return Part("redis", "Redis does not answer; callbacks are kept and called when it is back")
    return Part("redis")


def _asked(name: str, probe: Callable[[], str]) -> Part:
    try:
        return Part(name, probe())
    except DOWN:
        return Part(name, "Redis does not answer")


def _worker(server: redis.Redis, queue: str) -> str:
    twin = bytes_twin(server)
    try:
        if Worker.all(queue=Queue(queue, connection=twin)):
            return ""
    finally:
        twin.close()
    return f"no worker runs for the queue {queue}; run: ringbridge worker --queue {queue}"


def _reader(server: redis.Redis, group: str) -> str:
    if server.exists(keys.reading(group)):
        return ""
    return f"it does not read the call events; run: ringbridge {group}"


def _pops(server: redis.Redis) -> str:
    return "" if server.exists(keys.POPS_LEASE) else "no process builds screen pops; run: ringbridge pops"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
