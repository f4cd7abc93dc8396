"""The stage of `ringbridge bench listener`: a PBX that plays, a Redis and a database of its own, and who listens.

The listener is `ringbridge listen` itself, in its own process, with everything it does in service. What it costs is
read from the outside, from /proc; so is what the bare library costs, which only parses the same bytes.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis import Redis

from bridge.commands.bench.traffic import NAME, TRUNKS, Kind
from bridge.domain.errors import Unavailable
from bridge.live import keys
from bridge.live.connection import DOWN, connect
from bridge.pbx.sim.ami import FakeAsterisk
from bridge.pbx.sim.esl import FakeFreeSWITCH
from bridge.services import private_redis
from bridge.settings import Pbx, Settings
from bridge.store.database import upgrade

_SECRET = "bench-only"
_PATIENCE = 60.0
_QUIET_SECONDS = 0.4
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
Fake = FakeAsterisk | FakeFreeSWITCH


@dataclass(frozen=True, slots=True)
class Process:
    """A process that is measured from the outside."""

    popen: subprocess.Popen[bytes]

    def cpu(self) -> float:
        """Seconds of CPU that all its threads have used."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_mb(self) -> float:
        """Its memory that is in use now."""
        return int(Path(f"/proc/{self.popen.pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE / 1e6

    def settle(self) -> float:
        """Wait until it has nothing to do any more; when that was (monotonic)."""
        end = time.monotonic() + _PATIENCE
        used, since = self.cpu(), time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            if self.popen.poll() is not None or time.monotonic() > end:
                raise Unavailable("who reads in the bench broke off, or did not come to its end")
            time.sleep(0.05)
            now = self.cpu()
            # A listener does little things all the time, as to renew its lease.
            if now - used > 0.03:
                used, since = now, time.monotonic()
        return since


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs while the real listener is measured."""

    fake: Fake
    redis: Redis
    listener: Process

    def counters(self) -> dict[str, float]:
        """What the listener says of itself, every five seconds."""
        said = cast(Mapping[str, str], self.redis.hgetall(keys.listen_metrics(NAME)))
        return {name: float(value) for name, value in said.items()}


@contextmanager
def bare_reader(kind: Kind) -> Iterator[tuple[Fake, Process]]:
    """The bare library, signed in to a PBX that plays."""
    with _fake(kind) as fake:
        command = [sys.executable, "-m", "bridge.commands.bench.bare", kind, str(fake.port), _SECRET]
        with _child(command, dict(os.environ)) as process:
            _until(lambda: fake.listeners > 0, process, "the bare library does not sign in")
            process.settle()
            yield fake, process


@contextmanager
def listening(kind: Kind) -> Iterator[Stage]:
    """`ringbridge listen`, connected and in step with a PBX that plays."""
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as folder, _fake(kind) as fake:
        path = Path(folder) / "ringbridge.toml"
        path.write_text(
            f'data_dir = "{folder}"\n[dialing]\nmode = "observe"\n[[pbx]]\nname = "{NAME}"\nkind = "{kind}"\n'
            f'host = "127.0.0.1"\nport = {fake.port}\nusername = "{_user(kind)}"\nsecret = "{_SECRET}"\n'
            f"trunks = {list(TRUNKS)}\n",
            encoding="utf-8",
        )
        settings = Settings(data_dir=Path(folder), pbx=(Pbx(name=NAME, secret=_SECRET),))
        with _child(private_redis.prepare(settings), dict(os.environ)) as server, _connected(settings) as redis:
            _until(lambda: _answers(redis), server, "Redis does not start")
            upgrade(settings)
            environ = {name: value for name, value in os.environ.items() if not name.startswith("RINGBRIDGE_")}
            command = [sys.executable, "-m", "bridge.cli", "listen", "--pbx", NAME]
            with _child(command, {**environ, "RINGBRIDGE_CONFIG": str(path)}) as process:
                stage = Stage(fake, redis, process)
                _until(lambda: stage.counters().get("connected") == 1, process, "the listener does not connect")
                _share_cores(process)
                yield stage


def _user(kind: Kind) -> str:
    return "ringbridge" if kind == "asterisk" else "ringbridge@default"


@contextmanager
def _fake(kind: Kind) -> Iterator[Fake]:
    fake: Fake = FakeAsterisk() if kind == "asterisk" else FakeFreeSWITCH()
    fake.any_secret = True
    with fake:
        yield fake


@contextmanager
def _child(command: list[str] | tuple[str, ...], environ: dict[str, str]) -> Iterator[Process]:
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as popen:
        try:
            yield Process(popen)
        finally:
            popen.terminate()
            try:
                popen.wait(10)
            except subprocess.TimeoutExpired:
                popen.kill()


@contextmanager
def _connected(settings: Settings) -> Iterator[Redis]:
    redis = connect(settings)
    try:
        yield redis
    finally:
        redis.close()


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except DOWN:
        return False


def _until(look: Callable[[], Any], process: Process, otherwise: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not look():
        if process.popen.poll() is not None or time.monotonic() > end:
            raise Unavailable(otherwise)
        time.sleep(0.05)


def _share_cores(listener: Process) -> None:
    """One core for the listener alone, where there is another for all that plays."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        for task in os.listdir(f"/proc/{listener.popen.pid}/task"):
            os.sched_setaffinity(int(task), cores[-1:])


def unread(fake: Fake) -> int:
    """Bytes that were sent and that the other side has not taken yet."""
    return sum(
        struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, struct.pack("i", 0)))[0] for sock in fake.sockets()
    )
