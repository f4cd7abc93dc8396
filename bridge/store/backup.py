"""Backups: SQLite through its online backup, PostgreSQL through its own pg_dump and pg_restore."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from datetime import datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from bridge.domain.errors import Conflict, Invalid, Unavailable
from bridge.settings import Settings
from bridge.store import migrate
from bridge.store.database import Sessions, open_engine
from bridge.store.queries.switches import set_dialing

_TOOL_SECONDS = 3600


def backup(settings: Settings, target: Path) -> None:
    """Write a consistent copy to a new file while everything runs.

    Raises Conflict where the file exists, Unavailable where the database or its tool does not answer.
    """
    if target.exists():
        raise Conflict(f"{target} exists already; name another file")
    url = make_url(settings.database_url)
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        # It holds names and numbers: nobody but the owner may read it.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        if url.get_backend_name() == "sqlite":
            _copy(_file(url), part)
            _check_file(part)
        else:
            _tool("pg_dump", url, "--format=custom", f"--file={part}")
        _to_disk(part)
        part.replace(target)
    except OSError as error:
        raise Unavailable(f"the backup cannot be written to {target}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def restore(settings: Settings, source: Path, *, now: datetime) -> Path | None:
    """Put a backup in place of the database, upgrade it, and stop dialling; nothing else may use the database.

    Dialling is stopped since the backup does not know who was called after it was made. Returns where the former
    SQLite file was kept. Raises Conflict while the database is in use, Invalid for a file that is no backup.
    """
    if not source.is_file():
        raise Invalid(f"there is no file {source}")
    url = make_url(settings.database_url)
    kept = None
    if url.get_backend_name() == "sqlite":
        kept = _restore_file(_file(url), source, now)
    else:
        _check_unused(settings)
        _tool(
            "pg_restore",
            url,
            "--clean",
            "--if-exists",
            "--no-owner",
            "--single-transaction",
            "--exit-on-error",
            str(source),
        )
    migrate.upgrade(settings)
    sessions = Sessions(open_engine(settings))
    try:
        with sessions.begin() as session:
            set_dialing(session, stopped=True, by="restore", now=now)
    finally:
        sessions.close()
    return kept


def _file(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise Invalid("a database in memory has no backup")
    return Path(url.database)


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise Unavailable(f"there is no database {source} yet; run: ringbridge db upgrade")
    try:
        reading = sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=10)
        writing = sqlite3.connect(target)
        try:
            reading.backup(writing)
            # One file and nothing beside it; the first to open it in earnest goes back to WAL.
            writing.execute("PRAGMA journal_mode=DELETE")
        finally:
            writing.close()
            reading.close()
    except sqlite3.Error as error:
        raise Unavailable(f"the copy failed: {error}") from None


def _check_file(path: Path) -> None:
    """Raises Invalid unless the file is a whole database of ours."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
        try:
            whole = connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
            connection.execute("SELECT version_num FROM alembic_version")
        finally:
            connection.close()
    except sqlite3.Error:
        whole = False
    if not whole:
        raise Invalid(f"{path} is no backup of Ringbridge, or it is damaged")


def _restore_file(database: Path, source: Path, now: datetime) -> Path | None:
    _check_file(source)
    new = database.with_name(database.name + ".restoring")
    kept = database.with_name(f"{database.name}.before-{now:%Y%m%dT%H%M%SZ}")
    database.parent.mkdir(parents=True, exist_ok=True)
    new.unlink(missing_ok=True)
    _copy(source, new)
    new.chmod(0o600)
    _to_disk(new)
    if not database.exists():
        new.replace(database)
        return None
    try:
        _fold_in_and_lock(database)
    except Conflict:
        new.unlink()
        raise
    shutil.copy2(database, kept)
    _to_disk(kept)
    new.replace(database)
    return kept


def _fold_in_and_lock(database: Path) -> None:
    """Move the write-ahead log into the file, which only works while nobody else has it open."""
    connection = sqlite3.connect(database, timeout=0.5, isolation_level=None)
    try:
        # Leaving WAL needs the file for itself alone; it also removes the -wal and -shm files.
        mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
        if mode != "delete":
            raise Conflict("the database is in use; stop Ringbridge first, then restore")
    except sqlite3.OperationalError:
        raise Conflict("the database is in use; stop Ringbridge first, then restore") from None
    finally:
        connection.close()


def _check_unused(settings: Settings) -> None:
    engine = open_engine(settings)
    try:
        with engine.connect() as connection:
            others = connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
    finally:
        engine.dispose()
    if others:
        raise Conflict(f"the database is in use by {others} connections; stop Ringbridge first, then restore")


def _tool(name: str, url: URL, *arguments: str) -> None:
    program = shutil.which(name)
    if program is None:
        raise Unavailable(
            f"{name} is not installed; install PostgreSQL's client programs of the server's version"
        )
    environment = {**os.environ, "PGCONNECT_TIMEOUT": "10"}
    if url.password:
        # On the command line everybody on the machine could read it.
        environment["PGPASSWORD"] = str(url.password)
    dsn = url.set(drivername="postgresql", password=None).render_as_string()
    try:
        done = subprocess.run(
            [program, f"--dbname={dsn}", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TOOL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} did not end within an hour") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Unavailable(f"{name} failed: {said[0] if said else f'exit code {done.returncode}'}")


def _to_disk(path: Path) -> None:
    for place, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        handle = os.open(place, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
