"""The fences of bridge.live, against a real Redis server."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime

import pytest
from redis import Redis
from rig import RedisServer, until

from bridge.domain.calls import CallEvent, CallEventType
from bridge.live import calls, clock, connection, jobs, keys, mailbox, screens
from bridge.live.calls import CallReader, CallStream, Published
from bridge.live.connection import connect
from bridge.live.mailbox import Fence, Mailbox
from bridge.settings import RedisSection, Settings

AT = datetime(2026, 5, 4, 9, 30, 0, 123000, UTC)
STARTED = calls.encode(CallEvent(CallEventType.STARTED, "lab", AT, "c1", 1, {"from": {"name": "Zoë"}}))
OFFERED = calls.encode(CallEvent(CallEventType.OFFERED, "lab", AT, "c1", 2))
LOST = calls.encode(CallEvent(CallEventType.PBX_LOST, "lab", AT, data={"pbx": "lab"}))


def test_entry_has_the_fields_of_the_contract(redis: Redis) -> None:
    stream = CallStream(redis, "lab", 1)
    stream.raise_epoch(begin=True)
    stream.publish(1, [STARTED, LOST], {"c1": "state"})
    first, second = (fields for _id, fields in redis.xrange(keys.CALLS))
    assert first == {
        "v": "1",
        "type": "call.started",
        "call": "c1",
        "pbx": "lab",
        "seq": "1",
        "at": "2026-05-04T09:30:00.123Z",
        "data": '{"from":{"name":"Zoë"}}',
    }
    assert second == {
        "v": "1",
        "type": "pbx.lost",
        "pbx": "lab",
        "at": "2026-05-04T09:30:00.123Z",
        "data": '{"pbx":"lab"}',
    }
    assert stream.live() == {"c1": "state"}


def test_a_batch_sent_again_adds_nothing(redis: Redis) -> None:
    stream = CallStream(redis, "lab", 1)
    stream.raise_epoch(begin=True)
    answers = [stream.publish(1, [STARTED], {}), stream.publish(1, [STARTED], {})]
    assert [answer.published for answer in answers] == [Published.OK, Published.AGAIN]
    assert answers[0].id == answers[1].id
    assert redis.xlen(keys.CALLS) == 1


def test_a_later_epoch_fences_the_former(redis: Redis) -> None:
    former, later = CallStream(redis, "lab", 1), CallStream(redis, "lab", 2)
    former.raise_epoch(begin=True)
    assert later.raise_epoch(begin=True) is None
    assert former.publish(1, [STARTED], {"c1": "x"}).published is Published.FENCED
    assert former.raise_epoch() == 2
    assert not former.restore(0, {"c1": "x"})
    assert redis.xlen(keys.CALLS) == 0
    assert later.live() == {}
    assert Mailbox(redis, "lab", 1).read(1) is Fence.FENCED


def test_nothing_is_published_after_a_flush_until_it_is_restored(redis: Redis) -> None:
    stream = CallStream(redis, "lab", 1)
    stream.raise_epoch(begin=True)
    stream.publish(1, [STARTED], {"c1": "one"})
    redis.flushall()
    assert stream.publish(2, [OFFERED], {"c1": "two"}).published is Published.MISSING
    assert Mailbox(redis, "lab", 1).read(1) is Fence.MISSING
    stream.raise_epoch()
    assert stream.publish(2, [OFFERED], {"c1": "two"}).published is Published.FLUSHED
    assert stream.restore(1, {"c1": "one"})
    assert stream.publish(2, [OFFERED], {"c1": "two"}).published is Published.OK
    assert stream.live() == {"c1": "two"}


def test_a_server_that_lost_batches_says_which(redis: Redis) -> None:
    stream = CallStream(redis, "lab", 1)
    stream.raise_epoch(begin=True)
    stream.publish(1, [STARTED], {})
    answer = stream.publish(4, [OFFERED], {})
    assert (answer.published, answer.last) == (Published.BEHIND, 1)
    assert stream.look(1).published is Published.OK
    assert stream.look(3).published is Published.BEHIND


def test_the_hard_cap_cuts_and_counts(redis: Redis) -> None:
    stream = CallStream(redis, "lab", 1, cap=5)
    stream.raise_epoch(begin=True)
    stream.publish(1, [STARTED] * 8, {})
    assert redis.xlen(keys.CALLS) == 5
    assert redis.hget(keys.CALLS_CUT, "count") == "3"


def test_trimming_stops_at_what_the_recorder_has_not_acknowledged(redis: Redis) -> None:
    stream = CallStream(redis, "lab", 1)
    stream.raise_epoch(begin=True)
    for batch in range(1, 301):
        stream.publish(batch, [STARTED], {})
    assert calls.trim(redis, keep_ms=0) == 0, "nobody records yet"
    reader = CallReader(redis, calls.RECORDER, "one")
    got = until(lambda: reader.read(250, block_ms=10))
    reader.ack(entry.id for entry in got[:200])
    until(lambda: int(time.time() * 1000) > int(got[-1].id.split("-")[0]))
    calls.trim(redis, keep_ms=0)
    left = redis.xrange(keys.CALLS, count=1)[0][0]
    assert calls.id_key(left) <= calls.id_key(got[200].id)
    assert redis.xlen(keys.CALLS) < 300


def test_a_consumer_gets_back_what_it_did_not_acknowledge(redis: Redis) -> None:
    stream = CallStream(redis, "lab", 1)
    stream.raise_epoch(begin=True)
    stream.publish(1, [STARTED, OFFERED], {})
    first = CallReader(redis, "pops", "one")
    got = until(lambda: first.read(block_ms=10))
    assert [(entry.call, entry.seq) for entry in got] == [("c1", 1), ("c1", 2)]
    assert got[0].at == AT and got[0].data == {"from": {"name": "Zoë"}}
    first.ack([got[0].id])
    again = CallReader(redis, "pops", "one")
    assert [entry.seq for entry in again.read(block_ms=10)] == [2]


def test_a_dead_consumers_entries_go_to_another(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_DEAD_CONSUMER_MS", 30)
    stream = CallStream(redis, "lab", 1)
    stream.raise_epoch(begin=True)
    stream.publish(1, [STARTED], {})
    dead = CallReader(redis, "pops", "dead")
    until(lambda: dead.read(block_ms=10))
    other = CallReader(redis, "pops", "other")
    assert [entry.seq for entry in until(lambda: other.read(block_ms=10))] == [1]


def test_an_entry_that_is_no_event_is_left_out(redis: Redis) -> None:
    redis.xadd(keys.CALLS, {"strange": "thing"})
    reader = CallReader(redis, "pops", "one")
    assert reader.read(block_ms=10) == [] and reader.read(block_ms=10) == []
    assert redis.xpending(keys.CALLS, "pops")["pending"] == 0


def test_a_command_is_read_once_and_answered(redis: Redis) -> None:
    box = Mailbox(redis, "lab", 1)
    CallStream(redis, "lab", 1).raise_epoch(begin=True)
    before = clock.now_ms(redis)
    sent = mailbox.send(redis, "lab", "dial", {"attempt": "a"}, 5, to="agent:1")
    assert box.wait(1000)
    (command,) = box.read(10)  # type: ignore[misc]
    assert (command.id, command.kind, command.to, command.data) == (sent, "dial", "agent:1", {"attempt": "a"})
    assert before + 5000 <= command.deadline_ms <= clock.now_ms(redis) + 5000
    assert box.read(10) == [] and not box.wait(10)
    assert box.left_over() == [command]
    assert box.claim_dial("a", command) and not box.claim_dial("a", command)
    box.answer(command, True, "sent")
    assert mailbox.wait_reply(redis, sent, 1) == mailbox.Reply(sent, True, "sent", "")
    assert box.left_over() == [] and redis.xlen(keys.commands("lab")) == 0


def test_a_command_that_cannot_be_read_is_of_no_kind(redis: Redis) -> None:
    CallStream(redis, "lab", 1).raise_epoch(begin=True)
    redis.xadd(keys.commands("lab"), {"kind": "dial", "data": "[1"})
    (command,) = Mailbox(redis, "lab", 1).read(10)  # type: ignore[misc]
    assert command.kind == ""


def test_screens_are_replayed_after_an_id(redis: Redis) -> None:
    first = screens.publish(redis, "agent:1", "pop", {"n": 1}, id="c:1")
    screens.publish(redis, "agent:2", "pop", {"n": 2})
    screens.publish(redis, "agent:1", "call", {"n": 3})
    assert [event.data for event in screens.replay(redis, {"agent:1"}, first)] == ['{"n":3}']
    assert screens.replay(redis, {"agent:1"}, "not an id") == []
    assert [event.to for event in screens.read(redis, first, 10)] == ["agent:2", "agent:1"]
    assert screens.read(redis, screens.last_id(redis), 10) == []


def test_a_job_holds_ids_only_and_is_enqueued_once(redis: Redis) -> None:
    assert jobs.enqueue(redis, jobs.DIAL, "workers.dial.dial_callback", "cb1", job_id="dial-cb1")
    assert jobs.enqueue(redis, jobs.DIAL, "workers.dial.dial_callback", "cb1", job_id="dial-cb1")
    assert redis.llen("rq:queue:dial") == 1
    assert redis.hget("rq:job:dial-cb1", "description") == "workers.dial.dial_callback"


@pytest.mark.parametrize("harm", ["killed", "frozen"])
def test_enqueueing_gives_up_soon(harm: str, own_redis: RedisServer, settings: Settings) -> None:
    client = connect(settings.model_copy(update={"redis": RedisSection(url=own_redis.url)}))
    assert jobs.enqueue(client, jobs.DIAL, "workers.dial.dial_callback", "cb1")
    if harm == "frozen":
        own_redis.signal(signal.SIGSTOP)
    else:
        own_redis.stop()
    # Less than any other connection would wait, on a machine that does much else.
    begun = time.monotonic()
    assert not jobs.enqueue(client, jobs.DIAL, "workers.dial.dial_callback", "cb2")
    assert time.monotonic() - begun < connection._REPLY_SECONDS
    if harm == "frozen":
        own_redis.signal(signal.SIGCONT)
