"""What the sweep finds in SQL and puts right."""

from __future__ import annotations

import threading
import zoneinfo
from datetime import timedelta
from importlib import resources
from pathlib import Path

import pytest
from doubles.company import (
    NOW,
    NUMBER,
    agent_state,
    ask,
    attempt,
    callback,
    change_site,
    found_company,
    lock,
    step,
)
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from rig import until
from sqlalchemy import func, select

from bridge.domain.attempts import AttemptState
from bridge.services import callbacks, dialling, scheduler, sweeping, zone_rules
from bridge.services.sweeping import Swept
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import AgentState, Callback, Counter, IdempotencyKey
from bridge.store.queries.switches import set_dialing

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
DIAL_QUEUE = "rq:queue:dial"


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    found_company(sessions)
    return sessions


def claim(sessions: Sessions, redis: Redis, settings: Settings, callback_id: str) -> str:
    found = dialling.claim(sessions, redis, settings, callback_id, now=NOW)
    assert found.attempt is not None
    return found.attempt


def test_nothing_to_do(company: Sessions, redis: Redis, settings: Settings) -> None:
    assert sweeping.sweep(company, redis, settings, now=NOW) == Swept()


def test_a_flushed_redis_loses_nothing(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    redis.flushall()
    assert sweeping.sweep(company, redis, settings, now=NOW + SECOND).enqueued == 0
    assert sweeping.sweep(company, redis, settings, now=NOW + 6 * SECOND).enqueued == 1
    assert redis.llen(DIAL_QUEUE) == 1
    assert sweeping.sweep(company, redis, settings, now=NOW + 7 * SECOND).enqueued == 0
    assert callback(company, made.id).queued_at == NOW + 6 * SECOND


def test_redis_down_is_tried_again(company: Sessions, settings: Settings) -> None:
    nowhere = Redis(unix_socket_path="/nonexistent/redis.sock", decode_responses=True)
    made = ask(company, nowhere, settings)
    assert sweeping.sweep(company, nowhere, settings, now=NOW + 6 * SECOND).enqueued == 0
    assert callback(company, made.id).queued_at == NOW


def test_a_chosen_time_comes(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings, when="2026-05-04T16:00", timezone="UTC")
    assert sweeping.sweep(company, redis, settings, now=NOW + 59 * MINUTE) == Swept()
    assert callback(company, made.id).status == "scheduled"
    assert sweeping.sweep(company, redis, settings, now=NOW + 60 * MINUTE) == Swept(came_due=1, enqueued=1)
    assert callback(company, made.id).status == "queued"


def test_no_jobs_without_agents_or_while_stopped(company: Sessions, redis: Redis, settings: Settings) -> None:
    later = NOW + MINUTE
    ask(company, redis, settings)
    with company.begin() as session:
        session.get_one(AgentState, "agent-1").live_calls = 1
    assert sweeping.sweep(company, redis, settings, now=later).enqueued == 0
    with company.begin() as session:
        session.get_one(AgentState, "agent-1").live_calls = 0
        set_dialing(session, stopped=True, by="test", now=NOW)
    assert sweeping.sweep(company, redis, settings, now=later).enqueued == 0
    with company.begin() as session:
        set_dialing(session, stopped=False, by="test", now=NOW)
    assert sweeping.sweep(company, redis, settings, now=later).enqueued == 1


def test_test_mode_needs_no_agent(company: Sessions, redis: Redis, settings: Settings) -> None:
    change_site(company, test_mode=True)
    with company.begin() as session:
        session.get_one(AgentState, "agent-1").state = "offline"
    ask(company, redis, settings)
    redis.flushall()
    assert sweeping.sweep(company, redis, settings, now=NOW + MINUTE).enqueued == 1


def test_oldest_first_and_not_more_than_agents_can_take(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    change_site(company, limits={"per_ip_hour": 99})
    made = [ask(company, redis, settings, f"+1646555010{n}", now=NOW + n * SECOND).id for n in range(6)]
    redis.flushall()
    assert sweeping.sweep(company, redis, settings, now=NOW + MINUTE).enqueued == 2
    fresh = [callback(company, row).queued_at == NOW + MINUTE for row in made]
    assert fresh == [True, True, False, False, False, False]


def test_expired_with_notice(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    redis.delete("rb:screens")
    assert sweeping.sweep(company, redis, settings, now=NOW + timedelta(hours=8)).expired == 1
    row = callback(company, made.id)
    assert (row.status, row.reason) == ("expired", "not_reached_in_time")
    assert [f["to"] for _, f in redis.xrange("rb:screens") if f["event"] == "status"] == [
        f"callback:{made.id}"
    ]


def test_never_sent_uses_no_try(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    held = claim(company, redis, settings, made.id)
    assert sweeping.sweep(company, redis, settings, now=NOW + 5 * SECOND) == Swept()
    assert sweeping.sweep(company, redis, settings, now=NOW + 13 * SECOND) == Swept(never_sent=1, enqueued=1)
    row = attempt(company, held)
    assert (row.state, row.reason) == ("failed", "never_sent")
    kept = callback(company, made.id)
    assert (kept.status, kept.tries, kept.held_by) == ("queued", 0, None)
    assert lock(company) is None
    assert agent_state(company).reserved_by is None


def test_a_dial_that_began_is_never_called_unsent(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    held = claim(company, redis, settings, ask(company, redis, settings).id)
    step(company, held, AttemptState.DIALING)
    assert sweeping.sweep(company, redis, settings, now=NOW + MINUTE) == Swept()
    assert attempt(company, held).state == "dialing"


def test_silence_becomes_uncertain_and_at_last_a_try(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    made = ask(company, redis, settings)
    held = claim(company, redis, settings, made.id)
    step(company, held, AttemptState.RINGING)
    later = NOW + 11 * MINUTE
    assert sweeping.sweep(company, redis, settings, now=later).unknown == 1
    assert attempt(company, held).state == "uncertain"
    assert sweeping.sweep(company, redis, settings, now=later + 14 * MINUTE) == Swept()
    swept = sweeping.sweep(company, redis, settings, now=later + 15 * MINUTE)
    assert swept.unknown == 1
    row = attempt(company, held)
    assert (row.state, row.reason) == ("failed", "outcome_unknown")
    assert callback(company, made.id).tries == 1
    assert lock(company) is None
    assert agent_state(company).reserved_by is None


def test_a_cancelled_dial_lets_go_after_two_minutes(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    made = ask(company, redis, settings)
    held = claim(company, redis, settings, made.id)
    step(company, held, AttemptState.RINGING)
    callbacks.cancel(company, redis, made.id, now=NOW)
    assert sweeping.sweep(company, redis, settings, now=NOW + MINUTE) == Swept()
    assert sweeping.sweep(company, redis, settings, now=NOW + 2 * MINUTE).freed == 2
    assert lock(company, NUMBER) is None
    assert agent_state(company).reserved_by is None


def test_an_agent_held_by_nothing_is_freed(company: Sessions, redis: Redis, settings: Settings) -> None:
    with company.begin() as session:
        session.get_one(AgentState, "agent-1").reserved_by = "gone"
    assert sweeping.sweep(company, redis, settings, now=NOW).freed == 1


def test_tidy(company: Sessions, redis: Redis, settings: Settings) -> None:
    ask(company, redis, settings, key="k")
    sweeping.tidy(company, now=NOW + timedelta(hours=23))
    with company.read() as session:
        assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 1
    sweeping.tidy(company, now=NOW + timedelta(days=3))
    with company.read() as session:
        assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 0
        assert session.scalar(select(func.count()).select_from(Counter)) == 0


def test_new_rules_of_a_zone_move_what_waits(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings, when="2026-05-05T09:00", timezone="America/New_York")
    due = callback(company, made.id).due_at
    with company.begin() as session:
        row = session.get_one(Callback, made.id)
        assert row.tzdata == zone_rules.version()
        row.due_at, row.tzdata = due + timedelta(hours=1), "2001a"
    redis.delete("rb:screens")
    assert sweeping.sweep(company, redis, settings, now=NOW) == Swept(retimed=1)
    row = callback(company, made.id)
    assert (row.due_at, row.promised_at, row.tzdata) == (due, due, zone_rules.version())
    assert [f["event"] for _, f in redis.xrange("rb:screens")] == ["status", "board"]
    assert sweeping.sweep(company, redis, settings, now=NOW) == Swept()


def test_rules_installed_while_we_run_are_noticed(
    company: Sessions, redis: Redis, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Berlin takes Moscow's rules: what waits for a wall time in Berlin comes an hour earlier."""
    made = ask(company, redis, settings, when="2026-05-05T09:00", timezone="Europe/Berlin")
    was = callback(company, made.id).due_at
    (tmp_path / "tzdata.zi").write_text("# version 2099z\n# rest\n", encoding="ascii")
    (tmp_path / "Europe").mkdir()
    old = resources.files("tzdata.zoneinfo").joinpath("Europe/Moscow").read_bytes()
    (tmp_path / "Europe" / "Berlin").write_bytes(old)
    try:
        zoneinfo.reset_tzpath([str(tmp_path)])
        assert sweeping.sweep(company, redis, settings, now=NOW) == Swept(retimed=1)
        row = callback(company, made.id)
        assert (row.due_at, row.tzdata) == (was - timedelta(hours=1), "2099z")
    finally:
        zoneinfo.reset_tzpath()
        zone_rules.refresh()
    assert sweeping.sweep(company, redis, settings, now=NOW) == Swept(retimed=1)
    assert callback(company, made.id).due_at == was


def test_a_zone_that_is_gone_leaves_the_time(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings, when="2026-05-05T09:00", timezone="Europe/Berlin")
    was = callback(company, made.id).due_at
    with company.begin() as session:
        row = session.get_one(Callback, made.id)
        row.timezone, row.tzdata = "Mars/Olympus", None
    assert sweeping.sweep(company, redis, settings, now=NOW) == Swept()
    assert (callback(company, made.id).due_at, callback(company, made.id).tzdata) == (was, zone_rules.version())


def test_the_scheduler_keeps_the_queue_short(settings: Settings, redis: Redis) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=scheduler.run, args=(settings, stop))
    thread.start()
    try:
        until(lambda: redis.llen("rq:queue:default") == 3, what="sweeps that nobody takes")
        redis.flushall()
        until(lambda: redis.llen("rq:queue:default") > 0, what="a sweep after the flush")
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert redis.llen("rq:queue:default") <= 3
