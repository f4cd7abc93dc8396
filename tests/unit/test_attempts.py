"""The state table, the policy after an attempt, and the one function that moves attempts."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from doubles.company import NOW, agent_state, ask, attempt, callback, found_company, lock, step
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from sqlalchemy import select

from bridge.domain.attempts import ENDED, IN_FLIGHT, TRANSITIONS, AttemptState, check_transition
from bridge.domain.errors import NotFound, StateError
from bridge.domain.retrying import AGENT_NO_ANSWER, NO_TRY_USED, Then, after_attempt
from bridge.services import attempts, dialling
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import AttemptChange

S = AttemptState
states = st.sampled_from(list(AttemptState))


@given(st.lists(states, min_size=1, max_size=12))
def test_no_walk_breaks_the_rules(wishes: list[AttemptState]) -> None:
    """Forwards only, an end is an end, and out of `uncertain` leads only reconciliation."""
    walk = [S.DUE]
    for wish in wishes:
        try:
            check_transition(walk[-1], wish)
        except StateError:
            assert wish not in TRANSITIONS[walk[-1]]
        else:
            walk.append(wish)
    order = list(AttemptState)
    for old, new in pairwise(walk):
        assert old not in ENDED
        if old is S.UNCERTAIN:
            assert new in (S.DONE, S.FAILED)
        elif new not in (S.FAILED, S.CANCELLED, S.UNCERTAIN):
            assert order.index(new) > order.index(old)
    assert len(walk) == len(set(walk))


def test_every_state_in_flight_can_end() -> None:
    for state in IN_FLIGHT:
        assert S.FAILED in TRANSITIONS[state]


@given(
    states.filter(lambda state: state in ENDED),
    st.one_of(st.none(), st.sampled_from([*NO_TRY_USED, "busy", "no_answer", "rejected", "failed"])),
    st.one_of(st.none(), st.integers(0, 127)),
    st.integers(0, 5),
)
def test_tries_run_out_and_nothing_is_tried_for_ever(
    state: AttemptState, reason: str | None, q850: int | None, tries: int
) -> None:
    after = after_attempt(state, reason, q850, tries)
    assert after.tries in (tries, tries + 1)
    if state is S.FAILED and reason not in NO_TRY_USED:
        assert after.tries == tries + 1
        assert (after.then is Then.AGAIN) == (after.tries < 3 and q850 not in (1, 28))
    if reason in NO_TRY_USED and state is S.FAILED:
        assert (after.then, after.tries) == (Then.AGAIN, tries)


def test_the_waits_grow() -> None:
    waits = [after_attempt(S.FAILED, "busy", 17, tries, max_tries=9).delay for tries in range(5)]
    assert [wait.total_seconds() / 60 for wait in waits] == [5, 15, 60, 60, 60]


@pytest.fixture
def claimed(sessions: Sessions, redis: Redis, settings: Settings) -> str:
    """An attempt in state claimed, of the callback of `ask`."""
    found_company(sessions, agents=2)
    made = ask(sessions, redis, settings)
    found = dialling.claim(sessions, redis, settings, made.id, now=NOW)
    assert found.attempt is not None
    return found.attempt


def test_a_claim_holds_agent_number_and_callback(sessions: Sessions, claimed: str) -> None:
    row = attempt(sessions, claimed)
    held = lock(sessions)
    assert (row.state, row.agent_id, row.agent_device) == ("claimed", "agent-1", "PJSIP/101")
    assert held is not None
    assert (held.attempt_id, held.expires_at) == (claimed, None)
    assert agent_state(sessions).reserved_by == claimed
    assert callback(sessions, row.callback_id or "").status == "calling_agent"


def test_a_whole_call_moves_the_callback_along(sessions: Sessions, claimed: str) -> None:
    callback_id = attempt(sessions, claimed).callback_id or ""
    seen = []
    for state in (S.DIALING, S.RINGING, S.ANSWERED, S.CONNECTED, S.DONE):
        assert step(sessions, claimed, state)
        assert not step(sessions, claimed, state)
        seen.append(callback(sessions, callback_id).status)
    assert seen == ["calling_agent", "calling_customer", "calling_customer", "connected", "done"]
    row = attempt(sessions, claimed)
    assert (row.reason, row.sent_at, row.ended_at) == ("completed", NOW, NOW)
    assert lock(sessions) is None
    assert agent_state(sessions).reserved_by is None
    with sessions.read() as session:
        changes = session.scalars(
            select(AttemptChange.new).where(AttemptChange.attempt_id == claimed).order_by(AttemptChange.id)
        ).all()
    assert changes == ["claimed", "dialing", "ringing", "answered", "connected", "done"]


def test_an_illegal_step_raises_and_is_counted(sessions: Sessions, claimed: str) -> None:
    step(sessions, claimed, S.FAILED, "busy")
    counter = attempts.ILLEGAL.labels("failed", "connected")
    before = counter._value.get()
    with pytest.raises(StateError):
        step(sessions, claimed, S.CONNECTED)
    assert counter._value.get() == before + 1
    assert attempt(sessions, claimed).state == "failed"


def test_an_unknown_attempt(sessions: Sessions) -> None:
    with pytest.raises(NotFound):
        step(sessions, "nobody", S.DONE)


def test_an_agent_who_does_not_answer_costs_no_try_and_is_paused(sessions: Sessions, claimed: str) -> None:
    step(sessions, claimed, S.DIALING)
    step(sessions, claimed, S.FAILED, AGENT_NO_ANSWER, over=True)
    row = callback(sessions, attempt(sessions, claimed).callback_id or "")
    assert (row.status, row.tries, row.due_at, row.held_by) == ("queued", 0, NOW, None)
    state = agent_state(sessions)
    assert (state.state, state.reason, state.reserved_by) == ("paused", "no answer", None)


def test_a_phone_that_is_not_there_is_paused_the_second_time(
    sessions: Sessions, redis: Redis, settings: Settings
) -> None:
    found_company(sessions)
    callback_id = ask(sessions, redis, settings).id
    states = []
    for minute in range(2):
        now = NOW + timedelta(minutes=minute)
        held = dialling.claim(sessions, redis, settings, callback_id, now=now).attempt or ""
        step(sessions, held, S.DIALING, now=now)
        step(sessions, held, S.UNCERTAIN, "lost", now=now)
        step(sessions, held, S.FAILED, "not_dialed", now=now, over=True)
        states.append((agent_state(sessions).state, callback(sessions, callback_id).tries))
    assert states == [("ready", 0), ("paused", 0)]


def test_three_tries_and_the_reason(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    callback_id = ask(sessions, redis, settings).id
    now, waits = NOW, []
    for _ in range(3):
        found = dialling.claim(sessions, redis, settings, callback_id, now=now)
        assert found.attempt is not None
        step(sessions, found.attempt, S.DIALING, now=now)
        step(sessions, found.attempt, S.FAILED, "busy", 17, now=now, over=True)
        row = callback(sessions, callback_id)
        waits.append((row.due_at - now).total_seconds() / 60)
        early = dialling.claim(sessions, redis, settings, callback_id, now=now)
        assert early.attempt is None
        now = row.due_at
    assert waits[:2] == [5, 15]
    assert (row.status, row.reason, row.tries) == ("failed", "busy", 3)


@pytest.mark.parametrize("q850", [1, 28])
def test_a_wrong_number_is_not_tried_again(sessions: Sessions, claimed: str, q850: int) -> None:
    step(sessions, claimed, S.DIALING)
    step(sessions, claimed, S.FAILED, "failed", q850, over=True)
    assert callback(sessions, attempt(sessions, claimed).callback_id or "").status == "failed"


def test_an_uncertain_attempt_keeps_its_number_for_15_minutes(sessions: Sessions, claimed: str) -> None:
    step(sessions, claimed, S.DIALING)
    step(sessions, claimed, S.UNCERTAIN, "timeout")
    held = lock(sessions)
    assert held is not None
    assert held.expires_at == NOW + timedelta(minutes=15)
    row = callback(sessions, attempt(sessions, claimed).callback_id or "")
    assert row.held_by == claimed
    step(sessions, claimed, S.FAILED, "outcome_unknown", over=True)
    row = callback(sessions, row.id)
    # Nobody knows whether they have talked: nobody is called twice for it, and it is not lost without a word.
    assert (row.held_by, row.tries, row.status, row.reason) == (None, 1, "failed", "outcome_unknown")


def test_a_cancelled_dial_keeps_its_number_until_the_call_is_seen_to_end(
    sessions: Sessions, claimed: str
) -> None:
    step(sessions, claimed, S.DIALING)
    step(sessions, claimed, S.CANCELLED, "cancelled_by_visitor")
    held = lock(sessions)
    assert held is not None
    assert held.expires_at is not None
    assert agent_state(sessions).reserved_by == claimed
    with sessions.begin() as session:
        attempts.release(session, claimed)
    assert lock(sessions) is None
    assert agent_state(sessions).reserved_by is None
