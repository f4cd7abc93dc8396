"""What calls cost: prices by prefix, increments, and budgets of a day. Money is whole micro-units, never a float."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from bridge.domain.callbacks import instant, zone
from bridge.domain.errors import Invalid

MICROS = 1_000_000
"""Of one euro, dollar or other unit: carriers' prices have up to six decimals."""
CALL_SECONDS = 600
"""How long a call is reckoned to talk at most, where a budget does not say."""
_MONEY = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")
_PREFIX = re.compile(r"\+?([1-9][0-9]{0,14})")
_CURRENCY = re.compile(r"[A-Z]{3}")


class NoPrice(Invalid):
    """There is no price for calls to this number, so it is not called."""

    code = "no_price"


class TooDear(Invalid):
    """One call to this number could cost more than a whole day may, so it is not called."""

    code = "too_dear"


def read_money(text: str, field: str = "money") -> int:
    """Micro-units of an amount such as "12.50" or "0.0125". Raises Invalid; a sign, an exponent or a comma is none."""
    if not _MONEY.fullmatch(text):
        raise Invalid('this is no amount; write it as in "12.50", with six decimals at most', field=field)
    return int(Decimal(text) * MICROS)


def write_money(micros: int) -> str:
    """The amount as people write it: "12.50", "0.0125"."""
    whole, part = divmod(micros, MICROS)
    return f"{whole}.{f'{part:06d}'.rstrip('0'):0<2}"


def read_prefix(text: str, field: str = "prefix") -> str:
    """The leading digits of E.164 without the plus. Raises Invalid."""
    found = _PREFIX.fullmatch(text)
    if found is None:
        raise Invalid('this is no prefix; write the leading digits with the country code, such as "4420"', field=field)
    return found[1]


def read_currency(text: str, field: str = "currency") -> str:
    """Raises Invalid."""
    if not _CURRENCY.fullmatch(text):
        raise Invalid('this is no currency; write its three capital letters, such as "EUR"', field=field)
    return text


@dataclass(frozen=True, slots=True)
class Price:
    """What a call to numbers that begin with `prefix` costs once somebody answers, in micro-units."""

    prefix: str
    currency: str
    per_minute: int
    setup: int = 0
    first_seconds: int = 60
    """What is billed at least."""
    next_seconds: int = 60
    """Steps in which what is longer is billed."""

    def cost(self, seconds: int) -> int:
        """Of a call of so many seconds from answer to end, rounded up; nothing where nobody answered."""
        if seconds <= 0:
            return 0
        more = -(-max(0, seconds - self.first_seconds) // self.next_seconds)
        billed = self.first_seconds + more * self.next_seconds
        return self.setup + -(-self.per_minute * billed // 60)


def prefixes_of(e164: str) -> list[str]:
    """Every prefix that a number has, the longest first."""
    digits = e164.removeprefix("+")
    return [digits[:end] for end in range(len(digits), 0, -1)]


def longest_match(e164: str, table: Mapping[str, Price]) -> Price | None:
    """The price of the longest prefix that fits."""
    return next((table[prefix] for prefix in prefixes_of(e164) if prefix in table), None)


@dataclass(frozen=True, slots=True)
class Amount:
    """Money (micro-units) and time of calls."""

    money: int = 0
    seconds: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.money + other.money, self.seconds + other.seconds)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a day's calls may come to; None is no limit of that kind."""

    money: int | None
    currency: str | None
    seconds: int | None
    call_seconds: int = CALL_SECONDS

    def worst(self, price: Price | None, ring_seconds: int) -> Amount:
        """What one call may come to: it rings as long as it may, then talks for `call_seconds`.

        Raises NoPrice where the budget is of money and the price is not, or not in its currency; TooDear where
        one such call would be more than the whole day may come to.
        """
        seconds = ring_seconds + self.call_seconds
        if self.seconds is not None and seconds > self.seconds:
            raise TooDear(field="number")
        if self.money is None:
            return Amount(0, seconds)
        if price is None or price.currency != self.currency:
            raise NoPrice(field="number")
        money = price.cost(seconds)
        if money > self.money:
            raise TooDear(field="number")
        return Amount(money, seconds)

    def has_room(self, used: Amount, wanted: Amount, grants: int = 0) -> bool:
        """Whether `wanted` fits beside what is used; each grant gives the day's budget once more."""
        times = 1 + grants
        money = self.money is None or used.money + wanted.money <= self.money * times
        return money and (self.seconds is None or used.seconds + wanted.seconds <= self.seconds * times)


@dataclass(frozen=True, slots=True)
class Day:
    """A day on the clock of a zone."""

    name: str
    ends: datetime


def day_of(now: datetime, timezone: str) -> Day:
    """The day it is there, and the instant at which the next one begins, also where clocks change at midnight."""
    today: date = now.astimezone(zone(timezone)).date()
    return Day(today.isoformat(), instant(f"{today + timedelta(days=1)}T00:00", timezone))
