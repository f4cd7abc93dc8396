"""The edge's way to REST: bounded requests over a private unix socket."""

from __future__ import annotations

import http.client
import select
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic

import gevent
from gevent import socket
from gevent.lock import BoundedSemaphore

_CONNECT_SECONDS = 5.0
"""How long a request waits for REST that is just starting."""
_ANSWER_SECONDS = 30.0
_AT_ONCE = 128
_LARGEST_ANSWER = 16 * 1024 * 1024
_IDLE_SECONDS = 30.0
"""Connections that rest longer are closed by us, so that REST need not close one just as we use it."""

# Headers of one hop (RFC 9110, 7.6.1), and those that only we may say.
_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "expect",
    }
)
_OURS = ("x-ringbridge-", "x-forwarded-", "forwarded", "x-real-ip")


class RestDown(Exception):
    """REST does not answer; `busy` where it only has too much to do."""

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy
        super().__init__()


@dataclass(frozen=True, slots=True)
class Reply:
    """REST's whole answer."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("rest", timeout=_ANSWER_SECONDS)
        self._path = path
        self.rested_at = 0.0

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_ANSWER_SECONDS)
        self.sock.connect(self._path)

    def is_usable(self) -> bool:
        """Whether it rested for a short time only, and REST has neither closed it nor said anything since."""
        if self.sock is None or monotonic() - self.rested_at > _IDLE_SECONDS:
            return False
        waiting = select.poll()
        waiting.register(self.sock.fileno(), select.POLLIN)
        return not waiting.poll(0)


class Upstream:
    """REST behind the socket at `path`. `running` says whether it is worth waiting for."""

    def __init__(self, path: str, running: Callable[[], bool] = lambda: True) -> None:
        self._path = path
        self._running = running
        self._turns = BoundedSemaphore(_AT_ONCE)
        self._idle: list[_Connection] = []

    def ask(self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> Reply:
        """One request. Raises RestDown: nothing listens, no answer in time, or the answer broke off."""
        if not self._turns.acquire(timeout=_CONNECT_SECONDS):
            raise RestDown(busy=True)
        connection: _Connection | None = None
        try:
            with gevent.Timeout(_ANSWER_SECONDS):
                connection = self._rested() or self._connect()
                reply = _exchange(connection, method, target, headers, body)
        except gevent.Timeout:
            raise RestDown(busy=True) from None
        except (OSError, http.client.HTTPException, gevent.GreenletExit):
            # GreenletExit: the server stops and waits no longer; left alone, it would answer 500 in plain text.
            # Never asked again on another connection: REST may have carried it out.
            raise RestDown from None
        else:
            if connection.sock is not None:
                connection.rested_at = monotonic()
                self._idle.append(connection)
                connection = None
            return reply
        finally:
            self._turns.release()
            if connection is not None:
                connection.close()

    def _rested(self) -> _Connection | None:
        """An open connection. The one used last comes first, so that those not needed are closed in time."""
        found: _Connection | None = None
        while self._idle and found is None:
            connection = self._idle.pop()
            if connection.is_usable():
                found = connection
            else:
                connection.close()
        while self._idle and monotonic() - self._idle[0].rested_at > _IDLE_SECONDS:
            self._idle.pop(0).close()
        return found

    def _connect(self) -> _Connection:
        deadline = monotonic() + _CONNECT_SECONDS
        while True:
            connection = _Connection(self._path)
            try:
                connection.connect()
                return connection
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                connection.close()
                if monotonic() > deadline or not self._running():
                    raise RestDown from None
                gevent.sleep(0.05)


def _exchange(
    connection: _Connection, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes
) -> Reply:
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body or method in ("POST", "PUT", "PATCH"):
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    response = connection.getresponse()
    found = response.read(_LARGEST_ANSWER + 1)
    if len(found) > _LARGEST_ANSWER:
        raise http.client.HTTPException("too large")
    if not response.isclosed():
        connection.close()
    kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP and name != "Server"]
    return Reply(response.status, response.reason, kept, found)


def passed_on(headers: Iterable[tuple[str, str]], connection: str) -> list[tuple[str, str]]:
    """A request's headers without those of one hop (also any that its `Connection` header names) and without ours."""
    named = {name.strip().lower() for name in connection.split(",")}
    return [
        (name, value)
        for name, value in headers
        if (low := name.lower()) not in _HOP and low not in named and not low.startswith(_OURS)
    ]
