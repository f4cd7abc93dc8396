"""What every view needs of the process it runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import redis
from flask import current_app
from sqlalchemy.orm import Session

from bridge.services import changes, news
from bridge.services.refusals import Refusals
from bridge.settings import Settings
from bridge.store.database import Sessions

_KEY = "ringbridge"


@dataclass(frozen=True, slots=True)
class Parts:
    """Settings, database and Redis of this process, and what it refused lately."""

    settings: Settings
    database: Sessions
    redis: redis.Redis
    refusals: Refusals = field(default_factory=Refusals)

    @contextmanager
    def writing(self, *collections: str) -> Iterator[Session]:
        """A transaction; once it is committed, browsers hear its news and other processes which collections changed."""
        with self.database.begin() as session:
            yield session
        news.publish(self.redis, session)
        if collections:
            changes.announce(self.redis, *collections)

    @property
    def secure(self) -> bool:
        """Whether people reach us over https, so that cookies must never go over http."""
        return (self.settings.http.public_url or "").lower().startswith("https://")


def parts() -> Parts:
    """The parts of the running app."""
    return cast(Parts, current_app.extensions[_KEY])


def now() -> datetime:
    """The moment of this request."""
    return datetime.now(UTC)
