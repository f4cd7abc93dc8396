"""A small AMI client for the lab's own use: one action at a time, every wait bounded.

Ringbridge's own link is another thing (`bridge/pbx/ami`); the lab must not depend on what it helps to test.
"""

from __future__ import annotations

import itertools
import socket
import time
from types import TracebackType

from ringbridge_lab.errors import LabError

Message = dict[str, str]


class Ami:
    """A logged-in connection. Raises LabError where the PBX does not answer in time or refuses."""

    def __init__(self, port: int, username: str, secret: str, *, seconds: float = 20.0) -> None:
        self._numbers = itertools.count(1)
        self._buffer = b""
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        except OSError as error:
            raise LabError(f"nothing answers on AMI port {port} of the lab: {error}") from None
        try:
            self._read_until(b"\r\n", time.monotonic() + seconds)
            self.action("Login", Username=username, Secret=secret, Events="off", seconds=seconds)
        except LabError:
            self.close()
            raise

    def __enter__(self) -> Ami:
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

    def action(self, name: str, *, seconds: float = 20.0, **headers: str | list[str]) -> Message:
        """Send one action and return its response; repeated headers are given as a list."""
        number = f"lab-{next(self._numbers)}"
        lines = [f"Action: {name}", f"ActionID: {number}"]
        for key, value in headers.items():
            for item in value if isinstance(value, list) else [value]:
                if any(mark in item for mark in "\r\n\0"):
                    raise LabError(f"{key} of {name} holds a line end or NUL")
                lines.append(f"{key}: {item}")
        deadline = time.monotonic() + seconds
        try:
            self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        except OSError as error:
            raise LabError(f"the lab's PBX dropped its AMI connection: {error}") from None
        while True:
            message = _parse(self._read_until(b"\r\n\r\n", deadline))
            if message.get("ActionID") == number and "Response" in message:
                break
        if message["Response"] == "Error":
            raise LabError(f"the lab's PBX refused {name}: {message.get('Message', 'no reason given')}")
        return message

    def command(self, line: str) -> str:
        """The output of one console command."""
        return self.action("Command", Command=line).get("Output", "")

    def set(self, family: str, key: str, value: str) -> None:
        """Write to the PBX's own database; an empty value deletes."""
        if value:
            self.action("DBPut", Family=family, Key=key, Val=value)
            return
        try:
            self.action("DBDel", Family=family, Key=key)
        except LabError:
            # There was none.
            return

    def _read_until(self, end: bytes, deadline: float) -> bytes:
        while end not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LabError("the lab's PBX did not answer in time on AMI")
            self._socket.settimeout(left)
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError:
                continue
            except OSError as error:
                raise LabError(f"the lab's PBX dropped its AMI connection: {error}") from None
            if not chunk:
                raise LabError("the lab's PBX closed its AMI connection")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(end)
        return message


def _parse(raw: bytes) -> Message:
    message: Message = {}
    for line in raw.decode(errors="replace").split("\r\n"):
        key, colon, value = line.partition(": ")
        if colon:
            message[key] = f"{message[key]}\n{value}" if key == "Output" and key in message else value
    return message
