"""One engine per process, and transactions that never deadlock on a lock upgrade.

Every transaction says at its start whether it will write: `Sessions.begin()` writes, `Sessions.read()`
reads. On SQLite the first is BEGIN IMMEDIATE, the second a snapshot that waits for nobody.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker

from bridge.domain.errors import SettingsError, Unavailable
from bridge.settings import Settings

BUSY_SECONDS = 5.0
"""How long a writing transaction waits for its turn on SQLite."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.004
"""SQLite's own back-off grows to 100 ms a step; a writer here is done in a few ms, so we ask again sooner."""
_BROKEN = ("readonly", "read-only", "disk i/o", "unable to open", "malformed", "not a database")
"""After these a SQLite connection is thrown away: a new one sees a repaired disk or permission."""
WRITES = "ringbridge_writes"
"""Execution option of a connection whose next transaction writes."""
_OURS = "ringbridge"
_PG_UNAVAILABLE = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""PostgreSQL's classes: connection, transaction state (read-only), rollback, resources, locks, shutdown, system."""


class DatabaseUnavailable(Unavailable, SQLAlchemyError):  # type: ignore[misc]
    """The database does not answer; an error of SQLAlchemy's too, for whoever catches those."""

    def __init__(self, message: str) -> None:
        Unavailable.__init__(self, message, part="database")

    def __str__(self) -> str:
        return self.message


class Sessions(sessionmaker[Session]):
    """Makes sessions: `sessions.begin()` writes; `sessions()` and `sessions.read()` only read.

    What they run raises Unavailable where the database is locked, read-only, full or gone; the next
    transaction works again as soon as the cause is gone.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, expire_on_commit=False)
        self.engine = engine
        # On SQLite one writes at a time. Threads of one process wake each other; only processes have to ask again.
        self._turn = threading.Lock() if engine.dialect.name == "sqlite" else None
        known = weakref.ref(self)

        def forget() -> None:
            # A child must not wait for a thread that its parent has.
            alive = known()
            if alive is not None and alive._turn is not None:
                alive._turn = threading.Lock()

        os.register_at_fork(after_in_child=forget)
        # Whoever drops it without closing leaves no connection open until some later garbage collection.
        weakref.finalize(self, engine.dispose)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A writing transaction: committed at the end of the block, rolled back on an exception."""
        with _in_turn(self._turn), _pool_errors(), self(info={WRITES: True}) as session, session.begin():
            session.connection(execution_options={WRITES: True})
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A snapshot to read from; nothing is committed."""
        with _pool_errors(), self() as session:
            yield session

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


@event.listens_for(Session, "before_flush")
def _refuse_late_write(session: Session, _context: object, _objects: object) -> None:
    _check_writes(session)


@event.listens_for(Session, "do_orm_execute")
def _refuse_late_statement(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        _check_writes(state.session)


def _check_writes(session: Session) -> None:
    """A reader that turns writer half-way is what deadlocks; found in the first test that does it."""
    ours = isinstance(session.bind, Engine) and _OURS in session.bind.get_execution_options()
    if ours and WRITES not in session.info:
        raise RuntimeError("this session only reads; open it with sessions.begin()")


def open_database(settings: Settings, *, idle_seconds: float | None = None) -> Sessions:
    """Sessions on the database of the settings; nothing is connected yet. Raises SettingsError for a wrong url.

    A transaction that says nothing for `idle_seconds` is undone by PostgreSQL: a process that was stopped in the middle
    of one holds its locks no longer. SQLite cannot do that.
    """
    return Sessions(open_engine(settings, idle_seconds=idle_seconds))


def open_engine(settings: Settings, *, idle_seconds: float | None = None) -> Engine:
    """The engine behind `open_database`."""
    try:
        url = make_url(settings.database_url)
    except SQLAlchemyError:
        raise SettingsError("[database] url in the settings is no database URL") from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        if url.database and url.database != ":memory:":
            _own_file(Path(url.database))
        engine = create_engine(
            url,
            pool_size=20,
            max_overflow=20,
            pool_timeout=BUSY_SECONDS,
            hide_parameters=True,
            execution_options={_OURS: True},
        )
        _tune_sqlite(engine)
    elif backend == "postgresql":
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        options = "-c timezone=UTC -c lock_timeout=5000"
        if idle_seconds is not None:
            options += f" -c idle_in_transaction_session_timeout={round(idle_seconds * 1000)}"
        try:
            engine = create_engine(
                url,
                pool_size=20,
                max_overflow=20,
                pool_timeout=BUSY_SECONDS,
                pool_pre_ping=True,
                hide_parameters=True,
                execution_options={_OURS: True},
                connect_args={"connect_timeout": 5, "options": options},
            )
        except ModuleNotFoundError:
            raise SettingsError(
                "PostgreSQL needs its driver; install it with: pip install 'ringbridge[postgresql]'"
            ) from None
    else:
        raise SettingsError(f"[database] url names {backend!r}; sqlite and postgresql are known")
    event.listen(engine, "handle_error", _map_error)
    known = weakref.ref(engine)

    def forget() -> None:
        # A child must not speak on its parent's connections.
        alive = known()
        if alive is not None:
            alive.dispose(close=False)

    os.register_at_fork(after_in_child=forget)
    return engine


def _own_file(path: Path) -> None:
    """It holds names and numbers: made readable by the owner only. What cannot be made says so when it is opened."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver's own transaction handling begins late and DEFERRED; `begun` does it instead.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        if WRITES in connection.get_execution_options():
            _begin_immediate(connection)
        else:
            connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError("not a SQLite connection")
    deadline = time.monotonic() + BUSY_SECONDS
    raw.execute("PRAGMA busy_timeout=0")
    pause = _SHORTEST_PAUSE
    try:
        while True:
            try:
                raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    if _is_broken(error):
                        connection.invalidate()
                    raise DatabaseUnavailable(_sentence(error)) from None
            time.sleep(random.uniform(0.5, 1.0) * pause)
            pause = min(pause * 1.3, _LONGEST_PAUSE)
    finally:
        if not connection.invalidated:
            raw.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")


@contextmanager
def _in_turn(turn: threading.Lock | None) -> Iterator[None]:
    if turn is None:
        yield
        return
    if not turn.acquire(timeout=BUSY_SECONDS):
        raise DatabaseUnavailable("the database is busy with other writers; try again")
    try:
        yield
    finally:
        turn.release()


@contextmanager
def _pool_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeout:
        raise DatabaseUnavailable("every connection to the database is busy; try again") from None


def _is_broken(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and any(word in str(error).lower() for word in _BROKEN)


def _map_error(context: ExceptionContext) -> Exception | None:
    """A database that cannot answer becomes Unavailable with one clear sentence; other errors stay."""
    original = context.original_exception
    if _is_broken(original):
        context.is_disconnect = True
    sqlstate = getattr(original, "sqlstate", None) or ""
    if (
        isinstance(context.sqlalchemy_exception, (OperationalError, InterfaceError))
        or context.is_disconnect
        or sqlstate[:2] in _PG_UNAVAILABLE
        or sqlstate == "42P01"
    ):
        return DatabaseUnavailable(_sentence(original))
    return None


def _sentence(error: BaseException) -> str:
    text = str(error).lower()
    if "no such table" in text or "no such column" in text or "does not exist" in text:
        return "the database is not set up for this version; run: ringbridge db upgrade"
    if "locked" in text or "lock timeout" in text or "deadlock" in text:
        return "another process locked the database for too long; try again"
    if "readonly" in text or "read-only" in text:
        return "the database is read-only; check the permissions of its file and directory"
    if "full" in text or "no space" in text:
        return "the disk of the database is full; free some space"
    if "unable to open" in text:
        return "the database file cannot be opened; check that its directory exists and may be written"
    return "the database does not answer; check that it runs and that [database] url is right"


def changed(session: Session, statement: Executable) -> int:
    """Run a conditional UPDATE, INSERT or DELETE and say how many rows it touched."""
    # Without preserve_rowcount an INSERT reports -1 on some drivers, which would read as "won".
    result = session.execute(
        statement, execution_options={"synchronize_session": False, "preserve_rowcount": True}
    )
    if not isinstance(result, CursorResult) or result.rowcount < 0:
        raise RuntimeError("the database does not say how many rows it touched")
    return result.rowcount


def upgrade(settings: Settings) -> None:
    """Bring the database to this version (see `bridge.store.migrate`)."""
    from bridge.store import migrate

    migrate.upgrade(settings)
