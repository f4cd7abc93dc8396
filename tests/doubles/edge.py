"""`ringbridge api` as a process of its own, and a browser's side of an event stream."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rig import free_port, until

from bridge.settings import Settings


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Stream:
    """An open event stream, read by a thread."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("GET", path, headers=headers)
        # Taken now: the connection forgets it for an answer without a length.
        self.sock = self.connection.sock
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.headers = {name.lower(): value for name, value in self.response.getheaders()}
        self.events: queue.Queue[dict[str, str]] = queue.Queue()
        self.ended = threading.Event()
        self.retry = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        if self.status == 200:
            self._thread.start()
        else:
            self.body = self.response.read()

    def _read(self) -> None:
        event: dict[str, str] = {}
        try:
            for raw in self.response:
                line = raw.decode().rstrip("\n")
                if line.startswith("retry: "):
                    self.retry = line.removeprefix("retry: ")
                elif line and not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    event[name] = value
                elif not line and event:
                    if event.get("event") != "ping":
                        self.events.put(event)
                    event = {}
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass
        finally:
            self.ended.set()

    def next(self, seconds: float = 30) -> dict[str, str]:
        """The next event that is no ping."""
        return self.events.get(timeout=seconds)

    def close(self) -> None:
        """Go away, as a browser does that is closed."""
        if self._thread.is_alive() and self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self._thread.join(5)
        self.response.close()
        self.connection.close()


@dataclass
class EdgeProcess:
    """The running web."""

    settings: Settings
    port: int
    config: Path
    process: subprocess.Popen[bytes] | None = None
    streams: list[Stream] = field(default_factory=list)

    def start(self) -> None:
        """Returns when it is healthy."""
        self.spawn()
        until(self.healthy, 60, "the web is up")

    def spawn(self) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RINGBRIDGE_")}
        with (self.config.parent / "edge.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bridge.cli", "api"],
                env={**environ, "RINGBRIDGE_CONFIG": str(self.config)},
                stderr=log,
            )

    def healthy(self) -> bool:
        try:
            return self.ask("GET", "/healthz", timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        sent = dict(headers or {})
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def open(self, path: str, token: str = "", **headers: str) -> Stream:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        stream = Stream(self.port, path, sent)
        self.streams.append(stream)
        return stream

    def children(self) -> list[int]:
        """Process ids of REST: gunicorn's master."""
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def log(self) -> str:
        return (self.config.parent / "edge.log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=60)
        finally:
            if self.process.poll() is None:
                self.process.kill()

    def end(self) -> None:
        for stream in self.streams:
            stream.close()
        if self.process is not None and self.process.poll() is None:
            self.stop()


def write_config(settings: Settings, port: int, extra: str = "") -> Path:
    """A settings file that says the same as `settings`."""
    path = settings.data_dir.parent / "ringbridge.toml"
    redis_url = settings.redis.url.get_secret_value() if settings.redis.url else ""
    path.write_text(
        f"""
data_dir = "{settings.data_dir}"
[http]
bind = "127.0.0.1:{port}"
{extra}
[redis]
url = "{redis_url}"
[[pbx]]
name = "lab"
secret = "test-secret"
command_secret = "test-command-secret"
"""
    )
    return path


@pytest.fixture
def edge(settings: Settings) -> Iterator[EdgeProcess]:
    """The web on the test's database and Redis."""
    port = free_port()
    made = EdgeProcess(settings, port, write_config(settings, port))
    made.start()
    yield made
    made.end()
