"""Records a PBX's event socket: every byte, with its time, through a plain socket of its own.

It only signs in and listens. What is written of the sign-in holds x's for the secret.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, Protocol

from bridge.domain.errors import Unavailable
from bridge.pbx.connecting import trust
from bridge.pbx.masking import NumberMask
from bridge.pbx.trace import Row
from bridge.settings import Pbx

CHUNK = 64 * 1024
CONNECT_SECONDS = 5.0
SIGN_IN_SECONDS = 10.0
GOODBYE_SECONDS = 2.0


class _Opening(Protocol):
    ready: bool
    events: int

    @property
    def goodbye(self) -> bytes: ...

    def heard(self, data: bytes) -> list[tuple[bytes, bytes]]: ...


class Recorder:
    """One connection whose bytes are handed to `write`, in order."""

    def __init__(
        self,
        pbx: Pbx,
        write: Callable[[Row], None],
        *,
        everything: bool = False,
        encoding: Literal["json", "plain"] = "json",
        mask_numbers: bool = False,
    ) -> None:
        self._pbx = pbx
        self._where = f"{pbx.host}:{pbx.port}"
        self._write = write
        self._opening = _opening(pbx, everything, encoding)
        self._mask = NumberMask() if mask_numbers else None
        self._wake = os.pipe()
        self._rows = 0
        self.began = datetime.now(UTC)
        """The time of t = 0."""
        self._zero = time.monotonic()
        self.bytes = 0
        self.ended_by_pbx = False

    @property
    def events(self) -> int:
        """How many came whole."""
        return self._opening.events

    @property
    def ready(self) -> bool:
        """Signed in, and hearing events."""
        return self._opening.ready

    def stop(self) -> None:
        """From a signal handler or another thread: say goodbye and come to an end."""
        with contextlib.suppress(OSError):
            os.write(self._wake[1], b".")

    def run(self, seconds: float | None = None, on_ready: Callable[[], None] = lambda: None) -> None:
        """Record until `stop`, the PBX's end, or for so many seconds after the sign-in.

        Raises Unavailable where no such PBX answers, Forbidden where it refuses us.
        """
        try:
            with _connected(self._pbx, self._where) as sock:
                self._zero, self.began = time.monotonic(), datetime.now(UTC)
                self._run(sock, seconds, on_ready)
        finally:
            for row in self._mask.rest() if self._mask else []:
                self._write(row)
            for end in self._wake:
                os.close(end)

    def _run(self, sock: socket.socket, seconds: float | None, on_ready: Callable[[], None]) -> None:
        deadline: float | None = time.monotonic() + SIGN_IN_SECONDS
        told = leaving = False
        while True:
            data = self._receive(sock, deadline)
            if data == b"":
                self.ended_by_pbx = not leaving
                if not self.ready:
                    raise Unavailable(f"{self._where} closed the connection before the sign-in was over")
                return
            if data is not None:
                self._keep(Row(self._now, True, data))
                for raw, shown in self._opening.heard(data):
                    sock.sendall(raw)
                    self._keep(Row(self._now, False, shown))
                if self.ready and not told:
                    told = True
                    deadline = None if seconds is None else time.monotonic() + seconds
                    on_ready()
            elif not self.ready or leaving:
                if not self.ready:
                    raise Unavailable(f"{self._where} does not answer the sign-in")
                return
            else:
                leaving, deadline = True, time.monotonic() + GOODBYE_SECONDS
                sock.sendall(self._opening.goodbye)
                self._keep(Row(self._now, False, self._opening.goodbye))

    @property
    def _now(self) -> float:
        return time.monotonic() - self._zero

    def _receive(self, sock: socket.socket, deadline: float | None) -> bytes | None:
        """The next bytes; none at the PBX's end, None where it is time or somebody said `stop`."""
        if not (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            readable, _, _ = select.select([sock.fileno(), self._wake[0]], [], [], left)
            if self._wake[0] in readable:
                os.read(self._wake[0], 16)
                return None
            if not readable:
                return None
        try:
            return sock.recv(CHUNK)
        except OSError:
            return b""

    def _keep(self, row: Row) -> None:
        self.bytes += len(row.data) if row.received else 0
        for ready in [row] if self._mask is None else self._mask.add(row):
            self._write(ready)


def _opening(pbx: Pbx, everything: bool, encoding: Literal["json", "plain"]) -> _Opening:
    """Raises SettingsError for a secret that is missing."""
    if pbx.kind == "freeswitch":
        from bridge.pbx.esl.recording import Opening as EslOpening

        return EslOpening(pbx.username, pbx.read_secret(), everything=everything, encoding=encoding)
    from bridge.pbx.ami.recording import Opening as AmiOpening

    return AmiOpening(pbx.username, pbx.read_secret())


def _connected(pbx: Pbx, where: str) -> socket.socket:
    try:
        sock = socket.create_connection((pbx.host, pbx.port), CONNECT_SECONDS)
        if pbx.tls:
            sock = trust(ssl.create_default_context(), pbx.tls_ca).wrap_socket(sock, server_hostname=pbx.host)
    except OSError as error:
        raise Unavailable(f"{where} cannot be reached: {error.strerror or type(error).__name__}") from None
    sock.settimeout(None)
    return sock
