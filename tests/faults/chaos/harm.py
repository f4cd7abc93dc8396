"""The harm, and how what lies outside of Ringbridge is mended after it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from proxy import Proxy
from redis import Redis
from stack import Stack

from bridge.live.connection import DOWN
from ringbridge_lab.lab import Lab

from .plan import PROCESSES, Blow


class Harm:
    """Does one blow at a time; `mend` undoes what does not mend itself."""

    def __init__(self, lab: Lab, stack: Stack, proxy: Proxy, redis_url: str | None, database: Path | None) -> None:
        """`redis_url` None means the private one, which may be killed; `database` the SQLite file, if it is one."""
        self.lab, self.stack, self.proxy = lab, stack, proxy
        self.redis_url = redis_url
        self.database = database
        self.counts: Counter[str] = Counter()
        """What was done, by kind; a kill of no process is not counted."""
        self.done: list[str] = []
        self._due: list[tuple[float, Callable[[], None]]] = []
        """What mends, and when."""
        self._slow = ThreadPoolExecutor(1)
        """Commands, which take seconds on a busy machine; one after the other."""
        self._down: set[str] = set()
        """What is harmed already, and is not harmed again before it is mended."""

    def blow(self, blow: Blow) -> None:
        """Do it."""
        ways: dict[str, Callable[[Blow], int]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "kill pbx": self._kill_pbx,
            "stop pbx": self._stop_pbx,
            "kill up": self._kill_up,
            "cut link": self._cut_link,
            "stall link": self._stall_link,
            "flush redis": lambda _: self._tell_redis("FLUSHALL"),
            "restart redis": self._restart_redis,
            "cut redis clients": lambda _: self._tell_redis("CLIENT", "KILL", "SKIPME", "yes"),
            "lock database": self._lock_database,
            "stop dialing": self._stop_dialing,
        }
        name = f"{blow.way} {blow.part}" if blow.part else blow.way
        times = ways[blow.way](blow)
        if times:
            self.counts[name] += times
        self.done.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {name}{'' if times else ' (nothing to harm)'}")

    def mend(self, *, everything: bool = False) -> None:
        """Whatever was broken long enough; `up` is started again where it ended."""
        self.undo(everything=everything)
        process = self.stack.process
        if process is not None and process.poll() is not None:
            # Refused as long as what the killed one left is still being ended: then once more, at the next turn.
            self.stack.up(ready=False)

    def undo(self, *, everything: bool = False) -> None:
        """End what was to last so long: freezes, cuts, locks."""
        now = float("inf") if everything else time.monotonic()
        due = [entry for entry in self._due if entry[0] <= now]
        self._due = [entry for entry in self._due if entry not in due]
        for _, act in due:
            act()

    def _later(self, seconds: float, mend: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, mend))

    def _pids(self, part: str | None) -> list[int]:
        return [pid for pid, line in self.stack.descendants().items() if PROCESSES[part or ""] in line]

    def _kill(self, blow: Blow) -> int:
        return sum(_signal(pid, signal.SIGKILL) for pid in self._pids(blow.part))

    def _freeze(self, blow: Blow) -> int:
        pids = [pid for pid in self._pids(blow.part) if _signal(pid, signal.SIGSTOP)]

        def thaw() -> None:
            for pid in pids:
                _signal(pid, signal.SIGCONT)

        self._later(blow.seconds, thaw)
        return len(pids)

    def _kill_pbx(self, blow: Blow) -> int:
        if "pbx" in self._down:
            return 0
        self._down.add("pbx")
        self.lab.kill_company()
        # As a provider does with calls of a PBX that is gone.
        with self.lab.world_ami() as ami:
            ami.command("channel request hangup all")
        self._later(blow.seconds, self._start_pbx)
        return 1

    def _stop_pbx(self, blow: Blow) -> int:
        if "pbx" in self._down:
            return 0
        self._down.add("pbx")
        self.lab.stop_company()
        self._later(blow.seconds, self._start_pbx)
        return 1

    def _start_pbx(self) -> None:
        self.lab.start_company()
        self._down.discard("pbx")

    def _kill_up(self, _: Blow) -> int:
        process = self.stack.process
        if process is None or process.poll() is not None:
            return 0
        process.kill()
        process.wait()
        return 1

    def _cut_link(self, blow: Blow) -> int:
        """By RST or in good manners, and refused for as long as it lasts."""
        self.proxy.open = False
        self.proxy.reset() if blow.seconds * 1000 % 2 < 1 else self.proxy.cut()

        def back() -> None:
            self.proxy.open = True

        self._later(blow.seconds, back)
        return 1

    def _stall_link(self, blow: Blow) -> int:
        """The connection stays, and nothing comes."""
        self.proxy.flows.clear()
        self._later(blow.seconds, self.proxy.flows.set)
        return 1

    def _tell_redis(self, *words: str) -> int:
        url = self.redis_url or f"unix://{self.stack.folder / 'data' / 'redis.sock'}"
        try:
            with Redis.from_url(url, socket_timeout=1) as redis:
                redis.execute_command(*words)
        except DOWN:
            return 0
        return 1

    def _restart_redis(self, _: Blow) -> int:
        """An orderly end; who supervises it starts it again."""
        return 0 if self.redis_url else sum(_signal(pid, signal.SIGTERM) for pid in self._pids("redis"))

    def _lock_database(self, blow: Blow) -> int:
        if self.database is None or "database" in self._down:
            return 0
        writer = sqlite3.connect(self.database, timeout=1, isolation_level=None, check_same_thread=False)
        try:
            writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            writer.close()
            return 0
        self._down.add("database")

        def unlock() -> None:
            writer.execute("ROLLBACK")
            writer.close()
            self._down.discard("database")

        self._later(blow.seconds, unlock)
        return 1

    def _stop_dialing(self, blow: Blow) -> int:
        self._slow.submit(self._switch, "stop")

        def start() -> None:
            self._slow.submit(self._switch, "start")

        self._later(blow.seconds, start)
        return 1

    def rest(self) -> None:
        """Mend everything, for good: dialling is on."""
        self.mend(everything=True)
        self._slow.shutdown()
        self._switch("start")

    def _switch(self, way: str) -> None:
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.stack.command("dialing", way)


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
