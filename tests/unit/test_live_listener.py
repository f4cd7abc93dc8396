"""The listener's parts by themselves: outbox, publisher, lease, rate and verdicts."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from rig import RedisServer, until

from bridge.domain.attempts import AttemptState
from bridge.domain.calls import CallEvent, CallEventType
from bridge.live import keys
from bridge.live.calls import CallReader, CallStream
from bridge.pbx.port import Receipts
from bridge.services import lease, standby
from bridge.services.orders import Rate
from bridge.services.publishing import Fenced, Outbox, Publisher
from bridge.services.reconcile import TOO_LATE_SECONDS, Verdict, judge
from bridge.services.standby import Standby
from bridge.settings import Pbx
from bridge.store.database import Sessions
from bridge.store.models import PbxLease
from bridge.store.queries import leases

AT = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)


def event(call: str, seq: int, kind: CallEventType = CallEventType.OFFERED) -> CallEvent:
    return CallEvent(CallEventType.STARTED if seq == 1 else kind, "lab", AT, call, seq)


def seqs(redis: Redis) -> list[tuple[str, int]]:
    return [(fields["call"], int(fields["seq"])) for _id, fields in redis.xrange(keys.CALLS)]


def publisher(redis: Redis, outbox: Outbox) -> Publisher:
    stream = CallStream(redis, "lab", 1)
    stream.raise_epoch(begin=True)
    return Publisher(stream, outbox, lambda: True, stream.live())


def test_events_and_states_go_together(redis: Redis) -> None:
    outbox = Outbox()
    sends = publisher(redis, outbox)
    outbox.add([event("c1", 1)], {"c1": "one"})
    outbox.add([event("c1", 2)], {"c1": "two", "c2": "silent"})
    assert sends.drain(5)
    assert seqs(redis) == [("c1", 1), ("c1", 2)]
    assert redis.hgetall(keys.live("lab")) == {"c1": "two", "c2": "silent"}
    outbox.add([event("c1", 3, CallEventType.ENDED)], {"c1": None})
    assert sends.drain(5)
    assert redis.hgetall(keys.live("lab")) == {"c2": "silent"}


def test_a_full_outbox_keeps_starts_and_ends_and_counts_the_rest() -> None:
    outbox = Outbox(bound=100)
    outbox.add([event("c1", 1)], {"c1": "1"})
    for seq in range(2, 101):
        outbox.add([event("c1", seq)], {"c1": str(seq)})
    outbox.add([event("c1", 101, CallEventType.ENDED)], {"c1": None})
    assert len(outbox) == 2 and outbox.dropped == 99
    chunk = outbox.take(0)
    assert chunk is not None
    assert [found.seq for found in chunk.events] == [1, 101]
    assert chunk.live == {"c1": None}


def test_even_starts_and_ends_are_bounded() -> None:
    outbox = Outbox(bound=1000)
    for number in range(5000):
        outbox.add([event(f"c{number}", 1)], {})
        assert len(outbox) <= 1000
    assert outbox.dropped + len(outbox) == 5000


def test_after_a_flush_only_what_the_recorder_lacks_is_repeated(redis: Redis) -> None:
    outbox = Outbox()
    sends = publisher(redis, outbox)
    recorder = CallReader(redis, "recorder", "one")
    recorder.read(block_ms=10)
    outbox.add([event("c1", 1)], {"c1": "1"})
    sends.drain(5)
    recorder.ack(entry.id for entry in until(lambda: recorder.read(block_ms=10)))
    sends._asked = 0.0
    outbox.add([event("c1", 2)], {"c1": "2"})
    sends.drain(5)
    redis.flushall()
    outbox.add([event("c1", 3)], {"c1": "3"})
    assert sends.drain(5)
    assert seqs(redis) == [("c1", 2), ("c1", 3)]
    assert redis.hgetall(keys.live("lab")) == {"c1": "3"}
    assert (sends.published, sends.republished, sends.gaps) == (3, 1, 0)


def test_a_flush_without_new_events_restores_the_states(redis: Redis) -> None:
    outbox = Outbox()
    sends = publisher(redis, outbox)
    outbox.add([event("c1", 1)], {"c1": "1"})
    sends.drain(5)
    redis.flushall()
    sends._looked = 0.0
    sends.step(0)
    sends._looked = 0.0
    sends.step(0)
    assert redis.hgetall(keys.live("lab")) == {"c1": "1"}
    assert redis.get(keys.epoch("lab")) == "1"
    assert seqs(redis) == []


def test_a_lease_that_is_not_ours_in_sql_is_not_restored(redis: Redis) -> None:
    outbox = Outbox()
    stream = CallStream(redis, "lab", 1)
    stream.raise_epoch(begin=True)
    sends = Publisher(stream, outbox, lambda: False, {})
    redis.flushall()
    outbox.add([event("c1", 1)], {})
    with pytest.raises(Fenced):
        sends.drain(5)
    assert redis.keys("rb:*") == []


def test_more_lost_than_remembered_is_a_gap(redis: Redis) -> None:
    outbox = Outbox()
    sends = publisher(redis, outbox)
    for seq in (1, 2, 3):
        outbox.add([event("c1", seq)], {"c1": str(seq)})
        sends.drain(5)
    sends._window.popleft()
    sends._window.popleft()
    sends._base = {"c1": "2"}
    redis.hset(keys.published("lab"), "batch", "0")
    outbox.add([event("c1", 4)], {"c1": "4"})
    assert sends.drain(5)
    assert sends.gaps == 1
    assert seqs(redis)[-2:] == [("c1", 3), ("c1", 4)]
    assert redis.hgetall(keys.live("lab")) == {"c1": "4"}


def test_one_holder_at_a_time_and_each_has_a_higher_epoch(sessions: Sessions) -> None:
    first = lease.claim(sessions, "lab", "one")
    assert first is not None and first.lease.epoch == 1 and first.is_valid()
    assert lease.claim(sessions, "lab", "two") is None
    first.release("stopped")
    second = lease.claim(sessions, "lab", "two")
    assert second is not None and second.lease.epoch == 2
    assert not first.verify() and second.verify()
    with sessions.begin() as session:
        assert not leases.renew(session, first.lease, timedelta(seconds=4), True, "")


def test_only_one_of_many_claims_wins(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else the last to come may find the first one's run out, where much else is done.
    monkeypatch.setattr(lease, "KEEP_SECONDS", 60.0)
    won: list[lease.LeaseKeeper] = []
    start = threading.Barrier(8)

    def claim(name: str) -> None:
        start.wait()
        keeper = lease.claim(sessions, "lab", name)
        if keeper is not None:
            won.append(keeper)

    threads = [threading.Thread(target=claim, args=(f"holder-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_lease_that_was_taken_is_noticed_and_its_status_written(sessions: Sessions) -> None:
    keeper = lease.claim(sessions, "lab", "one")
    assert keeper is not None
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    keeper.say(True, "connected")

    def row() -> PbxLease | None:
        with sessions.read() as session:
            return session.get(PbxLease, "lab")

    until(lambda: (found := row()) is not None and found.connected and found.detail == "connected")
    with sessions.begin() as session:
        leases.outgrow(session, keeper.lease, 7)
    until(keeper.lost.is_set)
    thread.join()
    assert not keeper.is_valid()


@pytest.fixture
def kept(sessions: Sessions) -> Iterator[lease.LeaseKeeper]:
    """A lease that its holder renews."""
    keeper = lease.claim(sessions, "lab", "one")
    assert keeper is not None
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    yield keeper
    stop.set()
    keeper.wake()
    thread.join()


def wanted_at(sessions: Sessions) -> datetime | None:
    with sessions.read() as session:
        row = session.get(PbxLease, "lab")
        assert row is not None
        return row.wanted_at


@pytest.mark.parametrize("without", ["PBX", "Redis"])
def test_a_holder_who_cannot_work_gives_way_to_who_can(
    sessions: Sessions, redis: Redis, kept: lease.LeaseKeeper, without: str
) -> None:
    kept.say(without != "PBX", "as it is")
    kept.say_redis(without == "Redis")
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = Standby(sessions, redis, Pbx(name="lab", port=server.getsockname()[1]))

        def asked() -> bool:
            other.look()
            return kept.wanted.is_set()

        until(asked, what="the holder to hear that it is wanted")
    kept.release("given up")
    taken = lease.claim(sessions, "lab", "two")
    assert taken is not None and taken.lease.epoch == 2
    assert wanted_at(sessions) is None


def test_nobody_asks_a_holder_who_is_well_nor_for_what_is_out_of_reach(
    sessions: Sessions, redis: Redis, kept: lease.LeaseKeeper, own_redis: RedisServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        kept.say(True, "connected")
        until(lambda: leases_connected(sessions))
        Standby(sessions, redis, Pbx(name="lab", port=port)).look()
        assert wanted_at(sessions) is None
        kept.say(False, "lost")
        until(lambda: not leases_connected(sessions))
        own_redis.stop()
        nowhere = Redis.from_url(own_redis.url, protocol=2)
        Standby(sessions, nowhere, Pbx(name="lab", port=port)).look()
        nowhere.close()
        assert wanted_at(sessions) is None
    Standby(sessions, redis, Pbx(name="lab", port=port)).look()
    assert wanted_at(sessions) is None
    assert not kept.wanted.is_set()


def leases_connected(sessions: Sessions) -> bool:
    with sessions.read() as session:
        row = session.get(PbxLease, "lab")
        return row is not None and row.connected


def test_who_gave_the_lease_up_leaves_it_to_others_and_asks_ever_more_seldom_in_vain(
    sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(standby, "uptime", lambda: now[0])
    other = Standby(sessions, redis, Pbx(name="lab"))
    assert not other.gives_way()
    pauses = []
    for well in (True, False, False, True, False):
        other.gave(well=well)
        assert other.gives_way()
        pauses.append(other._look_at - now[0])
        now[0] += 2.1
        assert not other.gives_way()
    assert pauses == [3, 60, 120, 3, 60]


def test_the_rate_spreads_dials_out() -> None:
    now = [100.0]
    rate = Rate(2.0, lambda: now[0])
    assert [rate.reserve() for _ in range(4)] == [0.0, 0.0, 0.5, 1.0]
    rate.give_back()
    now[0] += 1.5
    assert rate.reserve() == 0.0


SENT = AT
BOOT = AT - timedelta(hours=1)


@pytest.mark.parametrize(
    ("receipts", "seen", "boot", "now", "verdict"),
    [
        (Receipts(True, True), True, BOOT, AT, Verdict(AttemptState.DONE, None)),
        (Receipts(None, None), True, None, AT, Verdict(AttemptState.DONE, None)),
        # An older dialplan does not say who answered.
        (Receipts(True, True), False, BOOT, AT, Verdict(AttemptState.FAILED, "outcome_unknown")),
        (Receipts(True, True, True), False, BOOT, AT, Verdict(AttemptState.DONE, "end_not_seen")),
        (Receipts(True, True, True), False, AT, AT, Verdict(AttemptState.DONE, "end_not_seen")),
        (Receipts(True, True, True), True, BOOT, AT, Verdict(AttemptState.DONE, None)),
        (Receipts(True, True, False), False, BOOT, AT, Verdict(AttemptState.FAILED, "no_answer")),
        # The answer's receipt may be what was lost with the last second before a restart.
        (Receipts(True, True, False), False, AT, AT, Verdict(AttemptState.FAILED, "outcome_unknown")),
        (Receipts(True, True, False), False, None, AT, Verdict(AttemptState.FAILED, "outcome_unknown")),
        (Receipts(False, False), False, BOOT, AT, Verdict(AttemptState.FAILED, "not_dialed")),
        (Receipts(True, False), False, BOOT, AT, Verdict(AttemptState.FAILED, "not_dialed")),
        # The PBX was restarted since, or does not say: an absent receipt proves nothing.
        (Receipts(False, False), False, AT, AT, Verdict(AttemptState.FAILED, "outcome_unknown")),
        (Receipts(False, False), False, None, AT, Verdict(AttemptState.FAILED, "outcome_unknown")),
        # It cannot be known yet, and at last it never will be.
        (Receipts(None, None), False, BOOT, AT, None),
        (
            Receipts(None, None),
            False,
            BOOT,
            AT + timedelta(minutes=16),
            Verdict(AttemptState.FAILED, "outcome_unknown"),
        ),
    ],
)
def test_verdicts(
    receipts: Receipts, seen: bool, boot: datetime | None, now: datetime, verdict: Verdict | None
) -> None:
    facts = {"sent_at": SENT, "started_at": boot, "now": now, "seen_connected": seen}
    facts |= {"agent_first": True, "seen_answered": False}
    assert judge(receipts, **facts, missing_for=TOO_LATE_SECONDS) == verdict  # type: ignore[arg-type]
    # While the originate may still arrive and be begun, only what is proven is said.
    early = judge(receipts, **facts, missing_for=TOO_LATE_SECONDS - 0.1)  # type: ignore[arg-type]
    assert early == (verdict if seen or (receipts.customer and receipts.answered is not False) else None)
    # What the events said before the gap is believed too.
    facts |= {"agent_first": False, "seen_answered": True}
    heard = judge(receipts, **facts, missing_for=TOO_LATE_SECONDS)  # type: ignore[arg-type]
    assert heard == (verdict if seen else Verdict(AttemptState.FAILED, "outcome_unknown"))
    # Whoever is called before an agent may have answered and had nobody to talk with.
    facts["seen_answered"] = False
    alone = judge(receipts, **facts, missing_for=TOO_LATE_SECONDS)  # type: ignore[arg-type]
    unknown = Verdict(AttemptState.FAILED, "outcome_unknown")
    assert alone == (unknown if receipts.answered and not seen else verdict)
