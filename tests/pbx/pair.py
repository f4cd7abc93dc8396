"""Two listeners of one real PBX, each on lines of its own to Redis, SQL and PBX, and everybody who reads what they say.

The consumers (this test, the recorder, the builder of pops) and the people of the lab are never harmed: what they see
is what counts.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import tomli_w
from redis import Redis
from rig import RedisServer, until
from stack import pbx_table

from bridge.live import keys, mailbox
from bridge.live.connection import connect
from bridge.settings import Settings, load
from bridge.store.database import Sessions, open_database, upgrade
from bridge.store.models import Agent, AgentState, Attempt, Client, Did, NumberLock, PbxLease
from bridge.uptime import uptime
from ringbridge_lab.lab import EXTENSIONS, Lab

NEXT = "standing by"
HOLDS = "holding the lease"


class Line:
    """A TCP port that leads to a server, until somebody cuts the cable."""

    def __init__(self, target: int | Path) -> None:
        self._target = target
        self._whole = True
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._spawn(self._accept)

    def cut(self) -> None:
        """Nothing passes any more, and nobody gets through."""
        self._whole = False
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(10)
        for end in self._ends:
            end.close()

    def _spawn(self, work: Callable[..., None], *given: object) -> None:
        self._threads.append(threading.Thread(target=work, args=given, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = self._reach() if self._whole else None
            except OSError:
                far = None
            if far is None:
                near.close()
                continue
            self._ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                self._spawn(self._pump, source, sink)
            if not self._whole:
                self.cut()

    def _reach(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target), 5)
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(str(self._target))
        except OSError:
            far.close()
            raise
        return far

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            source.settimeout(None)
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Listener:
    """`ringbridge listen`, and its own lines."""

    name: str
    folder: Path
    lines: dict[str, Line]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = ringbridge(self.folder, "listen", "--pbx", "lab")

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def log(self) -> str:
        return (self.folder / "listen.log").read_text(encoding="utf-8", errors="replace")

    def stands_by(self) -> bool:
        text = self.log()
        return text.rfind(NEXT) > text.rfind(HOLDS)


def ringbridge(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """A command on the settings of that folder."""
    with (folder / f"{command[0]}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "bridge.cli", *command],
            env={**os.environ, "RINGBRIDGE_CONFIG": str(folder / "ringbridge.toml")},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


class Consumer:
    """Reads a stream as anybody may, and notes when each entry came."""

    def __init__(self, redis: Redis, stream: str) -> None:
        self._redis, self._stream = redis, stream
        self.entries: list[tuple[float, Mapping[str, str]]] = []
        self._over = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        after = "0-0"
        while not self._over:
            for entry, fields in (cast(Any, self._redis.xread({self._stream: after}, block=200)) or [("", ())])[0][1]:
                after = entry
                self.entries.append((uptime(), fields))

    def close(self) -> None:
        self._over = True
        self._thread.join(5)
        self._redis.close()

    def since(self, at: float, kind: str) -> float | None:
        """How long after `at` the first entry of that type came."""
        return next((came - at for came, fields in list(self.entries) if came > at and fields["type"] == kind), None)


@dataclass
class Pair:
    """The two listeners, and what is around them."""

    lab: Lab
    settings: Settings
    redis: Redis
    sessions: Sessions
    listeners: tuple[Listener, Listener]
    calls: Consumer
    screens: Consumer
    agents: dict[str, str]
    client: str
    attempts: list[str] = field(default_factory=list)

    def holder(self) -> Listener | None:
        """Who has the lease and a PBX."""
        with self.sessions.read() as session:
            lease = session.get(PbxLease, "lab")
        if lease is None or not lease.connected:
            return None
        pid = int(lease.holder.split(":")[1])
        return next((one for one in self.listeners if one.pid == pid), None)

    def ready(self) -> Listener:
        """Wait until one holds the lease with its PBX up and the other stands by; who holds it."""

        def look() -> Listener | None:
            holder = self.holder()
            if holder is None:
                return None
            [other] = [one for one in self.listeners if one is not holder]
            return holder if other.stands_by() and other.process and other.process.poll() is None else None

        return cast(Listener, self.until(look, 240, "one holds and one stands by"))

    def until(self, look: Callable[[], object], seconds: float, what: str) -> object:
        """As `rig.until`, with what the listeners said when it failed."""
        try:
            return until(look, seconds, what)
        except AssertionError as error:
            states = [f"{one.name}: {one.pid}, {one.process and one.process.poll()}" for one in self.listeners]
            raise AssertionError(f"{error}\n{states}\n{self.logs()}") from None

    def logs(self) -> str:
        return "\n".join(f"--- {one.name}\n{one.log()[-3000:]}" for one in self.listeners)

    def dial(self, number: str, extension: str, *, agent_first: bool) -> str:
        """An attempt of ours, as dispatch claims and sends it."""
        now = datetime.now(UTC)
        with self.sessions.begin() as session:
            made = Attempt(
                client_id=self.client, pbx="lab", agent_id=self.agents[extension],
                agent_device=self.lab.device(extension), number=number, agent_first=agent_first, state="claimed",
                created_at=now, claimed_at=now, deadline_at=now + timedelta(seconds=10),
            )  # fmt: skip
            session.add(made)
            session.flush()
            session.add(NumberLock(number=number, attempt_id=made.id, since=now))
        self.attempts.append(made.id)
        mailbox.send(self.redis, "lab", "dial", {"attempt": made.id}, 10)
        return made.id


def _settings(folder: Path, lab: Lab, redis: str, database: str, port: int | None = None) -> Settings:
    folder.mkdir(parents=True)
    table = pbx_table(lab, max_cps=50, **({} if port is None else {"port": port}))
    text = {
        "data_dir": "data",
        "redis": {"url": redis},
        "database": {"url": database},
        "dialing": {"agent_ring_seconds": 10, "customer_ring_seconds": 6},
        "pbx": [table],
    }
    path = folder / "ringbridge.toml"
    path.write_text(tomli_w.dumps(text), encoding="utf-8")
    return load(path, {})


def _company(lab: Lab, sessions: Sessions) -> tuple[str, dict[str, str]]:
    """One client with every DID of the lab, and an agent at each phone."""
    now = datetime.now(UTC)
    agents: dict[str, str] = {}
    with sessions.begin() as session:
        client = Client(name="Acme", created_at=now)
        session.add(client)
        session.flush()
        for last in (*EXTENSIONS, "110", "120", "130", "180"):
            session.add(Did(client_id=client.id, number=f"+12125550{last}", created_at=now))
        for extension in EXTENSIONS:
            agent = Agent(
                username=f"agent{extension}", password_hash="-", name=f"Agent {extension}", role="agent",
                created_at=now, extension=extension, devices=[lab.device(extension)],
            )  # fmt: skip
            session.add(agent)
            session.flush()
            agents[extension] = agent.id
            state = AgentState(agent_id=agent.id, state="ready", since=now, pbx="lab")
            state.device = lab.device(extension)
            session.add(state)
        return client.id, agents


@contextmanager
def paired(lab: Lab, folder: Path, server: RedisServer, postgres: str, database: str) -> Iterator[Pair]:
    """Two listeners beside the lab; `postgres` is the folder of the database server's socket."""
    direct = _settings(folder / "direct", lab, server.url, f"postgresql://ringbridge@/{database}?host={postgres}")
    upgrade(direct)
    redis, sessions = connect(direct), open_database(direct)
    client, agents = _company(lab, sessions)
    listeners = []
    for name in ("one", "two"):
        lines = {
            "redis": Line(server.socket),
            "sql": Line(Path(postgres) / ".s.PGSQL.5432"),
            "pbx": Line(int(lab.info["company"]["port"])),
        }
        _settings(
            folder / name, lab, f"redis://127.0.0.1:{lines['redis'].port}/0",
            f"postgresql://ringbridge@127.0.0.1:{lines['sql'].port}/{database}", lines["pbx"].port,
        )  # fmt: skip
        listeners.append(Listener(name, folder / name, lines))
    others = [ringbridge(folder / "direct", part) for part in ("recorder", "pops")]
    readers = Consumer(connect(direct), keys.CALLS), Consumer(connect(direct), keys.SCREENS)
    pair = Pair(lab, direct, redis, sessions, (listeners[0], listeners[1]), *readers, agents, client)
    try:
        until(lambda: "pop builder ready" in (folder / "direct" / "pops.log").read_text(), 240, "the builder of pops")
        for one in listeners:
            one.start()
        yield pair
    finally:
        for process in (*(one.process for one in listeners), *others):
            if process is not None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        for one in listeners:
            for line in one.lines.values():
                line.close()
        for reader in readers:
            reader.close()
        redis.close()
        sessions.close()
