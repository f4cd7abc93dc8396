"""A TCP line to a PBX's event socket that behaves badly on demand: it delays, stalls, cuts in mid-message, resets."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing then sends RST instead of FIN."""


class Proxy:
    """Listens on `port` for any number of clients; every attribute may be changed while it runs."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.open = True
        """Whether new connections are taken."""
        self.delay = 0.0
        """Seconds by which everything from the PBX comes late."""
        self.flows = threading.Event()
        """Cleared, nothing comes from the PBX any more, and the connection stays."""
        self.flows.set()
        self.most: int | None = None
        """So many more bytes come from the PBX, then the line is cut: in the middle of a message."""
        self._lines: list[socket.socket] = []
        self._sockets: list[socket.socket] = []
        self._resets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._spawn(self._accept)

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                if not self.open:
                    raise OSError
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            self._lines += [near, far]
            self._sockets += [near, far]
            self._spawn(self._pump, near, far, False)
            self._spawn(self._pump, far, near, True)

    def _pump(self, source: socket.socket, sink: socket.socket, from_pbx: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if from_pbx:
                    self.flows.wait()
                    time.sleep(self.delay)
                    if self.most is not None:
                        data, self.most = data[: self.most], self.most - len(data)
                sink.sendall(data)
                if from_pbx and self.most is not None and self.most <= 0:
                    self.most = None
                    break
        for side in (source, sink):
            with suppress(OSError):
                side.close() if side in self._resets else side.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End every connection, in good manners."""
        for line in self._drop():
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End every connection by RST."""
        for line in self._drop():
            with suppress(OSError):
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._resets.add(line)
                # Wakes who waits for bytes, and says nothing to the other end.
                line.shutdown(socket.SHUT_RD)

    def _drop(self) -> list[socket.socket]:
        lines, self._lines = self._lines, []
        return lines

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.open = False
        self.flows.set()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for line in self._sockets:
            line.close()
