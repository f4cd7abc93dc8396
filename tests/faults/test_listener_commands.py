"""Commands under harm: a dial leaves at most once, and what became of it is found out."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import pytest
from doubles.listening import NUMBER, Stage
from rig import until
from sqlalchemy import update

from bridge.live import keys, mailbox
from bridge.store.models import NumberLock, Switch

pytestmark = pytest.mark.faults


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
    until(lambda: stage.state(attempt) == ("failed", "outcome_unknown"))
    assert stage.pbx.dials == [attempt]
    with stage.sessions.read() as session:
        assert session.get(NumberLock, NUMBER) is None


@pytest.mark.parametrize(
    ("receipts", "verdict"),
    [
        ((False, False), ("failed", "not_dialed")),
        ((True, True), ("failed", "outcome_unknown")),
        ((True, True, True), ("done", "end_not_seen")),
        ((True, True, False), ("failed", "no_answer")),
    ],
)
def test_a_dial_without_an_answer_is_judged_by_receipts(
    stage: Stage, receipts: tuple[bool, ...], verdict: tuple[str, str]
) -> None:
    stage.listen()
    stage.wait_connected()
    stage.pbx.answer = "silence"
    attempt = stage.attempt()
    stage.pbx.receipts[attempt] = receipts
    assert stage.dial(attempt).reason == "timeout"
    until(lambda: stage.state(attempt) == verdict)
    assert stage.pbx.dials == [attempt]


def test_a_live_call_is_left_alone_after_a_gap(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    attempt, dead = stage.attempt(), None
    assert stage.dial(attempt).ok
    dead = stage.attempt("connected")
    stage.pbx.drop_links()
    # Judged in the same look: the one that is not alive is, the one that is alive is not.
    until(lambda: stage.state(dead)[0] == "failed")
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
    until(lambda: all(stage.state(a)[0] == "failed" or a in stage.pbx.alive for a in attempts))
