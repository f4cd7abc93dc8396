"""What every job needs, opened once per worker process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from redis import Redis

from bridge.live.connection import connect
from bridge.settings import Settings, load
from bridge.store.database import Sessions, open_database


@dataclass(frozen=True, slots=True)
class Surroundings:
    settings: Settings
    sessions: Sessions
    redis: Redis


@cache
def surroundings() -> Surroundings:
    """Settings, database and Redis of this process. Raises SettingsError."""
    settings = load()
    return Surroundings(settings, open_database(settings), connect(settings))
