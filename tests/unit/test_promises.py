"""What a visitor is promised, and what becomes of the promise; on both databases."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest
from doubles.company import NOW, NUMBER, ask, callback, change_site, found_company, step
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis

from bridge.domain import promising
from bridge.domain.attempts import AttemptState
from bridge.services import callbacks, dialling, promises, sweeping
from bridge.services.access import Access, Role
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import AgentState, Call, Callback, PbxLease, new_id
from bridge.store.queries.switches import set_dialing

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
LEAD = timedelta(seconds=25)
"""The phone of an agent 15 s, and 10 s for all else."""


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    found_company(sessions, agents=3)
    with sessions.begin() as session:
        session.add(PbxLease(pbx="lab", holder="h", epoch=1, expires_at=NOW + timedelta(days=9), connected=True))
    change_site(sessions, limits={"per_ip_hour": 1000, "per_site_hour": 1000, "per_number_day": 1000})
    return sessions


def _stand(sessions: Sessions, *states: str, live: int = 0) -> None:
    with sessions.begin() as session:
        for number, state in enumerate(states, 1):
            row = session.get_one(AgentState, f"agent-{number}")
            row.state, row.live_calls = state, live


# --- the formula ---


def test_whoever_finds_an_idle_agent_waits_for_nobody() -> None:
    assert promising.wait_seconds(2, 3, 1, 240) == 0
    assert promising.wait_seconds(2, 3, 2, 240) > 0


@pytest.mark.parametrize(("free", "serving", "ahead"), [(0, 0, 0), (3, 2, 0), (0, 2, 501)])
def test_where_nothing_can_be_said(free: int, serving: int, ahead: int) -> None:
    assert promising.wait_seconds(free, serving, ahead, 240) is None


@pytest.mark.parametrize(
    ("stages", "x"),
    # Half of chi-square's 90 % points of 2, 4, 20 and 100 degrees of freedom, from the printed tables.
    [(1, 2.3026), (2, 3.8897), (10, 14.2060), (50, 59.2490)],
)
def test_the_quantile_is_that_of_the_tables(stages: int, x: float) -> None:
    assert promising.wait_seconds(0, 1, stages - 1, 1.0) == pytest.approx(x, abs=1e-3)


def test_it_holds_in_a_simulated_queue() -> None:
    dice = random.Random(5)
    serving, ahead, handle = 4, 9, 200.0
    said = promising.wait_seconds(0, serving, ahead, handle)
    kept = 0
    for _ in range(4000):
        free_at = sorted(dice.expovariate(1 / handle) for _ in range(serving))
        for _ in range(ahead):
            free_at[0] += dice.expovariate(1 / handle)
            free_at.sort()
        kept += free_at[0] <= said
    assert 0.88 < kept / 4000 < 0.92


def test_more_people_ahead_wait_longer_and_more_agents_less() -> None:
    waits = [promising.wait_seconds(0, 5, ahead, 100) for ahead in range(501)]
    assert waits == sorted(waits) and len(set(waits)) == 501
    assert promising.wait_seconds(0, 6, 9, 100) < waits[9]


@pytest.mark.parametrize(
    ("kept", "believed"),
    [
        ("", True),
        ("." * 19, True),
        ("+" * 16 + "." * 4, True),
        ("+" * 15 + "." * 5, False),
        ("." * 20 + "+" * 17, False),
        ("." * 20 + "+" * 18, True),
        ("." * 20 + "+" * 18 + "." * 2, True),
    ],
)
def test_belief_is_lost_below_80_and_comes_back_at_90_percent(kept: str, believed: bool) -> None:
    assert promising.believed([sign == "+" for sign in kept]) is believed


# --- what is promised ---


def test_a_free_agent(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    assert made.promised_at == NOW + LEAD == callback(company, made.id).expected_at


def test_callbacks_and_callers_stand_before(company: Sessions, redis: Redis, settings: Settings) -> None:
    _stand(company, "ready", "ready", "paused")
    times = [ask(company, redis, settings, f"+1646555010{n}").promised_at for n in range(4)]
    assert times[0] == times[1] == NOW + LEAD
    assert NOW + LEAD < times[2] < times[3]
    with company.begin() as session:
        since = NOW - MINUTE
        session.add(Call(id="c1", pbx="lab", queue="support", state="queued", started_at=since, client_id="acme"))
        session.add(Call(id="c2", pbx="lab", queue="support", state="connected", started_at=NOW, connected_at=NOW))
        session.add(Call(id="c3", pbx="else", queue="support", state="queued", started_at=NOW - MINUTE))
    later = ask(company, redis, settings, "+16465550109").promised_at
    two_agents = [promising.wait_seconds(2, 2, ahead, promising.HANDLE_SECONDS) for ahead in (3, 5)]
    assert [times[3], later] == [NOW + LEAD + timedelta(seconds=round(wait)) for wait in two_agents]


def test_who_is_in_wrap_up_will_be_there_and_who_is_paused_will_not(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    _stand(company, "wrapup", "paused", "offline")
    one = ask(company, redis, settings).promised_at
    assert one == NOW + LEAD + timedelta(seconds=round(promising.wait_seconds(0, 1, 0, promising.HANDLE_SECONDS)))
    _stand(company, "paused", "paused", "offline", live=1)
    assert ask(company, redis, settings, "+16465550102").promised_at is None


def test_what_nobody_could_keep_is_not_promised(company: Sessions, redis: Redis, settings: Settings) -> None:
    with company.begin() as session:
        set_dialing(session, stopped=True, by="x", now=NOW)
    assert ask(company, redis, settings).promised_at is None
    with company.begin() as session:
        set_dialing(session, stopped=False, by="x", now=NOW)
    _stand(company, "wrapup", "paused", "paused")
    made = [ask(company, redis, settings, f"+164655501{n}").promised_at for n in range(10, 50)]
    assert made[0] is not None
    # 40 people at four minutes each is more than two hours.
    assert made[-1] is None
    assert made == sorted(made, key=lambda at: at or NOW + timedelta(days=1))


def test_measured_talk_and_notes_take_the_place_of_the_default(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    _stand(company, "wrapup", "paused", "paused")
    with company.begin() as session:
        for number in range(promising.ENOUGH):
            ended = NOW - timedelta(hours=1)
            session.add(
                Call(
                    id=f"c{number}", pbx="lab", client_id="acme", agent_id="agent-1", direction="inbound",
                    state="ended", started_at=ended - MINUTE, ended_at=ended, talk_ms=60_000,
                    disposed_at=ended + 30 * SECOND,
                )
            )  # fmt: skip
    wait = promising.wait_seconds(0, 1, 0, 90.0)
    assert ask(company, redis, settings).promised_at == NOW + LEAD + timedelta(seconds=round(wait))


def test_a_chosen_time_needs_no_agent_now(company: Sessions, redis: Redis, settings: Settings) -> None:
    _stand(company, "paused", "paused", "paused")
    made = ask(company, redis, settings, when="2026-05-05T09:00", timezone="America/New_York")
    assert made.promised_at == callback(company, made.id).expected_at == datetime.fromisoformat("2026-05-05T13:00Z")


# --- what became of it ---


def _dial(sessions: Sessions, redis: Redis, settings: Settings, callback_id: str, now: datetime) -> str:
    found = dialling.claim(sessions, redis, settings, callback_id, now=now)
    assert found.attempt is not None
    step(sessions, found.attempt, AttemptState.DIALING, now=now)
    return found.attempt


@pytest.mark.parametrize("state", [AttemptState.RINGING, AttemptState.ANSWERED, AttemptState.CONNECTED])
@pytest.mark.parametrize(("late", "kept"), [(0, True), (60, True), (61, False)])
def test_it_is_judged_when_the_phone_rings(
    company: Sessions, redis: Redis, settings: Settings, state: AttemptState, late: int, kept: bool
) -> None:
    made = ask(company, redis, settings)
    assert made.promised_at is not None
    attempt = _dial(company, redis, settings, made.id, NOW)
    at = made.promised_at + late * SECOND
    step(company, attempt, state, now=at)
    row = callback(company, made.id)
    assert (row.rang_at, row.promise_kept, row.expected_at) == (at, kept, made.promised_at)


def test_a_next_try_makes_a_new_promise_and_the_verdict_stands(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    made = ask(company, redis, settings)
    attempt = _dial(company, redis, settings, made.id, NOW)
    late = NOW + 10 * MINUTE
    step(company, attempt, AttemptState.FAILED, "no_answer", 17, now=late)
    row = callback(company, made.id)
    assert (row.rang_at, row.promise_kept, row.expected_at) == (None, False, made.promised_at)
    assert row.promised_at is not None and row.promised_at > late
    again = _dial(company, redis, settings, made.id, row.promised_at)
    step(company, again, AttemptState.RINGING, now=row.promised_at + SECOND)
    assert callback(company, made.id).rang_at == row.promised_at + SECOND
    assert callback(company, made.id).promise_kept is False


def test_an_agent_who_does_not_answer_is_no_call_to_the_customer(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    made = ask(company, redis, settings)
    step(company, _dial(company, redis, settings, made.id, NOW), AttemptState.FAILED, "agent_no_answer", now=NOW)
    row = callback(company, made.id)
    assert (row.rang_at, row.promise_kept) == (None, None)


def test_the_sweep_finds_the_broken_ones(company: Sessions, redis: Redis, settings: Settings) -> None:
    broken, cancelled = ask(company, redis, settings), ask(company, redis, settings, "+16465550102")
    callbacks.cancel(company, redis, cancelled.id, now=NOW)
    with company.begin() as session:
        # An old row, from before promises were judged.
        session.add(
            Callback(
                id="old", client_id="acme", site_id="shop", number=NUMBER, created_at=NOW, due_at=NOW, expires_at=NOW,
                promised_at=NOW, status="done", ended_at=NOW,
            )
        )  # fmt: skip
    _stand(company, "paused", "paused", "paused")
    assert sweeping.sweep(company, redis, settings, now=NOW + LEAD + MINUTE).broken == 0
    # One is broken; the other was taken back, which is no verdict.
    assert sweeping.sweep(company, redis, settings, now=NOW + LEAD + MINUTE + SECOND).broken == 2
    assert sweeping.sweep(company, redis, settings, now=NOW + timedelta(hours=1)).broken == 0
    assert [callback(company, one).promise_kept for one in (broken.id, cancelled.id, "old")] == [False, None, None]


def test_who_cannot_keep_it_promises_nothing_until_it_can(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    def judged(count: int, good: bool, minutes: int) -> None:
        with company.begin() as session:
            for number in range(count):
                at = NOW - timedelta(minutes=minutes, seconds=number)
                session.add(
                    Callback(
                        id=new_id(), client_id="acme", site_id="shop", number=NUMBER, created_at=at, due_at=at,
                        expires_at=at, expected_at=at, promise_kept=good, status="done", ended_at=at,
                    )
                )  # fmt: skip

    judged(20, False, 300)
    made = ask(company, redis, settings)
    assert made.promised_at is None
    # Reckoned all the same, and judged: so it comes back by itself.
    assert callback(company, made.id).expected_at == NOW + LEAD
    step(company, _dial(company, redis, settings, made.id, NOW), AttemptState.RINGING, now=NOW + 20 * SECOND)
    assert callback(company, made.id).promise_kept is True
    judged(16, True, 200)
    assert ask(company, redis, settings, "+16465550102").promised_at is None
    judged(1, True, 100)
    assert ask(company, redis, settings, "+16465550103").promised_at is not None
    with company.read() as session:
        access = Access("a", "a", "A", Role.ADMINISTRATOR, None)
        (site,) = promises.kept(session, access, NOW - timedelta(hours=4))
        day, before = site["days"][:2]
        assert (day["kept"], day["broken"], day["share"], site["promising"]) == (18, 0, 1.0, True)
        assert (before["kept"], before["broken"], before["share"]) == (0, 20, 0.0)
        assert promises.counts(session, NOW + MINUTE) == [("shop", 18, 20, True)]
