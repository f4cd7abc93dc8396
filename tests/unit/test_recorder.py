"""Call events into SQL: calls, agents, attempts, callbacks; each event once, whatever fails meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from doubles.company import (
    NOW,
    NUMBER,
    agent_state,
    ask,
    attempt,
    callback,
    found_company,
    lock,
    step,
)
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from rig import RedisServer, make_settings, until
from sqlalchemy import event, func, select

from bridge.domain.attempts import AttemptState
from bridge.domain.calls import CallEvent, CallEventType
from bridge.live import calls, keys
from bridge.live.connection import connect
from bridge.services import callbacks, dialling, recorder, sweeping
from bridge.services.recorder import Recorder
from bridge.settings import Settings
from bridge.store.database import Sessions, open_database
from bridge.store.models import Attempt, Call, CallAgent, CallEventRow, Customer, CustomerNumber, Did

T = CallEventType
AGENT = {"device": "PJSIP/101", "extension": "101", "number": None, "name": "A", "agent": "agent-1"}
AGENT_2 = {"device": "PJSIP/102", "extension": "102", "number": None, "name": "B", "agent": "agent-2"}
VISITOR = {"device": "PJSIP/trunk", "extension": None, "number": NUMBER, "name": None, "agent": None}
CALLER = {"device": "PJSIP/trunk", "extension": None, "number": "6465550155", "name": "Bo", "agent": None}
DID = {"device": None, "extension": None, "number": "+12125550101", "name": None, "agent": None}


class Line:
    """Writes call events as a listener does."""

    def __init__(self, redis: Redis) -> None:
        self._stream = calls.CallStream(redis, "lab", 1)
        self._stream.raise_epoch(begin=True)
        self._seq: dict[str, int] = {}
        self._batch = 0

    def say(self, call: str | None, kind: CallEventType, /, **data: Any) -> None:
        """One event more of a call."""
        seq = None
        if call is not None:
            seq = self._seq[call] = self._seq.get(call, 0) + 1
        at = NOW + timedelta(seconds=seq or 0)
        self._batch += 1
        renamed = {name.rstrip("_"): value for name, value in data.items()}
        event = CallEvent(kind, "lab", at, call, seq, renamed)
        answer = self._stream.publish(self._batch, [calls.encode(event)], {})
        assert answer.published is calls.Published.OK


@pytest.fixture
def line(sessions: Sessions, redis: Redis) -> Line:
    found_company(sessions, agents=2)
    return Line(redis)


@pytest.fixture
def recording(settings: Settings, sessions: Sessions, redis: Redis) -> Recorder:
    return Recorder(settings, sessions, redis)


def drain(recording: Recorder) -> None:
    """Until nothing is left to read; the first read makes the group."""
    recording.step(1)
    while recording.step(1):
        pass


def call(sessions: Sessions, call_id: str) -> Call:
    with sessions.read() as session:
        return session.get_one(Call, call_id)


@pytest.fixture
def dialing(sessions: Sessions, redis: Redis, settings: Settings, line: Line) -> str:
    """An attempt that is being dialled."""
    made = ask(sessions, redis, settings)
    held = dialling.claim(sessions, redis, settings, made.id, now=NOW).attempt or ""
    step(sessions, held, AttemptState.DIALING)
    return held


def start(line: Line, attempt_id: str) -> str:
    """The dialled call begins."""
    line.say(
        "c1", T.STARTED, direction="outbound", from_=AGENT, to=VISITOR, attempt=attempt_id, client="acme"
    )
    line.say("c1", T.OFFERED, party=AGENT)
    return "c1"


def end(line: Line, cause: str, q850: int | None = None, call_id: str = "c1") -> None:
    line.say(
        call_id, T.ENDED, cause=cause, q850=q850, direction="outbound", from_=AGENT, to=VISITOR,
        answered_by=None, wait_ms=4000, talk_ms=0, ended_by=None,
    )  # fmt: skip


def test_a_callback_from_ring_to_end(
    sessions: Sessions, redis: Redis, recording: Recorder, line: Line, dialing: str
) -> None:
    callback_id = attempt(sessions, dialing).callback_id or ""
    start(line, dialing)
    drain(recording)
    assert attempt(sessions, dialing).call_id == "c1"
    assert (agent_state(sessions).live_calls, callback(sessions, callback_id).status) == (1, "calling_agent")
    line.say("c1", T.OFFERED, party=VISITOR)
    drain(recording)
    assert callback(sessions, callback_id).status == "calling_customer"
    line.say("c1", T.CONNECTED, parties=[AGENT, VISITOR])
    drain(recording)
    assert callback(sessions, callback_id).status == "connected"
    end(line, "completed", 16)
    drain(recording)
    row = call(sessions, "c1")
    assert (row.state, row.cause, row.agent_id, row.client_id) == ("ended", "completed", "agent-1", "acme")
    assert (row.customer_number, row.attempt_id, row.callback_id) == (NUMBER, dialing, callback_id)
    assert (attempt(sessions, dialing).state, callback(sessions, callback_id).status) == ("done", "done")
    state = agent_state(sessions)
    assert (state.state, state.live_calls, state.reserved_by) == ("wrapup", 0, None)
    assert lock(sessions) is None
    told = [fields["event"] for _, fields in redis.xrange(keys.SCREENS) if fields["to"] == "agent:agent-1"]
    assert told == ["state"]


@pytest.mark.parametrize(
    ("cause", "q850", "reason", "status", "minutes"),
    [
        ("busy", 17, "busy", "queued", 5),
        ("no_answer", 19, "no_answer", "queued", 5),
        ("rejected", 21, "rejected", "queued", 5),
        ("failed", 34, "congestion", "queued", 5),
        ("failed", 27, "failed", "queued", 5),
        ("failed", 1, "wrong_number", "failed", 0),
        ("failed", 28, "wrong_number", "failed", 0),
        ("abandoned", 16, "abandoned", "queued", 5),
    ],
)
def test_how_a_try_fails(
    sessions: Sessions, recording: Recorder, line: Line, dialing: str,
    cause: str, q850: int, reason: str, status: str, minutes: int,
) -> None:  # fmt: skip
    start(line, dialing)
    line.say("c1", T.OFFERED, party=VISITOR)
    line.say("c1", T.UNOFFERED, party=VISITOR, reason=cause)
    end(line, cause, q850)
    drain(recording)
    row = callback(sessions, attempt(sessions, dialing).callback_id or "")
    assert (row.status, row.reason, row.tries) == (status, reason, 1)
    if minutes:
        ended = attempt(sessions, dialing).ended_at
        assert ended is not None
        assert row.due_at == ended + timedelta(minutes=minutes)


def test_no_way_to_the_number_uses_no_try_and_waits(
    sessions: Sessions, recording: Recorder, line: Line, dialing: str
) -> None:
    start(line, dialing)
    line.say("c1", T.OFFERED, party=AGENT)
    line.say("c1", T.UNOFFERED, party={**VISITOR, "device": None}, reason="unreachable")
    end(line, "failed", 20)
    drain(recording)
    row, made = callback(sessions, attempt(sessions, dialing).callback_id or ""), attempt(sessions, dialing)
    assert (row.status, row.reason, row.tries) == ("queued", "trunk_unreachable", 0)
    assert made.ended_at is not None
    assert row.due_at == made.ended_at + timedelta(minutes=5)
    assert agent_state(sessions).state != "paused"


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("no_answer", "agent_no_answer"),
        ("busy", "agent_no_answer"),
        ("rejected", "agent_no_answer"),
        ("unreachable", "agent_unreachable"),
    ],
)
def test_an_agent_who_does_not_answer(
    sessions: Sessions, recording: Recorder, line: Line, dialing: str, reason: str, wanted: str
) -> None:
    start(line, dialing)
    line.say("c1", T.UNOFFERED, party=AGENT, reason=reason)
    end(line, "no_answer", 19)
    drain(recording)
    row = attempt(sessions, dialing)
    assert (row.state, row.reason) == ("failed", wanted)
    kept = callback(sessions, row.callback_id or "")
    assert (kept.status, kept.tries, kept.held_by) == ("queued", 0, None)
    assert agent_state(sessions).state == "paused"


def test_an_agent_who_hangs_up_before_the_customer_rings(
    sessions: Sessions, recording: Recorder, line: Line, dialing: str
) -> None:
    start(line, dialing)
    end(line, "cancelled", 16)
    drain(recording)
    row = attempt(sessions, dialing)
    kept = callback(sessions, row.callback_id or "")
    assert (row.reason, kept.tries, kept.status) == ("agent_gone", 0, "queued")


def test_cancelled_before_the_pbx_showed_the_call(
    sessions: Sessions, redis: Redis, recording: Recorder, line: Line, dialing: str
) -> None:
    row = attempt(sessions, dialing)
    callbacks.cancel(sessions, redis, row.callback_id or "", now=NOW)
    assert not redis.exists(keys.commands("lab"))
    start(line, dialing)
    drain(recording)
    (entry,) = redis.xrange(keys.commands("lab"))
    assert entry[1]["kind"] == "hangup"
    assert lock(sessions) is not None
    end(line, "cancelled", 16)
    drain(recording)
    assert lock(sessions) is None
    assert agent_state(sessions).reserved_by is None
    assert callback(sessions, row.callback_id or "").status == "cancelled"


def test_an_uncertain_attempt_whose_call_lives(
    sessions: Sessions, redis: Redis, settings: Settings, recording: Recorder, line: Line, dialing: str
) -> None:
    step(sessions, dialing, AttemptState.UNCERTAIN, "timeout")
    start(line, dialing)
    line.say("c1", T.OFFERED, party=VISITOR)
    line.say("c1", T.CONNECTED, parties=[AGENT, VISITOR])
    drain(recording)
    sweeping.sweep(sessions, redis, settings, now=NOW + timedelta(minutes=30))
    assert attempt(sessions, dialing).state == "uncertain"
    assert lock(sessions) is not None
    assert callback(sessions, attempt(sessions, dialing).callback_id or "").status == "connected"
    end(line, "completed")
    drain(recording)
    assert attempt(sessions, dialing).state == "done"


def test_an_end_that_nobody_saw(sessions: Sessions, recording: Recorder, line: Line, dialing: str) -> None:
    start(line, dialing)
    end(line, "uncertain")
    drain(recording)
    assert attempt(sessions, dialing).state == "uncertain"


def test_customer_first(sessions: Sessions, recording: Recorder, line: Line, dialing: str) -> None:
    with sessions.begin() as session:
        session.get_one(Attempt, dialing).agent_first = False
    line.say("c1", T.STARTED, direction="outbound", from_=AGENT, to=VISITOR, attempt=dialing, client="acme")
    states = []
    for kind, data in (
        (T.OFFERED, {"party": VISITOR}),
        (T.OFFERED, {"party": AGENT}),
        (T.CONNECTED, {"parties": [AGENT, VISITOR]}),
    ):
        line.say("c1", kind, **data)
        drain(recording)
        states.append(attempt(sessions, dialing).state)
    assert states == ["ringing", "answered", "connected"]


def test_an_inbound_call_and_its_customer(sessions: Sessions, recording: Recorder, line: Line) -> None:
    with sessions.begin() as session:
        session.add(Did(client_id="acme", number="+12125550101", created_at=NOW))
        session.add(Customer(id="bo", client_id="acme", name="Bo", created_at=NOW))
        session.flush()
        session.add(CustomerNumber(customer_id="bo", number="+16465550155", client_id="acme"))
    line.say("i1", T.STARTED, direction="inbound", from_=CALLER, to=DID, client=None, attempt=None)
    line.say("i1", T.QUEUED, queue="support", position=1)
    line.say("i1", T.OFFERED, party=AGENT)
    line.say("i1", T.OFFERED, party=AGENT_2)
    drain(recording)
    assert [agent_state(sessions, f"agent-{n}").live_calls for n in (1, 2)] == [1, 1]
    line.say("i1", T.UNOFFERED, party=AGENT, reason="answered_elsewhere")
    line.say("i1", T.CONNECTED, parties=[CALLER, AGENT_2])
    drain(recording)
    row = call(sessions, "i1")
    assert (row.customer_number, row.customer_id, row.client_id) == ("+16465550155", "bo", "acme")
    assert (row.queue, row.agent_id, row.state) == ("support", "agent-2", "connected")
    assert [agent_state(sessions, f"agent-{n}").live_calls for n in (1, 2)] == [0, 1]
    line.say("i1", T.TRANSFERRED, kind="blind", by=AGENT_2, from_=AGENT_2, to=AGENT)
    line.say("i1", T.OFFERED, party=AGENT)
    line.say("i1", T.CONNECTED, parties=[CALLER, AGENT])
    drain(recording)
    assert [agent_state(sessions, f"agent-{n}").state for n in (1, 2)] == ["ready", "wrapup"]
    line.say(
        "i1", T.ENDED, cause="completed", q850=16, direction="inbound", from_=CALLER, to=DID,
        answered_by="person", wait_ms=10, talk_ms=20, ended_by=CALLER,
    )  # fmt: skip
    drain(recording)
    row = call(sessions, "i1")
    assert (row.agent_id, row.talk_ms, row.state) == ("agent-1", 20, "ended")
    assert agent_state(sessions).state == "wrapup"


def test_a_withheld_number_finds_nobody(sessions: Sessions, recording: Recorder, line: Line) -> None:
    hidden = {**CALLER, "number": None, "withheld": True}
    line.say("i1", T.STARTED, direction="inbound", from_=hidden, to=DID, client="acme", attempt=None)
    drain(recording)
    row = call(sessions, "i1")
    assert (row.customer_number, row.customer_id, row.client_id) == (None, None, "acme")


def test_a_consultation_that_merges_ends_no_conversation(
    sessions: Sessions, recording: Recorder, line: Line
) -> None:
    line.say("i1", T.STARTED, direction="inbound", from_=CALLER, to=DID, client="acme", attempt=None)
    line.say("i1", T.CONNECTED, parties=[CALLER, AGENT])
    line.say("k1", T.STARTED, direction="internal", from_=AGENT, to=AGENT_2, client=None, attempt=None)
    line.say("k1", T.CONNECTED, parties=[AGENT, AGENT_2])
    drain(recording)
    assert agent_state(sessions).live_calls == 2
    line.say("i1", T.TRANSFERRED, kind="attended", by=AGENT, from_=AGENT, to=AGENT_2)
    line.say("i1", T.CONNECTED, parties=[CALLER, AGENT_2])
    line.say("k1", T.MERGED, into="i1")
    drain(recording)
    assert [agent_state(sessions, f"agent-{n}").live_calls for n in (1, 2)] == [0, 1]
    assert call(sessions, "k1").merged_into == "i1"


def test_heard_twice_is_written_once(
    sessions: Sessions, redis: Redis, settings: Settings, recording: Recorder, line: Line, dialing: str
) -> None:
    start(line, dialing)
    line.say("c1", T.OFFERED, party=VISITOR)
    end(line, "busy", 17)
    drain(recording)
    redis.xgroup_setid(keys.CALLS, calls.RECORDER, "0")
    drain(Recorder(settings, sessions, redis))
    assert callback(sessions, attempt(sessions, dialing).callback_id or "").tries == 1
    with sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(CallEventRow)) == 4
        assert session.scalar(select(func.count()).select_from(CallAgent)) == 0


def test_a_calls_whole_history_is_kept_each_event_once(
    sessions: Sessions, redis: Redis, recording: Recorder, line: Line
) -> None:
    line.say("i1", T.STARTED, direction="inbound", from_=CALLER, to=DID, client="acme", attempt=None)
    line.say("k1", T.STARTED, direction="internal", from_=AGENT, to=AGENT_2, client=None, attempt=None)
    line.say("i1", T.OFFERED, party=AGENT)
    line.say(None, T.PBX_LOST, pbx="lab")
    line.say("i1", T.UNCERTAIN, since="2026-01-01T00:00:00Z", until="2026-01-01T00:00:09Z")
    # Delivered at least once: the same entries again, within one batch and in the next.
    for _, fields in redis.xrange(keys.CALLS):
        redis.xadd(keys.CALLS, fields)
    drain(recording)
    for _, fields in redis.xrange(keys.CALLS, count=5):
        redis.xadd(keys.CALLS, fields)
    drain(recording)
    with sessions.read() as session:
        found = session.execute(
            select(CallEventRow.call_id, CallEventRow.seq, CallEventRow.type, CallEventRow.data, CallEventRow.at)
            .order_by(CallEventRow.call_id, CallEventRow.seq)
        ).all()
    assert [tuple(row)[:3] for row in found] == [
        ("i1", 1, "call.started"), ("i1", 2, "call.offered"), ("i1", 3, "call.uncertain"), ("k1", 1, "call.started"),
    ]  # fmt: skip
    assert found[1].data == {"party": AGENT}
    assert found[1].at == NOW + timedelta(seconds=2)
    assert agent_state(sessions).live_calls == 1


def test_what_cannot_be_written_stops_nobody(
    sessions: Sessions, redis: Redis, recording: Recorder, line: Line
) -> None:
    before = recorder.POISON._value.get()
    redis.xadd(keys.CALLS, {"v": "1", "nonsense": "x"})
    line.say("bad", T.CONNECTED, parties=7)
    line.say("i1", T.STARTED, direction="inbound", from_=CALLER, to=DID, client="gone", attempt="gone")
    drain(recording)
    assert call(sessions, "i1").client_id is None
    assert recorder.POISON._value.get() == before + 1
    assert redis.xpending(keys.CALLS, calls.RECORDER)["pending"] == 0


def test_the_link_is_told_to_supervisors(redis: Redis, recording: Recorder, line: Line) -> None:
    line.say(None, T.PBX_LOST, pbx="lab", reason="gone")
    drain(recording)
    (told,) = [fields["data"] for _, fields in redis.xrange(keys.SCREENS)]
    assert '"kind":"link"' in told
    assert '"type":"pbx.lost"' in told


@pytest.fixture
def running(
    own_redis: RedisServer, tmp_path: Any, migrated_database: Any
) -> Iterator[tuple[Settings, Sessions]]:
    """A recorder in a thread, on a Redis that may be harmed."""
    made = make_settings(tmp_path / "own", migrated_database, own_redis.url)
    opened = open_database(made)
    found_company(opened)
    stop = threading.Event()
    thread = threading.Thread(target=recorder.run, args=(made, stop))
    thread.start()
    yield made, opened
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    opened.close()


@pytest.mark.faults
def test_redis_comes_and_goes(running: tuple[Settings, Sessions], own_redis: RedisServer) -> None:
    made, opened = running

    def recorded(call_id: str) -> bool:
        with opened.read() as session:
            return session.get(Call, call_id) is not None

    first = Line(connect(made))
    first.say("a", T.STARTED, direction=None, from_=None, to=None)
    until(lambda: recorded("a"))
    own_redis.stop()
    own_redis.start()
    connect(made).flushall()
    second = Line(connect(made))
    second.say("b", T.STARTED, direction=None, from_=None, to=None)
    until(lambda: recorded("b"))


def test_the_calls_of_a_batch_are_read_all_at_once(
    sessions: Sessions, redis: Redis, recording: Recorder, line: Line
) -> None:
    for number in range(5):
        line.say(f"q{number}", T.STARTED, direction="inbound", from_=CALLER, to=DID, client=None)
    drain(recording)
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        asked.append(" ".join(statement.split()))

    for number in range(5):
        for kind in (T.OFFERED, T.CONNECTED, T.HELD, T.RESUMED):
            line.say(f"q{number}", kind, party=None, parties=[], by=None)
    event.listen(sessions.engine, "before_cursor_execute", note)
    try:
        drain(recording)
    finally:
        event.remove(sessions.engine, "before_cursor_execute", note)
    assert {call(sessions, f"q{number}").state for number in range(5)} == {"connected"}
    assert sum(" FROM calls WHERE " in statement for statement in asked) == 1
    assert sum(statement.startswith("UPDATE calls ") for statement in asked) <= 5
