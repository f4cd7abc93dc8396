"""Keeping the lease of a PBX, and knowing how long it surely is ours."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from datetime import timedelta

import structlog

from bridge.domain.errors import Unavailable
from bridge.store.database import Sessions
from bridge.store.queries import leases
from bridge.store.queries.leases import Lease
from bridge.uptime import uptime

log = structlog.get_logger(__name__)

KEEP_SECONDS = 3.0
RENEW_SECONDS = 0.75
_MARGIN_SECONDS = 0.5
"""Ours ends this much before the row's, so that clocks may differ in pace and a send may take a moment."""
_AILING_SECONDS = 1.0
"""A holder that has been without its PBX or Redis for so long gives way to a standby that has both."""
_AILING_RENEW_SECONDS = 0.25
_ASKED_SECONDS = 2.5


def holder_name() -> str:
    """A name for this run of this process."""
    return f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"[:64]


class LeaseKeeper:
    """Renews one lease from a thread, and writes beside it how the link does."""

    def __init__(self, sessions: Sessions, lease: Lease, claimed_at: float) -> None:
        """`claimed_at` is the uptime before the claim was sent."""
        self._sessions = sessions
        self.lease = lease
        self._valid_until = claimed_at + KEEP_SECONDS - _MARGIN_SECONDS
        self._changed = threading.Event()
        self._connected = False
        self._detail = "starting"
        self._database_down = False
        self._redis_down = False
        self._ailing_since: float | None = None
        self.lost = threading.Event()
        self.wanted = threading.Event()
        """We cannot work, and a standby could: the lease is to be given up."""

    def is_valid(self) -> bool:
        """Whether nobody else can have taken the lease yet. What must happen once is begun only while this holds."""
        return not self.lost.is_set() and uptime() < self._valid_until

    def verify(self) -> bool:
        """Ask SQL whether the lease is ours. True too where the database does not answer: then nobody can claim."""
        try:
            with self._sessions.read() as session:
                held = leases.is_held(session, self.lease)
        except Unavailable:
            return self.is_valid()
        if not held:
            self.lost.set()
        return held

    def say(self, connected: bool, detail: str) -> None:
        """How the link does, for /readyz; written at once."""
        self._connected, self._detail = connected, detail
        self._note()

    def say_redis(self, down: bool) -> None:
        """Whether Redis is out of reach; a holder that cannot publish is of no more use than one without a PBX."""
        if down != self._redis_down:
            self._redis_down = down
            self._note()

    def _note(self) -> None:
        if self._connected and not self._redis_down:
            self._ailing_since = None
        elif self._ailing_since is None:
            self._ailing_since = uptime()
        self._changed.set()

    def run(self, stop: threading.Event) -> None:
        """Renew until `stop`, or until the lease is lost."""
        while not stop.is_set() and not self.lost.is_set():
            try:
                self._renew()
            except Unavailable as error:
                if not self._database_down:
                    log.error("the lease cannot be renewed", pbx=self.lease.pbx, why=error.message)
                self._database_down = True
            self._changed.wait(RENEW_SECONDS if self._ailing_since is None else _AILING_RENEW_SECONDS)
            self._changed.clear()

    def release(self, detail: str) -> None:
        """Let a standby take over at once. Where the database does not answer, the lease runs out by itself."""
        if self.lost.is_set():
            return
        try:
            with self._sessions.begin() as session:
                leases.release(session, self.lease, detail)
        except Unavailable as error:
            log.warning("the lease was not released; it runs out by itself", why=error.message)

    def wake(self) -> None:
        """End a wait in `run`."""
        self._changed.set()

    def _renew(self) -> None:
        asked, ailing = uptime(), self._ailing_since
        connected = self._connected and not self._redis_down
        detail = "Redis does not answer" if self._redis_down else self._detail
        with self._sessions.begin() as session:
            kept = leases.renew(session, self.lease, timedelta(seconds=KEEP_SECONDS), connected, detail)
            if ailing is not None and asked - ailing > _AILING_SECONDS:
                wanted = leases.is_wanted(session, self.lease, timedelta(seconds=_ASKED_SECONDS))
                if wanted and self._ailing_since == ailing:
                    self.wanted.set()
        if not kept:
            self.lost.set()
            return
        # From before the question: the row's expiry was reckoned later than that.
        self._valid_until = asked + KEEP_SECONDS - _MARGIN_SECONDS
        if self._database_down:
            log.info("the lease is renewed again", pbx=self.lease.pbx)
        self._database_down = False


def claim(sessions: Sessions, pbx: str, holder: str) -> LeaseKeeper | None:
    """Take the lease where it is free; None where another holds it. Raises Unavailable."""
    with sessions.read() as session:
        if not leases.is_free(session, pbx):
            return None
    asked = uptime()
    with sessions.begin() as session:
        lease = leases.claim(session, pbx, holder, timedelta(seconds=KEEP_SECONDS))
    return None if lease is None else LeaseKeeper(sessions, lease, asked)


def outgrow(sessions: Sessions, keeper: LeaseKeeper, epoch: int) -> LeaseKeeper | None:
    """The same lease with an epoch above `epoch`; None where it is not ours any more. Raises Unavailable."""
    asked = uptime()
    with sessions.begin() as session:
        lease = leases.outgrow(session, keeper.lease, epoch)
        if lease is not None:
            leases.renew(session, lease, timedelta(seconds=KEEP_SECONDS), False, "starting")
    return None if lease is None else LeaseKeeper(sessions, lease, asked)
