"""A small ESL client for the lab's own use: one command at a time, every wait bounded.

Ringbridge's own link is another thing (`bridge/pbx/esl`); the lab must not depend on what it helps to test.
"""

from __future__ import annotations

import socket
import time
from types import TracebackType
from urllib.parse import unquote

from ringbridge_lab.errors import LabError


class Esl:
    """An authenticated connection. Raises LabError where the PBX does not answer in time or refuses."""

    def __init__(self, port: int, password: str, *, seconds: float = 5.0) -> None:
        self._buffer = b""
        deadline = time.monotonic() + seconds
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        except OSError as error:
            raise LabError(f"nothing answers on ESL port {port} of the lab: {error}") from None
        try:
            greeting, _ = self._read_frame(deadline)
            if greeting.get("Content-Type") != "auth/request":
                raise LabError(f"the lab's PBX does not let us in on ESL: {greeting.get('Content-Type')}")
            reply = self._send(f"auth {password}", deadline)[0].get("Reply-Text", "")
            if not reply.startswith("+OK"):
                raise LabError(f"the lab's PBX refused our ESL password: {reply}")
        except LabError:
            self.close()
            raise

    def __enter__(self) -> Esl:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def api(self, line: str, *, seconds: float = 5.0) -> str:
        """The output of one console command."""
        return self._send(f"api {line}", time.monotonic() + seconds)[1]

    def variable(self, channel: str, name: str) -> str:
        """A variable of a channel, by the channel's uuid; empty where there is none."""
        value = self.api(f"uuid_getvar {channel} {name}")
        return "" if value in ("_undef_", "") or value.startswith("-ERR") else value

    def _send(self, line: str, deadline: float) -> tuple[dict[str, str], str]:
        if any(mark in line for mark in "\r\n\0"):
            raise LabError("a command holds a line end or NUL")
        try:
            self._socket.sendall(line.encode() + b"\n\n")
        except OSError as error:
            raise LabError(f"the lab's PBX dropped its ESL connection: {error}") from None
        return self._read_frame(deadline)

    def _read_frame(self, deadline: float) -> tuple[dict[str, str], str]:
        while b"\n\n" not in self._buffer:
            self._read(deadline)
        head, _, self._buffer = self._buffer.partition(b"\n\n")
        headers = {}
        for line in head.decode(errors="replace").split("\n"):
            key, colon, value = line.partition(": ")
            if colon:
                headers[key] = unquote(value)
        length = int(headers.get("Content-Length", "0"))
        while len(self._buffer) < length:
            self._read(deadline)
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return headers, body.decode(errors="replace")

    def _read(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise LabError("the lab's PBX did not answer in time on ESL")
        self._socket.settimeout(left)
        try:
            chunk = self._socket.recv(65536)
        except TimeoutError:
            return
        except OSError as error:
            raise LabError(f"the lab's PBX dropped its ESL connection: {error}") from None
        if not chunk:
            raise LabError("the lab's PBX closed its ESL connection")
        self._buffer += chunk
