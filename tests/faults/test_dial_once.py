"""Real workers and a real Redis, harmed: no callback is lost, and none has two dials at once.

Where a listener is needed, a scripted one stands in: it does what a listener may do with the mailbox and SQL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from doubles.company import agent_state, ask, attempt, callback, change_site, found_company, lock
from redis import Redis
from rig import RedisServer, make_settings, until
from sqlalchemy import func, select

from bridge.commands.worker import ALIVE_SECONDS
from bridge.domain.attempts import AttemptState
from bridge.domain.errors import StateError
from bridge.live import jobs, keys
from bridge.live.connection import DOWN, connect
from bridge.services import attempts, callbacks, dialling, health, sweeping
from bridge.settings import Settings
from bridge.store.database import Sessions, open_database
from bridge.store.models import Attempt

pytestmark = pytest.mark.faults
DIAL = "workers.dial.dial_callback"


def wall() -> datetime:
    return datetime.now(UTC)


@dataclass
class Floor:
    """A database, a Redis of its own, and worker processes."""

    folder: Path
    settings: Settings
    server: RedisServer
    redis: Redis
    sessions: Sessions
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def work(self, queue: str = "dial", python: str | None = None) -> subprocess.Popen[bytes]:
        """Start a worker; `python` is run in place of the command."""
        command = ["-c", python] if python else ["-m", "bridge.cli", "worker", "--queue", queue]
        environment = {
            **os.environ,
            "RINGBRIDGE_CONFIG": str(self.folder / "ringbridge.toml"),
        }
        log = (self.folder / f"worker-{len(self.workers)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=self.folder, env=environment, stderr=log
            )
        self.workers.append(process)
        return process

    def attempts(self, callback_id: str) -> list[Attempt]:
        with self.sessions.read() as session:
            return list(
                session.scalars(
                    select(Attempt).where(Attempt.callback_id == callback_id).order_by(Attempt.created_at)
                )
            )

    def sweep(self, later: float = 0) -> sweeping.Swept:
        now = wall() + timedelta(seconds=later)
        return sweeping.sweep(self.sessions, self.redis, self.settings, now=now)

    def ask(self, number: str = "+16465550101") -> str:
        return ask(self.sessions, self.redis, self.settings, number, now=wall()).id


@pytest.fixture
def floor(own_redis: RedisServer, tmp_path: Path, migrated_database: Path) -> Iterator[Floor]:
    settings = make_settings(tmp_path / "data", migrated_database, own_redis.url)
    (tmp_path / "ringbridge.toml").write_text(
        f'data_dir = "{settings.data_dir}"\n[redis]\nurl = "{own_redis.url}"\n'
        '[[pbx]]\nname = "lab"\nsecret = "s"\ncommand_secret = "s"\n',
        encoding="utf-8",
    )
    sessions = open_database(settings)
    found_company(sessions, agents=2, now=wall())
    made = Floor(tmp_path, settings, own_redis, connect(settings), sessions)
    yield made
    for worker in made.workers:
        worker.kill()
        worker.wait()
    sessions.close()


# A worker that stops between the commit of its claim and the mailbox.
STOPS_BEFORE_MAILBOX = """
import os, pathlib, threading
from bridge.services import dialling
def never(*args, **kwargs):
    pathlib.Path("claimed").touch()
    threading.Event().wait(60)
dialling.mailbox.send = never
from bridge.cli import main
main(["worker", "--queue", "dial"])
"""


def hold(process: subprocess.Popen[bytes], redis: Redis) -> None:
    """Stop a process; what it had said to Redis is done when this returns."""
    process.send_signal(signal.SIGSTOP)
    state = Path(f"/proc/{process.pid}/stat")
    until(lambda: state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T", what="the stop")
    redis.ping()


def test_a_worker_is_known_again_after_a_flush(floor: Floor) -> None:
    """Else /readyz would send visitors away from a service that works."""

    def known() -> bool:
        parts = health.check(floor.settings, floor.sessions, floor.redis, wall())
        return not next(part.reason for part in parts if part.name == "worker dial")

    worker = floor.work()
    until(known, what="a worker")
    # Held, since one that has just begun says who it is several times within a moment.
    hold(worker, floor.redis)
    floor.redis.flushall()
    assert not known()
    worker.send_signal(signal.SIGCONT)
    until(known, what="the worker that went on")


def test_a_worker_that_was_killed_is_missed_within_half_a_minute(floor: Floor) -> None:
    worker = floor.work()
    [key] = until(lambda: floor.redis.keys("rq:worker:*"), 30, "a worker")
    # RQ's own first word holds for longer, until the first heartbeat a moment later.
    until(lambda: 0 < floor.redis.ttl(key) <= ALIVE_SECONDS, what="its heartbeat")
    worker.kill()
    worker.wait()
    assert 0 < floor.redis.ttl(key) <= ALIVE_SECONDS
    # Once that is over:
    floor.redis.delete(key)
    parts = health.check(floor.settings, floor.sessions, floor.redis, wall())
    assert "no worker runs" in next(part.reason for part in parts if part.name == "worker dial")


def test_a_worker_killed_between_claim_and_mailbox(floor: Floor) -> None:
    callback_id = floor.ask()
    dying = floor.work(python=STOPS_BEFORE_MAILBOX)
    until((floor.folder / "claimed").exists, 30, "a claim")
    dying.send_signal(signal.SIGKILL)
    dying.wait()
    (first,) = floor.attempts(callback_id)
    assert first.state == "claimed"
    assert floor.sweep() == sweeping.Swept()
    floor.work()
    with floor.sessions.begin() as session:
        session.get_one(Attempt, first.id).deadline_at = wall()
    assert floor.sweep().never_sent == 1
    # A new attempt, since the old one will never be dialled whatever comes late.
    first, second = until(
        lambda: floor.attempts(callback_id) if len(floor.attempts(callback_id)) == 2 else [], 30
    )
    assert (first.state, first.reason) == ("failed", "never_sent")
    assert second.state == "claimed"
    until(lambda: floor.redis.xlen(keys.commands("lab")) == 1)
    (entry,) = floor.redis.xrange(keys.commands("lab"))
    assert second.id in entry[1]["data"]
    assert callback(floor.sessions, callback_id).tries == 0


def test_the_same_job_twice_in_two_workers(floor: Floor) -> None:
    for _ in range(2):
        floor.work()
    # Both: else one may take all jobs while the other still starts, too early to hear a SIGTERM.
    until(lambda: len(floor.redis.keys("rq:worker:*")) == 2, what="two workers")
    callback_id = floor.ask()
    for _ in range(20):
        assert jobs.enqueue(floor.redis, jobs.DIAL, DIAL, callback_id)
    until(lambda: floor.redis.llen("rq:queue:dial") == 0, what="all jobs taken")
    for worker in floor.workers:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    assert len(floor.attempts(callback_id)) == 1
    assert floor.redis.xlen(keys.commands("lab")) == 1


TOLD_AS_IT_STARTS = """
import os, signal
from bridge.commands import worker

class Loading:
    def import_module(self, name):
        os.kill(os.getpid(), signal.SIGTERM)

worker.importlib = Loading()
worker.worker(["--queue", "dial"])
"""


def test_a_worker_that_is_told_to_end_as_it_starts(floor: Floor) -> None:
    assert floor.work(python=TOLD_AS_IT_STARTS).wait(30) == 0


def test_a_flush_after_the_form(floor: Floor) -> None:
    callback_id = floor.ask()
    floor.redis.flushall()
    floor.work()
    assert floor.sweep(later=6).enqueued == 1
    until(lambda: floor.attempts(callback_id), 30, "an attempt")


def test_redis_gone_while_workers_wait(floor: Floor) -> None:
    """Workers wait for it, or are started again; the sweep brings the work back."""
    worker = floor.work()
    until(lambda: floor.redis.keys("rq:worker:*"), 30, "a worker")
    floor.server.stop()
    made = callbacks.create(
        floor.sessions, floor.redis, floor.settings, "shop",
        callbacks.Wish(number="+16465550101"), idempotency_key=None, ip="192.0.2.1", now=wall(),
    )  # fmt: skip
    floor.server.start()

    def swept_in() -> bool:
        if worker.poll() is not None and len(floor.workers) == 1:
            assert worker.returncode != 0
            floor.work()
        try:
            floor.sweep(later=6)
        except DOWN:
            return False
        return bool(floor.attempts(made.id))

    until(swept_in, 60, "an attempt after Redis came back")


def test_a_worker_ends_its_job_and_says_no_number(floor: Floor) -> None:
    number = "+16465550123"
    callback_id = floor.ask(number)
    worker = floor.work()
    until(lambda: floor.attempts(callback_id), 30)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    said = (floor.folder / "worker-0.log").read_text(encoding="utf-8")
    assert number[2:] not in said
    assert callback_id in said


@dataclass
class ScriptedListener:
    """Takes claimed attempts for dialled by the UPDATE that a listener makes; says which it dialled."""

    sessions: Sessions
    dialled: list[str] = field(default_factory=list)

    def take(self, attempt_id: str) -> None:
        try:
            with self.sessions.begin() as session:
                row = session.get(Attempt, attempt_id, with_for_update=True)
                if row is None or row.state != AttemptState.CLAIMED:
                    return
                if not attempts.move(session, attempt_id, AttemptState.DIALING, now=wall()):
                    return
        except StateError:
            return
        self.dialled.append(attempt_id)


def race(*acts: object) -> None:
    """All of them at the same moment."""
    barrier = threading.Barrier(len(acts))

    def run(act: object) -> None:
        barrier.wait()
        assert callable(act)
        act()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_listener_sweep_and_cancel_at_the_same_moment(floor: Floor) -> None:
    """Whoever is first: what was dialled is never called unsent, and what was ended is never dialled."""
    change_site(floor.sessions, limits={"per_ip_hour": 99})
    for line in range(12):
        number = f"+164655501{line:02}"
        callback_id = floor.ask(number)
        claimed = dialling.claim(floor.sessions, floor.redis, floor.settings, callback_id, now=wall()).attempt
        assert claimed is not None
        listener = ScriptedListener(floor.sessions)
        race(
            lambda: listener.take(claimed),  # noqa: B023
            lambda: floor.sweep(later=13),
            lambda: callbacks.cancel(floor.sessions, floor.redis, callback_id, now=wall()),  # noqa: B023
        )
        row = attempt(floor.sessions, claimed)
        if listener.dialled:
            # Then the callback was cancelled on top, and the number stays locked for a while.
            assert row.state == "cancelled"
            assert lock(floor.sessions, number) is not None
        else:
            assert row.state in ("failed", "cancelled")
            assert lock(floor.sessions, number) is None
        assert callback(floor.sessions, callback_id).status == "cancelled"
        with floor.sessions.begin() as session:
            attempts.release(session, claimed)
        assert agent_state(floor.sessions).reserved_by is None
    with floor.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(Attempt)) == 12
