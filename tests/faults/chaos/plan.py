"""What happens in a round, drawn from the seed and the round's number alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

PROCESSES = {
    "listener": "listen --pbx",
    "dial worker": "worker --queue dial",
    "worker": "worker --queue default",
    "recorder": "bridge.cli recorder",
    "pops": "bridge.cli pops",
    "scheduler": "bridge.cli scheduler",
    "web": "bridge.cli api",
    "redis": "redis-server",
}
"""Names and what their command lines hold."""

# Few, so that two callbacks often want the same one: answered at once and late, busy, silent, refused, machine.
NUMBERS = tuple(
    f"+1415555{line}"
    for line in ("0100", "0101", "0102", "0103", "0111", "0141", "0151", "0161", "0180", "0181", "0182", "0190")
)
HARM_SHARE = 0.5
"""So much of a round is harmed; in the rest everything comes to rest."""

_KILLED = {"listener": 5, "dial worker": 3, "worker": 2, "recorder": 2, "pops": 1, "scheduler": 1, "web": 3, "redis": 3}
_WAYS = {
    "kill": 12,
    "freeze": 3,
    "kill pbx": 2,
    "stop pbx": 1,
    "kill up": 1,
    "cut link": 3,
    "stall link": 1,
    "flush redis": 2,
    "restart redis": 1,
    "cut redis clients": 1,
    "lock database": 1,
    "stop dialing": 1,
}


@dataclass(frozen=True, slots=True)
class Ask:
    """A visitor's form, `at` seconds into the round; `twice` is two at once under one key; some are cancelled."""

    at: float
    key: str
    number: str
    site: int
    twice: bool
    cancel_after: float | None


@dataclass(frozen=True, slots=True)
class Blow:
    """One harm, `at` seconds into the round. `part` is a process, `seconds` how long it lasts where it lasts."""

    at: float
    way: str
    part: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Round:
    """Everything that is decided beforehand."""

    number: int
    asks: tuple[Ask, ...]
    blows: tuple[Blow, ...]


def plan(seed: int, number: int, seconds: float, sites: int) -> Round:
    """The same round for the same arguments, on every machine."""
    dice = random.Random(f"{seed}/{number}")
    harmed = seconds * HARM_SHARE
    asks = tuple(
        Ask(
            at=dice.uniform(0, harmed * 0.8),
            key=f"{seed}-{number}-{index}",
            number=dice.choice(NUMBERS),
            site=dice.randrange(sites),
            twice=dice.random() < 0.25,
            cancel_after=dice.uniform(0, harmed) if dice.random() < 0.1 else None,
        )
        for index in range(dice.randint(3, 5))
    )
    blows = tuple(_blow(dice, harmed) for _ in range(dice.randint(2, 4)))
    return Round(number, asks, tuple(sorted(blows, key=lambda blow: blow.at)))


def _blow(dice: random.Random, harmed: float) -> Blow:
    way = _one(dice, _WAYS)
    part = _one(dice, _KILLED) if way in ("kill", "freeze") else None
    # Never before the first form could have been sent.
    return Blow(dice.uniform(0.2, harmed), way, part, dice.uniform(0.3, harmed * 0.6))


def _one(dice: random.Random, weights: dict[str, int]) -> str:
    return dice.choices(list(weights), list(weights.values()))[0]
