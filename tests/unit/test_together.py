"""Writes of several threads in one transaction: each is on disk before it is answered, and none harms another."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import pytest
from rig import until
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bridge.domain.errors import Invalid, Unavailable
from bridge.settings import Settings
from bridge.store import together
from bridge.store.database import DatabaseUnavailable, Sessions
from bridge.store.models import Client, Site
from bridge.store.together import queue_of, write_together

AT = datetime(2026, 5, 4, 15, 0, tzinfo=UTC)
Work = Callable[[Session], str]


def keep(name: str) -> Work:
    def work(session: Session) -> str:
        session.add(Client(id=name, name=name, created_at=AT))
        return name

    return work


def on_disk(settings: Settings) -> set[str]:
    with closing(sqlite3.connect(settings.database_url.removeprefix("sqlite:///"))) as database:
        return {row[0] for row in database.execute("SELECT id FROM clients")}


class Held:
    """A writer that is in the middle of its own work while others come."""

    def __init__(self, sessions: Sessions, pool: ThreadPoolExecutor, work: Work | None = None) -> None:
        self._sessions, self._pool = sessions, pool
        self._go = threading.Event()
        begun = threading.Event()

        def held(session: Session) -> str:
            begun.set()
            assert self._go.wait(60)
            return (work or keep("first"))(session)

        self.queue = queue_of(sessions)
        self.queue._commit_seconds = 60.0
        self.first = self.write(held)
        assert begun.wait(60)

    def write(self, work: Work) -> Future[str]:
        return self._pool.submit(lambda: write_together(self._sessions, work)[0])

    def write_all(self, works: list[Work]) -> list[Future[str]]:
        """Each after the one before, all while the first is held."""
        futures = []
        for work in works:
            futures.append(self.write(work))
            until(lambda: len(self.queue._waiting) == len(futures))
        return futures

    def go(self) -> None:
        self._go.set()


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(12)


def test_who_comes_meanwhile_comes_along_and_is_answered_after_the_commit(
    sessions: Sessions, settings: Settings, pool: ThreadPoolExecutor
) -> None:
    held = Held(sessions, pool)
    seen: dict[str, bool] = {}

    def ask(name: str) -> None:
        held.write(keep(name)).result(60)
        seen[name] = name in on_disk(settings)

    names = [f"c{number}" for number in range(5)]
    asking = [pool.submit(ask, name) for name in names]
    until(lambda: len(held.queue._waiting) == 5)
    assert not on_disk(settings)
    held.go()
    for future in asking:
        future.result(60)
    assert seen == dict.fromkeys(names, True)
    assert (held.queue.commits, held.queue.pieces) == (1, 6)


def test_one_that_fails_fails_alone(sessions: Sessions, settings: Settings, pool: ThreadPoolExecutor) -> None:
    held = Held(sessions, pool)

    def refused(session: Session) -> str:
        keep("half")(session)
        session.flush()
        raise Invalid("no", field="number")

    def broken(session: Session) -> str:
        session.add(Site(id="s", client_id="nobody", key="k", name="n", created_at=AT))
        return "s"

    good, bad, worse, last = held.write_all([keep("a"), refused, broken, keep("b")])
    held.go()
    with pytest.raises(Invalid):
        bad.result(60)
    with pytest.raises(IntegrityError):
        worse.result(60)
    assert [future.result(60) for future in (held.first, good, last)] == ["first", "a", "b"]
    assert on_disk(settings) == {"first", "a", "b"}
    assert held.queue.commits == 1


def test_a_writer_that_fails_takes_nobody_along(
    sessions: Sessions, settings: Settings, pool: ThreadPoolExecutor
) -> None:

    def refused(session: Session) -> str:
        raise Invalid("no", field="number")

    held = Held(sessions, pool, refused)
    others = held.write_all([keep("a"), keep("b")])
    held.go()
    with pytest.raises(Invalid):
        held.first.result(60)
    assert [future.result(60) for future in others] == ["a", "b"]
    assert on_disk(settings) == {"a", "b"}


def test_a_commit_that_fails_is_everybodys_failure_and_nothing_is_kept(
    sessions: Sessions, settings: Settings, pool: ThreadPoolExecutor
) -> None:
    held = Held(sessions, pool)
    others = held.write_all([keep("a"), keep("b")])
    failing = threading.Event()
    failing.set()

    @event.listens_for(sessions.engine, "commit")
    def full(_connection: object) -> None:
        if failing.is_set():
            raise DatabaseUnavailable("the disk of the database is full; free some space")

    held.go()
    for future in (held.first, *others):
        with pytest.raises(Unavailable, match="full"):
            future.result(60)
    assert not on_disk(settings)
    failing.clear()
    assert write_together(sessions, keep("later"))[0] == "later"
    assert on_disk(settings) == {"later"}


def test_nobody_waits_for_ever_and_who_gave_up_is_not_written(
    sessions: Sessions, settings: Settings, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(sessions, pool)
    monkeypatch.setattr(together, "BUSY_SECONDS", 0.05)
    with pytest.raises(Unavailable):
        held.write(keep("late")).result(60)
    held.go()
    assert held.first.result(60) == "first"
    assert on_disk(settings) == {"first"}


def test_others_are_taken_along_no_longer_than_a_commit_takes(
    sessions: Sessions, settings: Settings, pool: ThreadPoolExecutor
) -> None:
    held = Held(sessions, pool)
    others = held.write_all([keep("a"), keep("b")])
    held.queue._commit_seconds = -1e9
    held.go()
    assert [future.result(60) for future in others] == ["a", "b"]
    assert (held.queue.commits, held.queue.pieces) == (3, 3)
