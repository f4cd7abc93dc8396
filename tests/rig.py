"""What all tests stand on: polling with a deadline, a real Redis server, settings in a folder of their own."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from redis import Redis

from bridge.live.connection import DOWN
from bridge.services.private_redis import find_server
from bridge.settings import Pbx, RedisSection, Settings

T = TypeVar("T")


def until(look: Callable[[], T], seconds: float = 30.0, what: str = "") -> T:
    """Ask again and again until the answer is truthy; fails with the last answer. Give more `seconds` than needed."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what or look}; last answer {answer!r}")
        pause.wait(0.01)


def free_port() -> int:
    """A port of 127.0.0.1 for a server to come, or to come back.

    Below those that a lab takes, and those that the system gives to whoever connects or asks for any: nobody else
    has it a moment later.
    """
    for port in random.sample(range(10_000, 12_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


class RedisServer:
    """A real server on a unix socket in a folder of its own; a test may kill, stop or empty it."""

    def __init__(self, *, durable: bool = False) -> None:
        # Short, since the path of a unix socket may not be long.
        self.folder = Path(tempfile.mkdtemp(prefix="rb-", dir="/tmp"))
        self.socket = self.folder / "r.sock"
        self.url = f"unix://{self.socket}"
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        options = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        if self._durable:
            options += ["--appendonly", "yes", "--appendfsync", "everysec"]
        self._process = subprocess.Popen([find_server(), *options], stdout=subprocess.DEVNULL)
        client = Redis.from_url(self.url, protocol=2)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except DOWN:
                return False

        until(answers, what="redis-server")
        client.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kill it, as a crash does; what its append-only file has, it has."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def make_settings(folder: Path, migrated: Path, redis_url: str) -> Settings:
    """Settings with one PBX named `lab`, a migrated SQLite database and that Redis."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(migrated, folder / "ringbridge.db")
    return Settings(
        data_dir=folder,
        redis=RedisSection(url=redis_url),
        pbx=(Pbx(name="lab", secret="test-secret", command_secret="test-command-secret"),),
    )
