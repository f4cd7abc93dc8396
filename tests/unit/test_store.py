"""Migrations, transactions that do not deadlock, errors that become one sentence, backups."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from doubles.company import NOW, ask, callback, found_company
from doubles.postgres import new_database, postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from sqlalchemy import text, update
from sqlalchemy.exc import SQLAlchemyError

from bridge.domain.errors import Conflict, Invalid, SettingsError, Unavailable
from bridge.settings import Database, Settings
from bridge.store import backup, database, migrate
from bridge.store.database import Sessions, open_database
from bridge.store.models import AgentState, Client
from bridge.store.queries import leases
from bridge.store.queries.switches import dialing_stopped


def test_models_and_migrations_agree(sessions: Sessions) -> None:
    with sessions.engine.connect() as connection:
        assert migrate.differences(connection) == []


def test_upgrades_at_once_are_one_upgrade(
    request: pytest.FixtureRequest,
    settings: Settings,
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    if settings.database.url is not None:
        url = new_database(request.getfixturevalue("postgres"))
    fresh = settings.model_copy(update={"database": Database(url=url)})
    with pytest.raises(Unavailable, match="ringbridge db upgrade"):
        migrate.check_current(fresh)
    command = [sys.executable, "-m", "bridge.cli", "db", "upgrade"]
    environment = {**os.environ, "RINGBRIDGE_DATABASE__URL": url}
    started = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sum("from nothing" in line for line in said) == 1
    migrate.check_current(fresh)


def test_who_is_stopped_in_a_transaction_keeps_no_lock_on_postgresql(postgres: str) -> None:
    """Where the holder of a lease is frozen while it writes, its standby must not wait for it."""
    settings = Settings(database=Database(url=new_database(postgres)))
    migrate.upgrade(settings)
    frozen, standby = open_database(settings, idle_seconds=0.3), open_database(settings)
    with pytest.raises(Unavailable), frozen.begin() as session:
        lease = leases.claim(session, "lab", "one", timedelta(seconds=-1))
        assert lease is not None
        with standby.begin() as other:
            taken = leases.claim(other, "lab", "two", timedelta(seconds=3))
        assert taken is not None and taken.epoch == 1
        leases.renew(session, lease, timedelta(seconds=3), True, "")
    frozen.close()
    standby.close()


def test_a_database_of_a_newer_version_is_left_alone(settings: Settings, sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for ask_of in (migrate.upgrade, migrate.check_current):
        with pytest.raises(Unavailable, match="newer"):
            ask_of(settings)


def test_sqlite_is_safe_on_disk(tmp_path: Path) -> None:
    sessions = open_database(Settings(data_dir=tmp_path))
    with sessions.read() as session:
        values = [
            session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert values == ["wal", 2, 1, 5000]
    assert stat.S_IMODE((tmp_path / "ringbridge.db").stat().st_mode) == 0o600
    sessions.close()


def test_a_reading_session_refuses_to_write(sessions: Sessions) -> None:
    with sessions.read() as session, pytest.raises(RuntimeError, match=r"sessions\.begin"):
        session.add(Client(name="x", created_at=NOW))
        session.flush()
    with sessions.read() as session, pytest.raises(RuntimeError, match=r"sessions\.begin"):
        session.execute(update(AgentState).values(live_calls=9))


def test_read_then_write_by_many_never_deadlocks(sessions: Sessions) -> None:
    found_company(sessions)

    def bump(_: int) -> None:
        with sessions.begin() as session:
            row = session.get_one(AgentState, "agent-1", with_for_update=True)
            row.live_calls += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bump, range(80)))
    with sessions.read() as session:
        assert session.get_one(AgentState, "agent-1").live_calls == 80


@pytest.fixture
def alone(tmp_path: Path, migrated_database: Path) -> Iterator[Sessions]:
    """A SQLite database of the test's own, to be harmed."""
    path = tmp_path / "ringbridge.db"
    path.write_bytes(migrated_database.read_bytes())
    sessions = open_database(Settings(data_dir=tmp_path))
    yield sessions
    sessions.close()


def _add(sessions: Sessions, name: str) -> None:
    with sessions.begin() as session:
        session.add(Client(name=name, created_at=NOW))


def test_locked(alone: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(alone.engine.url.database or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        _add(alone, "a")
    with alone.read() as session:
        assert session.get(Client, "nobody") is None
    other.execute("ROLLBACK")
    other.close()
    _add(alone, "a")


def test_read_only(alone: Sessions) -> None:
    with alone.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(Unavailable, match="read-only"):
        _add(alone, "a")
    # The connection that was read-only is gone: the next one sees what is so now.
    _add(alone, "a")


def test_disk_full(alone: Sessions) -> None:
    with alone.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(Unavailable, match="full"):
        _add(alone, "long" * 40_000)
    with alone.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    _add(alone, "a")


def test_the_file_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sessions = open_database(Settings(database=Database(url=f"sqlite:///{tmp_path}/file/x.db")))
    with pytest.raises(Unavailable, match="cannot be opened"):
        _add(sessions, "a")
    with pytest.raises(SQLAlchemyError):
        _add(sessions, "a")


def test_a_server_that_is_not_there() -> None:
    sessions = open_database(Settings(database=Database(url="postgresql://someone:geheim@127.0.0.1:1/none")))
    with pytest.raises(Unavailable) as caught:
        _add(sessions, "a")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "://"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(SettingsError):
        open_database(Settings(database=Database(url=url)))


def test_backup_and_restore(settings: Settings, sessions: Sessions, redis: Redis, tmp_path: Path) -> None:
    found_company(sessions)
    kept = ask(sessions, redis, settings)
    copy = tmp_path / "copy"
    backup.backup(settings, copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == ["copy"]
    with pytest.raises(Conflict, match="exists"):
        backup.backup(settings, copy)
    ask(sessions, redis, settings, "+16465550102")
    with pytest.raises(Conflict, match="in use"):
        backup.restore(settings, copy, now=NOW)
    sessions.close()
    backup.restore(settings, copy, now=NOW)
    again = open_database(settings)
    assert callback(again, kept.id).status == "queued"
    with again.read() as session:
        assert session.scalar(text("SELECT count(*) FROM callbacks")) == 1
        assert dialing_stopped(session)
    again.close()


def test_what_is_no_backup(tmp_path: Path, alone: Sessions) -> None:
    alone.close()
    settings = Settings(data_dir=tmp_path)
    before = (tmp_path / "ringbridge.db").read_bytes()
    (tmp_path / "junk").write_bytes(b"SQLite format 3\x00" + b"x" * 5000)
    sqlite3.connect(tmp_path / "empty").close()
    for name in ("junk", "empty", "missing"):
        with pytest.raises(Invalid):
            backup.restore(settings, tmp_path / name, now=NOW)
    assert (tmp_path / "ringbridge.db").read_bytes() == before
