"""Short writes of several threads in one transaction: on SQLite each commit waits for the disk, one after the other.

Whoever finds nobody writing becomes the writer: it runs its own piece of work and those that wait by then, each in a
savepoint, and commits once. Each is answered only after that commit, so what is answered is on disk. A piece that
raises undoes itself alone; a commit that fails is everybody's failure.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from bridge.store.database import BUSY_SECONDS, WRITES, DatabaseUnavailable, Sessions

T = TypeVar("T")

_WHY = "the database did not keep it; try again"
MOST = 32
"""Pieces of work in one transaction: others' turn to write must come."""


class _Piece(Generic[T]):
    """One thread's work, and what became of it."""

    __slots__ = ("done", "error", "leads", "result", "session", "work")

    def __init__(self, work: Callable[[Session], T]) -> None:
        self.work = work
        self.result: T | None = None
        self.session: Session | None = None
        self.error: Exception | None = None
        self.leads = False
        """It was woken to be the next writer."""
        self.done = threading.Event()


class _Together:
    """The queue of one process before one database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Piece[Any]] = deque()
        self._writing = False
        self._commit_seconds = 0.002
        """How long a commit takes of late: for as long, others are taken along, and no longer."""
        self.commits = 0
        self.pieces = 0

    def run(self, sessions: Sessions, work: Callable[[Session], T]) -> tuple[T, Session]:
        """As `write_together`."""
        piece = _Piece(work)
        with self._lock:
            if self._writing:
                self._waiting.append(piece)
            else:
                self._writing = piece.leads = True
        if not piece.leads:
            self._wait(piece)
        if piece.leads and not piece.done.is_set():
            self._lead(sessions, piece)
        if piece.error is not None:
            raise piece.error
        return cast(T, piece.result), cast(Session, piece.session)

    def _wait(self, piece: _Piece[Any]) -> None:
        """Until it is done, or it is this thread's turn to write; not for ever, unless a writer has it in hand."""
        if piece.done.wait(BUSY_SECONDS):
            if piece.leads:
                piece.done.clear()
            return
        with self._lock:
            if piece in self._waiting:
                self._waiting.remove(piece)
                raise DatabaseUnavailable("the database is busy with other writers; try again")
        # Taken: the writer's own waits are bounded, and what it came to must be known.
        piece.done.wait()
        if piece.leads:
            piece.done.clear()

    def _lead(self, sessions: Sessions, own: _Piece[Any]) -> None:
        taken = [own]
        why: str | None = _WHY
        try:
            self._write(sessions, taken)
            why = None
        except DatabaseUnavailable as error:
            why = error.message
        finally:
            with self._lock:
                following = self._waiting.popleft() if self._waiting else None
                self._writing = following is not None
                if following is not None:
                    following.leads = True
                    following.done.set()
            for piece in taken:
                # Each its own, since an exception is one thread's to raise; and nothing is kept of a failed commit.
                if why is not None and piece.error is None:
                    piece.error = DatabaseUnavailable(why)
                piece.done.set()

    def _write(self, sessions: Sessions, taken: list[_Piece[Any]]) -> None:
        with sessions.begin() as session:
            [own] = taken
            # Alone, it needs no savepoint: what it raises undoes all there is.
            own.result, own.session = own.work(session), session
            # What is wrong with it must show before others come along.
            session.flush()
            began = time.monotonic()
            while len(taken) < MOST and time.monotonic() - began < self._commit_seconds:
                with self._lock:
                    if not self._waiting:
                        break
                    taken.append(self._waiting.popleft())
                _in_savepoint(sessions, session.connection(), taken[-1])
            before = time.monotonic()
        self._commit_seconds += (time.monotonic() - before - self._commit_seconds) / 8
        self.commits += 1
        self.pieces += len(taken)


def _in_savepoint(sessions: Sessions, connection: Connection, piece: _Piece[Any]) -> None:
    session = sessions(bind=connection, join_transaction_mode="create_savepoint", info={WRITES: True})
    try:
        with session, session.begin():
            piece.result = piece.work(session)
        piece.session = session
    except DatabaseUnavailable:
        # Not this piece's fault; and whether SQLite still keeps what came before is not for us to guess.
        raise
    except Exception as error:  # noqa: BLE001 - it is raised again, by the thread whose work it is
        piece.error = error


_QUEUES: WeakKeyDictionary[Sessions, _Together] = WeakKeyDictionary()
_MAKING = threading.Lock()


def queue_of(sessions: Sessions) -> _Together:
    """The one queue of these sessions."""
    with _MAKING:
        return _QUEUES.setdefault(sessions, _Together())


def write_together(sessions: Sessions, work: Callable[[Session], T]) -> tuple[T, Session]:
    """What `work` returns, and its session, once it is on disk. Raises what `work` raises, and Unavailable.

    `work` must be short, and must do nothing that a commit that fails could not undo. On PostgreSQL, where many write
    at once, it is a transaction of its own.
    """
    if sessions.engine.dialect.name == "sqlite":
        return queue_of(sessions).run(sessions, work)
    with sessions.begin() as session:
        result = work(session)
    return result, session
