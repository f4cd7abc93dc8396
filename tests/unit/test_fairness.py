"""Whose turn it is: properties that hold for every line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.fairness import Place, ahead, may_go

START = datetime(2026, 5, 4, 15, 0, tzinfo=UTC)
places = st.builds(
    Place,
    # Few instants, so that many join at once.
    joined_at=st.integers(0, 12).map(lambda minutes: START + timedelta(minutes=minutes)),
    is_callback=st.booleans(),
    id=st.text("abc", min_size=1, max_size=3),
)
lines = st.lists(places, max_size=12, unique=True)
free = st.integers(0, 6)


def going(line: list[Place], agents: int) -> list[Place]:
    return [place for place in line if place.is_callback and may_go(place, line, agents)]


@given(lines, free)
def test_serving_the_line_from_its_front_calls_the_same(line: list[Place], agents: int) -> None:
    served = sorted(line)[:agents]
    assert sorted(going(line, agents)) == [place for place in served if place.is_callback]


@given(lines, free)
def test_nobody_is_overtaken(line: list[Place], agents: int) -> None:
    for called in going(line, agents):
        before = [place for place in line if place.joined_at < called.joined_at]
        assert len(before) < agents


@given(lines, free)
def test_never_more_in_flight_than_agents_can_take(line: list[Place], agents: int) -> None:
    assert len(going(line, agents)) <= agents


@given(lines, free)
def test_one_claim_after_another_is_as_all_at_once(line: list[Place], agents: int) -> None:
    """Each claim takes its callback out of the line and an agent from the free; nobody else gets a turn by it."""
    allowed = set(going(line, agents))
    left, still = list(line), agents
    for place in sorted(allowed, reverse=True):
        assert may_go(place, left, still)
        left.remove(place)
        still -= 1
        assert set(going(left, still)) == {other for other in allowed if other in left}


@given(lines, free)
def test_an_agent_more_takes_nobodys_turn(line: list[Place], agents: int) -> None:
    assert set(going(line, agents)) <= set(going(line, agents + 1))


@given(lines, places, free)
def test_who_joins_later_takes_nobodys_turn(line: list[Place], late: Place, agents: int) -> None:
    for place in line:
        if place < late:
            assert may_go(place, line, agents) == may_go(place, [*line, late], agents)


@given(lines)
def test_the_first_in_line_waits_for_no_one(line: list[Place]) -> None:
    if line:
        assert ahead(min(line), line) == 0
        assert may_go(min(line), line, 1)
        assert not may_go(min(line), line, 0)


def test_a_caller_stands_before_a_callback_of_the_same_instant() -> None:
    caller, callback = Place(START, False, "z"), Place(START, True, "a")
    assert not may_go(callback, [caller], 1)
    assert may_go(callback, [caller], 2)
