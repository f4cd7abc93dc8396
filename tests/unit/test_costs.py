"""Prices by prefix, increments, budgets of a day; money without floats."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain import costs
from bridge.domain.costs import Amount, Budget, NoPrice, Price, TooDear
from bridge.domain.errors import Invalid

PENCE = Price("44", "EUR", per_minute=120_000, setup=50_000, first_seconds=30, next_seconds=6)


@given(st.integers(0, 10**15 - 1))
def test_money_is_read_as_it_was_written(micros: int) -> None:
    assert costs.read_money(costs.write_money(micros)) == micros


def test_amounts_as_people_write_them() -> None:
    read = [costs.read_money(text) for text in ("0", "12.5", "0.000001", "999999999")]
    assert read == [0, 12_500_000, 1, 999999999_000000]
    written = [costs.write_money(micros) for micros in (0, 12_500_000, 12_500, 1)]
    assert written == ["0.00", "12.50", "0.0125", "0.000001"]


@pytest.mark.parametrize("text", ["", "-1", "+1", "1,50", "1e3", "0.0000001", "1234567890", "NaN", ".5", "5.", " 1"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(Invalid):
        costs.read_money(text)


@pytest.mark.parametrize(
    ("seconds", "micros"),
    [(0, 0), (1, 110_000), (30, 110_000), (31, 122_000), (36, 122_000), (37, 134_000), (60, 170_000), (600, 1_250_000)],
)
def test_a_call_is_billed_in_its_increments(seconds: int, micros: int) -> None:
    assert PENCE.cost(seconds) == micros


@given(st.integers(1, 100_000), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 600), st.integers(1, 600))
def test_a_cost_is_never_below_the_time_and_rises_with_it(
    seconds: int, per_minute: int, setup: int, first: int, step: int
) -> None:
    price = Price("1", "EUR", per_minute, setup, first, step)
    assert price.cost(seconds) * 60 >= setup * 60 + per_minute * seconds
    assert price.cost(seconds) <= price.cost(seconds + 1)


def test_the_longest_prefix_decides() -> None:
    table = {prefix: Price(prefix, "EUR", 1) for prefix in ("4", "44", "4479", "447911", "1")}
    numbers = ("+447911123456", "+447912123456", "+442079460000", "+4930123456")
    found = [costs.longest_match(number, table) for number in numbers]
    assert [price.prefix for price in found if price] == ["447911", "4479", "44", "4"]
    assert costs.longest_match("+33123456789", table) is None


def test_what_one_call_may_come_to() -> None:
    budget = Budget(money=2_000_000, currency="EUR", seconds=3600, call_seconds=600)
    assert budget.worst(PENCE, 30) == Amount(PENCE.cost(630), 630)
    assert Budget(None, None, 3600, 60).worst(None, 30) == Amount(0, 90)
    for price in (None, Price("44", "USD", 1)):
        with pytest.raises(NoPrice):
            budget.worst(price, 30)
    with pytest.raises(TooDear):
        budget.worst(Price("44", "EUR", 1_000_000), 30)


def test_room_in_a_budget() -> None:
    both = Budget(money=100, currency="EUR", seconds=100)
    assert both.has_room(Amount(90, 90), Amount(10, 10))
    assert not both.has_room(Amount(91, 0), Amount(10, 0)) and not both.has_room(Amount(0, 91), Amount(0, 10))
    assert both.has_room(Amount(91, 91), Amount(10, 10), grants=1)
    assert Budget(None, None, None).has_room(Amount(10**9, 10**9), Amount(1, 1))


@pytest.mark.parametrize(
    ("now", "zone", "name", "ends"),
    [
        ("2026-05-04T21:59:59", "Europe/Berlin", "2026-05-04", "2026-05-04T22:00:00"),
        ("2026-05-04T22:00:00", "Europe/Berlin", "2026-05-05", "2026-05-05T22:00:00"),
        # Of 23 and 25 hours; and a day that begins at one, since midnight is skipped.
        ("2026-03-29T12:00:00", "Europe/Berlin", "2026-03-29", "2026-03-29T22:00:00"),
        ("2026-10-25T12:00:00", "Europe/Berlin", "2026-10-25", "2026-10-25T23:00:00"),
        ("2026-03-07T12:00:00", "America/Havana", "2026-03-07", "2026-03-08T05:00:00"),
    ],
)
def test_a_day_is_that_of_its_zone(now: str, zone: str, name: str, ends: str) -> None:
    day = costs.day_of(datetime.fromisoformat(now).replace(tzinfo=UTC), zone)
    assert (day.name, day.ends) == (name, datetime.fromisoformat(ends).replace(tzinfo=UTC))
