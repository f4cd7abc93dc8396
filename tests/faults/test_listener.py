"""Listeners killed, frozen and starved of Redis: what is published and dialled stays right."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import RedisServer, make_settings, until
from doubles.scripted_pbx import ScriptedPbx
from redis import Redis
from sqlalchemy import update

from bridge.live import keys, mailbox
from bridge.live.connection import bytes_twin as raw
from bridge.live.connection import connect
from bridge.settings import Settings
from bridge.store.database import Sessions, open_database
from bridge.store.models import Agent, AgentState, Attempt, Client, NumberLock, PbxLease, Switch

pytestmark = pytest.mark.faults

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
            return until(self.holder_pid, 20, "a listener that is connected")
        until(lambda: self.holder_pid() == pid, 20, f"listener {pid} connected")
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
        until(lambda: sum(map(len, self.seqs().values())) >= sum(calls.values()), 20, "all events published")
        assert self.seqs() == wanted

    def expect_prefixes(self) -> None:
        """Every call that happened was published from 1 without a gap, so far."""
        until(lambda: set(self.seqs()) == set(self.pbx.steps), 20, "every call's start")
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

    def dial(self, attempt: str, seconds: float = 10) -> mailbox.Reply:
        command = mailbox.send(self.redis, "lab", "dial", {"attempt": attempt}, seconds)
        return self.reply(command)

    def reply(self, command: str) -> mailbox.Reply:
        found: list[mailbox.Reply] = []

        def look() -> bool:
            reply = mailbox.wait_reply(self.redis, command, 1)
            if reply is not None:
                found.append(reply)
            return bool(found)

        until(look, 20, "a reply")
        return found[0]


@pytest.fixture
def stage(tmp_path: Path, migrated_database: Path, own_redis: RedisServer) -> Iterator[Stage]:
    made = make_settings(tmp_path / "data", migrated_database, own_redis.url)
    client, sessions, pbx = connect(made), open_database(made), ScriptedPbx()
    stage = Stage(tmp_path, made, own_redis, client, sessions, pbx)
    yield stage
    for process in stage.listeners:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
    pbx.close()
    client.close()
    sessions.close()


def test_two_listeners_one_publishes(stage: Stage) -> None:
    stage.listen()
    stage.listen()
    stage.wait_connected()
    until(lambda: "standing by" in stage.log(0) + stage.log(1))
    for _ in range(5):
        stage.pbx.step("c1")
    stage.pbx.step("c1", end=True)
    stage.expect_seqs(c1=6)
    assert stage.pbx.links == 1
    assert until(lambda: stage.redis.hgetall(keys.live("lab")) == {}) is True


def test_a_killed_holder_is_followed_with_the_same_ids(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    second = stage.listen()
    for _ in range(3):
        stage.pbx.step("c1")
        stage.pbx.step("c2")
    stage.expect_seqs(c1=3, c2=3)
    stage.pbx.step("c1")
    stage.listeners[0].kill()
    stage.listeners[0].wait()
    stage.pbx.step("c1")
    stage.pbx.step("c2", end=True)
    stage.wait_connected(second.pid)
    stage.pbx.step("c1", end=True)
    stage.expect_seqs(c1=6, c2=4)
    lease = stage.lease()
    assert lease is not None and lease.epoch == 2


def test_a_frozen_holder_that_wakes_is_fenced(stage: Stage) -> None:
    first = stage.listen()
    stage.wait_connected(first.pid)
    stage.pbx.step("c1")
    stage.expect_seqs(c1=1)
    second = stage.listen()
    stage.freeze(first)
    # These lie in the frozen listener's socket when it wakes.
    stage.pbx.step("c1")
    stage.wait_connected(second.pid)
    stage.pbx.step("c1")
    attempt = stage.attempt()
    assert stage.dial(attempt).reason == "sent"
    first.send_signal(signal.SIGCONT)
    until(lambda: "lost to another" in stage.log(0), 10)
    stage.pbx.step("c1", end=True)
    stage.expect_seqs(c1=4)
    assert stage.pbx.dials == [attempt]
    assert stage.holder_pid() == second.pid


def test_a_clean_end_hands_over_at_once(stage: Stage) -> None:
    first = stage.listen()
    stage.wait_connected(first.pid)
    stage.pbx.step("c1")
    second = stage.listen()
    until(lambda: "standing by" in stage.log(1))
    first.send_signal(signal.SIGTERM)
    assert first.wait(5) == 0
    stage.wait_connected(second.pid)
    stage.pbx.step("c1", end=True)
    stage.expect_seqs(c1=2)


def test_a_flush_in_the_middle_of_calls(stage: Stage) -> None:
    first = stage.listen()
    stage.wait_connected(first.pid)
    for _ in range(3):
        stage.pbx.step("c1")
    stage.expect_seqs(c1=3)
    stage.redis.flushall()
    for _ in range(2):
        stage.pbx.step("c1")
    until(lambda: stage.seqs().get("c1") == [4, 5])
    assert stage.redis.hgetall(keys.live("lab")) == {"c1": "5"}
    # The next holder goes on from the restored state, and the mailbox works again.
    second = stage.listen()
    first.kill()
    first.wait()
    stage.wait_connected(second.pid)
    stage.pbx.step("c1", end=True)
    until(lambda: stage.seqs().get("c1") == [4, 5, 6])
    assert stage.dial(stage.attempt()).ok


def test_a_flush_repeats_what_the_recorder_had_not_acknowledged(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    stage.redis.xgroup_create(keys.CALLS, "recorder", id="0", mkstream=True)
    for _ in range(3):
        stage.pbx.step("c1")
    stage.expect_seqs(c1=3)
    stage.pbx.step("c2")
    stage.expect_seqs(c1=3, c2=1)
    # The listener asks several times a second; it learns of the group with its next look.
    until(lambda: stage.redis.hget(keys.published("lab"), "batch"))
    stage.pbx.step("c1")
    stage.expect_seqs(c1=4, c2=1)
    until(lambda: _asked_after_group(stage))
    stage.redis.flushall()
    stage.expect_seqs(c1=4, c2=1)


def _asked_after_group(stage: Stage) -> bool:
    stats = stage.redis.info("commandstats")
    return int(stats.get("cmdstat_xinfo|groups", {}).get("calls", 0)) >= 8


def test_redis_restarted_while_calls_go_on(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    stage.pbx.step("c1")
    stage.expect_seqs(c1=1)
    stage.server.stop()
    for _ in range(20):
        stage.pbx.step("c1")
    until(lambda: "Redis does not answer" in stage.log())
    stage.server.start()
    stage.pbx.step("c1", end=True)
    # The append-only file may lack its last second: what was in it is published again.
    stage.expect_seqs(c1=22)
    assert stage.dial(stage.attempt()).ok
    assert stage.log().count("Redis does not answer") <= 2, "said once per change of state"


def test_redis_comes_back_without_its_last_batches(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    stage.pbx.step("c1")
    stage.expect_seqs(c1=1)
    with raw(stage.redis) as bytes_client:
        older = {key: bytes_client.dump(key) for key in (keys.published("lab"), keys.live("lab"))}
    for _ in range(4):
        stage.pbx.step("c1")
    stage.expect_seqs(c1=5)
    # As a replica that lagged, or an append-only file without its last second, would have it.
    with raw(stage.redis) as bytes_client, bytes_client.pipeline(transaction=True) as pipe:
        for _id, _fields in stage.redis.xrange(keys.CALLS)[-4:]:
            pipe.xdel(keys.CALLS, _id)
        for key, value in older.items():
            pipe.restore(key, 0, value, replace=True)
        pipe.execute()
    stage.expect_seqs(c1=5)
    assert stage.redis.hgetall(keys.live("lab")) == {"c1": "5"}


def test_a_stale_command_is_refused(stage: Stage) -> None:
    attempt = stage.attempt()
    command = mailbox.send(stage.redis, "lab", "dial", {"attempt": attempt}, -0.001)
    stage.listen()
    reply = stage.reply(command)
    assert (reply.ok, reply.reason) == (False, "stale")
    assert stage.pbx.dials == []
    assert stage.state(attempt) == ("failed", "stale")
    with stage.sessions.read() as session:
        assert session.get(NumberLock, NUMBER) is None


def test_a_command_delivered_twice_dials_once(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    attempt = stage.attempt()
    commands = [mailbox.send(stage.redis, "lab", "dial", {"attempt": attempt}, 10) for _ in range(5)]
    reasons = Counter(stage.reply(command).reason for command in commands)
    assert reasons == {"sent": 1, "duplicate": 4}
    assert stage.pbx.dials == [attempt]
    assert stage.state(attempt)[0] == "dialing"


def test_a_flush_does_not_open_the_way_for_a_second_dial(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    attempt = stage.attempt()
    assert stage.dial(attempt).ok
    stage.redis.flushall()
    assert stage.dial(attempt).reason == "duplicate"
    assert stage.pbx.dials == [attempt]


def test_a_command_read_before_a_crash_is_not_run(stage: Stage) -> None:
    """The first holder read the dial and died: nothing was sent, and nothing is ever sent for that attempt."""
    first = stage.listen()
    stage.wait_connected(first.pid)
    # Read as the holder reads, then nothing more: what a kill between read and dial leaves.
    stage.freeze(first)
    attempt = stage.attempt()
    command = mailbox.send(stage.redis, "lab", "dial", {"attempt": attempt}, 30)
    read = mailbox.Mailbox(stage.redis, "lab", 1).read(10)
    assert isinstance(read, list) and [found.id for found in read] == [command]
    first.kill()
    first.wait()
    second = stage.listen()
    stage.wait_connected(second.pid)
    assert stage.reply(command).reason == "unknown"
    assert stage.state(attempt) == ("failed", "never_sent")
    assert stage.pbx.dials == []


def test_a_kill_in_the_middle_of_a_dial_never_dials_twice(stage: Stage) -> None:
    first = stage.listen()
    stage.wait_connected(first.pid)
    stage.pbx.answer = "silence"
    attempt = stage.attempt()
    command = mailbox.send(stage.redis, "lab", "dial", {"attempt": attempt}, 30)
    until(lambda: stage.pbx.dials == [attempt])
    first.kill()
    first.wait()
    stage.pbx.receipts[attempt] = (True, True)
    second = stage.listen()
    stage.wait_connected(second.pid)
    assert stage.reply(command).reason == "unknown"
    until(lambda: stage.state(attempt) == ("failed", "outcome_unknown"), 20)
    assert stage.pbx.dials == [attempt]
    with stage.sessions.read() as session:
        assert session.get(NumberLock, NUMBER) is None


@pytest.mark.parametrize(
    ("receipts", "verdict"),
    [((False, False), ("failed", "not_dialed")), ((True, True), ("failed", "outcome_unknown"))],
)
def test_a_dial_without_an_answer_is_judged_by_receipts(
    stage: Stage, receipts: tuple[bool, bool], verdict: tuple[str, str]
) -> None:
    stage.listen()
    stage.wait_connected()
    stage.pbx.answer = "silence"
    attempt = stage.attempt()
    stage.pbx.receipts[attempt] = receipts
    assert stage.dial(attempt).reason == "timeout"
    until(lambda: stage.state(attempt) == verdict, 20)
    assert stage.pbx.dials == [attempt]


def test_a_live_call_is_left_alone_after_a_gap(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    attempt, dead = stage.attempt(), None
    assert stage.dial(attempt).ok
    dead = stage.attempt("connected")
    stage.pbx.drop_links()
    # Judged in the same look: the one that is not alive is, the one that is alive is not.
    until(lambda: stage.state(dead)[0] == "failed", 20)
    assert stage.state(attempt)[0] == "dialing"


def test_a_refused_originate_ends_the_attempt(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    stage.pbx.answer = "refused"
    attempt = stage.attempt()
    assert stage.dial(attempt).reason == "refused"
    assert stage.state(attempt) == ("failed", "refused")


def test_stopped_dialling_refuses_at_the_last_moment(stage: Stage) -> None:
    with stage.sessions.begin() as session:
        session.add(Switch(name="dialing", value="stopped", by="test", at=datetime.now(UTC)))
    stage.listen()
    stage.wait_connected()
    attempt = stage.attempt()
    assert stage.dial(attempt).reason == "dialing_stopped"
    assert stage.state(attempt) == ("failed", "dialing_stopped")
    with stage.sessions.begin() as session:
        session.execute(update(Switch).values(value="on"))
    assert stage.dial(stage.attempt()).ok
    assert len(stage.pbx.dials) == 1


def test_hang_up_and_its_outcome_on_the_screen(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    command = mailbox.send(stage.redis, "lab", "hangup", {"call": "c1", "agent": None}, 10, to="agent:7")
    assert stage.reply(command).ok
    assert stage.pbx.hangups == ["c1"]
    (entry,) = until(lambda: stage.redis.xrange(keys.SCREENS))
    assert (entry[1]["to"], entry[1]["event"], entry[1]["id"]) == ("agent:7", "command", command)


def test_the_directory_follows_at_once(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    attempt = stage.attempt()
    stage.redis.publish(keys.CHANGED, "agents")
    with stage.sessions.read() as session:
        row = session.get(Attempt, attempt)
        assert row is not None
        agent = row.agent_id
    until(lambda: stage.pbx.directory == {"PJSIP/101": agent})


def test_redis_down_at_the_start(stage: Stage) -> None:
    stage.server.stop()
    listener = stage.listen()
    until(lambda: "Redis does not answer; waiting" in stage.log())
    lease = stage.lease()
    assert lease is not None and not lease.connected
    stage.server.start()
    stage.wait_connected(listener.pid)
    stage.pbx.step("c1")
    stage.expect_seqs(c1=1)


def test_the_end_comes_within_five_seconds_without_redis(stage: Stage) -> None:
    listener = stage.listen()
    stage.wait_connected(listener.pid)
    stage.server.signal(signal.SIGSTOP)
    stage.pbx.step("c1")
    listener.send_signal(signal.SIGTERM)
    assert listener.wait(5) == 0
    stage.server.signal(signal.SIGCONT)


def test_a_locked_database_stops_dials_but_no_events(stage: Stage) -> None:
    listener = stage.listen()
    stage.wait_connected(listener.pid)
    attempt = stage.attempt()
    with closing(sqlite3.connect(stage.settings.data_dir / "ringbridge.db", timeout=10)) as database:
        database.execute("BEGIN IMMEDIATE")
        stage.pbx.step("c1")
        stage.expect_seqs(c1=1)
        assert stage.dial(attempt).reason == "unavailable"
        until(lambda: "the lease cannot be renewed" in stage.log())
        database.rollback()
    until(lambda: "the lease is renewed again" in stage.log())
    stage.pbx.step("c1", end=True)
    stage.expect_seqs(c1=2)
    assert stage.pbx.dials == []
    assert stage.state(attempt)[0] == "claimed", "the sweep ends it once its deadline is past"
    assert stage.dial(stage.attempt()).ok


def test_a_restored_database_with_an_older_epoch(stage: Stage) -> None:
    stage.redis.set(keys.epoch("lab"), "41")
    stage.listen()
    stage.wait_connected()
    stage.pbx.step("c1")
    stage.expect_seqs(c1=1)
    lease = stage.lease()
    assert lease is not None and lease.epoch == 42


def test_a_pbx_that_goes_and_comes_is_said(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    stage.pbx.drop_links()
    wanted = ["pbx.connected", "pbx.resynced", "pbx.lost", "pbx.connected", "pbx.resynced"]
    until(lambda: [entry["type"] for entry in stage.entries()] == wanted)
    assert all("call" not in entry and "seq" not in entry for entry in stage.entries())


def test_holders_killed_again_and_again_under_load(stage: Stage) -> None:
    """Calls go on and dials are sent while every holder is killed in turn: no event twice, no attempt twice."""
    attempts = []
    for number in range(4):
        listener = stage.listen()
        stage.wait_connected(listener.pid)
        for call in range(5):
            stage.pbx.step(f"c{call}")
        stage.expect_prefixes()
        for _ in range(4):
            attempts.append(stage.attempt())
            mailbox.send(stage.redis, "lab", "dial", {"attempt": attempts[-1]}, 30)
            stage.pbx.step(f"c{number}")
        # In the middle of the burst.
        until(lambda: set(stage.pbx.dials) & set(attempts[-4:]))
        listener.kill()
        listener.wait()
        for call in range(5):
            stage.pbx.step(f"c{call}")
    last = stage.listen()
    stage.wait_connected(last.pid)
    for call in range(5):
        stage.pbx.step(f"c{call}", end=True)
    stage.expect_seqs(**{f"c{call}": stage.pbx.steps[f"c{call}"] for call in range(5)})
    assert max(Counter(stage.pbx.dials).values()) == 1
    # What was not dialled has ended, or rings at the PBX.
    until(lambda: all(stage.state(a)[0] == "failed" or a in stage.pbx.alive for a in attempts), 20)
