"""Listeners in processes of their own, on a scripted PBX, a Redis of their own and a database: a stage for harm."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from redis import Redis
from rig import RedisServer, until

from bridge.live import keys, mailbox
from bridge.live.connection import connect
from bridge.settings import Settings
from bridge.store.database import Sessions, open_database
from bridge.store.models import Agent, AgentState, Attempt, Client, NumberLock, PbxLease
from doubles.scripted_pbx import ScriptedPbx

TESTS = Path(__file__).resolve().parents[1]
NUMBER = "+16465550107"


@dataclass
class Stage:
    """A scripted PBX, a Redis of its own, a database, and listeners that can be harmed."""

    folder: Path
    settings: Settings
    server: RedisServer
    redis: Redis
    sessions: Sessions
    pbx: ScriptedPbx
    listeners: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def listen(self) -> subprocess.Popen[bytes]:
        """Start a listener."""
        path = self.folder / "ringbridge.toml"
        path.write_text(
            f'data_dir = "{self.settings.data_dir}"\n[redis]\nurl = "{self.server.url}"\n'
            '[[pbx]]\nname = "lab"\nsecret = "s"\ncommand_secret = "s"\nmax_cps = 50\n',
            encoding="utf-8",
        )
        with (self.folder / f"listener-{len(self.listeners)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(TESTS / "doubles" / "listen.py"), str(path), str(self.pbx.port)],
                env={**os.environ, "PYTHONPATH": str(TESTS)},
                stderr=log,
            )
        self.listeners.append(process)
        return process

    def freeze(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a listener, though not while it writes: on SQLite that would stop everybody."""

        def writes() -> bool:
            with closing(sqlite3.connect(self.settings.data_dir / "ringbridge.db", timeout=0.1)) as database:
                try:
                    database.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    return True
                database.rollback()
            return False

        def frozen() -> bool:
            process.send_signal(signal.SIGSTOP)
            if not writes():
                return True
            process.send_signal(signal.SIGCONT)
            return False

        until(frozen)

    def log(self, listener: int = 0) -> str:
        return (self.folder / f"listener-{listener}.log").read_text(encoding="utf-8")

    def lease(self) -> PbxLease | None:
        with self.sessions.read() as session:
            return session.get(PbxLease, "lab")

    def holder_pid(self) -> int:
        lease = self.lease()
        return int(lease.holder.split(":")[1]) if lease and lease.connected else 0

    def wait_connected(self, pid: int | None = None) -> int:
        """Until a listener (that one) holds the lease and its PBX is up; returns its pid."""
        if pid is None:
            return until(self.holder_pid, what="a listener that is connected")
        until(lambda: self.holder_pid() == pid, what=f"listener {pid} connected")
        return pid

    def entries(self) -> list[dict[str, str]]:
        return [fields for _id, fields in self.redis.xrange(keys.CALLS)]

    def seqs(self) -> dict[str, list[int]]:
        """Call to its published sequence numbers, in the stream's order."""
        found: dict[str, list[int]] = {}
        for entry in self.entries():
            if "call" in entry:
                found.setdefault(entry["call"], []).append(int(entry["seq"]))
        return found

    def expect_seqs(self, **calls: int) -> None:
        """Every call was published from 1 to that, once and in order."""
        wanted = {call: list(range(1, last + 1)) for call, last in calls.items()}
        until(lambda: sum(map(len, self.seqs().values())) >= sum(calls.values()), what="all events published")
        assert self.seqs() == wanted

    def expect_prefixes(self) -> None:
        """Every call that happened was published from 1 without a gap, so far."""
        until(lambda: set(self.seqs()) == set(self.pbx.steps), what="every call's start")
        for seqs in self.seqs().values():
            assert seqs == list(range(1, len(seqs) + 1))

    def attempt(self, state: str = "claimed") -> str:
        """An attempt with agent and number lock."""
        now = datetime.now(UTC)
        client, agent, made = Client(name=str(uuid.uuid4()), created_at=now), None, None
        with self.sessions.begin() as session:
            session.add(client)
            session.flush()
            agent = Agent(
                username=str(uuid.uuid4()),
                password_hash="-",
                name="A",
                role="agent",
                created_at=now,
                extension="101",
            )
            session.add(agent)
            session.flush()
            made = Attempt(
                client_id=client.id,
                pbx="lab",
                agent_id=agent.id,
                agent_device="PJSIP/101",
                number=NUMBER,
                state=state,
                created_at=now,
                claimed_at=now,
                deadline_at=now + timedelta(seconds=10),
                sent_at=now if state != "claimed" else None,
            )
            session.add(made)
            session.flush()
            session.add(
                AgentState(
                    agent_id=agent.id, state="ready", since=now, device="PJSIP/101", reserved_by=made.id
                )
            )
            session.merge(NumberLock(number=NUMBER, attempt_id=made.id, since=now))
        return made.id

    def state(self, attempt: str) -> tuple[str, str | None]:
        with self.sessions.read() as session:
            row = session.get(Attempt, attempt)
            assert row is not None
            return row.state, row.reason

    def dial(self, attempt: str, seconds: float = 30) -> mailbox.Reply:
        command = mailbox.send(self.redis, "lab", "dial", {"attempt": attempt}, seconds)
        return self.reply(command)

    def reply(self, command: str) -> mailbox.Reply:
        found: list[mailbox.Reply] = []

        def look() -> bool:
            reply = mailbox.wait_reply(self.redis, command, 1)
            if reply is not None:
                found.append(reply)
            return bool(found)

        until(look, what="a reply")
        return found[0]


@contextmanager
def staged(folder: Path, settings: Settings, server: RedisServer) -> Iterator[Stage]:
    """A stage; at the end its listeners are killed and everything is closed."""
    client, sessions, pbx = connect(settings), open_database(settings), ScriptedPbx()
    stage = Stage(folder, settings, server, client, sessions, pbx)
    try:
        yield stage
    finally:
        for process in stage.listeners:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        pbx.close()
        client.close()
        sessions.close()
