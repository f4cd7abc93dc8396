"""When a visitor's phone will ring, and whether what was said of it may still be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence

SHARE = 0.9
"""Of ten times that are said, nine should be kept: the quantile of the wait that is promised."""
MOST_AHEAD = 500
"""Behind more people than this nothing is reckoned."""
HANDLE_SECONDS = 240.0
"""What one conversation takes of an agent, talk and notes together, until enough of them were measured."""
WRAP_SECONDS = 10.0
"""The part of it after the hang-up, until measured (FusionPBX's default for agents)."""
ENOUGH = 20
"""Measured values that are worth more than a default."""

WINDOW = 20
"""Promises by which a site is judged."""
STOP_BELOW = 0.8
BELIEVE_FROM = 0.9
REMEMBERED = 100
"""How far back the judgement begins."""


def wait_seconds(free: int, serving: int, ahead: int, handle: float, share: float = SHARE) -> float | None:
    """The wait that `share` of callers in this place do not exceed; None where it cannot be said.

    `serving` agents (of whom `free` are idle) take people in turn, `ahead` stand before this one, and an agent is busy
    `handle` seconds with each. Who finds an idle agent waits for nobody. Else k = ahead - free + 1 conversations must
    end first; with all agents busy these end at the rate serving / handle, so that the wait has an Erlang distribution
    of k stages (W. Whitt, "Predicting Queueing Delays", Management Science 45(6), 1999: the M/M/s queue given the
    number in it). Real conversations vary less than exponential ones, which errs to the safe side.
    """
    if serving <= 0 or free > serving or ahead > MOST_AHEAD or handle <= 0:
        return None
    stages = ahead - free + 1
    if stages <= 0:
        return 0.0
    return _erlang_quantile(stages, share) * handle / serving


def _erlang_quantile(stages: int, share: float) -> float:
    """Where a sum of so many exponential times of mean 1 stays below with that probability."""
    low, high = 0.0, stages + 10.0 * math.sqrt(stages) + 10.0
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        if _still_waiting(stages, middle) > 1 - share:
            low = middle
        else:
            high = middle
    return high


def _still_waiting(stages: int, x: float) -> float:
    """The probability that fewer than `stages` events of a Poisson process of rate 1 happened by x."""
    term = total = math.exp(-x)
    for i in range(1, stages):
        term *= x / i
        total += term
    return total


def quantile(values: Sequence[float], share: float = SHARE) -> float:
    """The smallest of the values that `share` of them do not exceed."""
    ranked = sorted(values)
    return ranked[max(math.ceil(share * len(ranked)), 1) - 1]


def believed(kept: Sequence[bool]) -> bool:
    """Whether a site may still promise, by its latest promises, oldest first.

    It stops when fewer than 80 % of its last 20 were kept, and begins again when 90 % of them are: between the two it
    stays as it is, so that one call more or less does not switch it to and fro. While it has stopped, times are
    reckoned and judged all the same, and not told. Fewer than 20 say nothing.
    """
    promising = True
    good = sum(kept[:WINDOW])
    for end in range(WINDOW, len(kept) + 1):
        if end > WINDOW:
            good += kept[end - 1] - kept[end - 1 - WINDOW]
        if good < STOP_BELOW * WINDOW:
            promising = False
        elif good >= BELIEVE_FROM * WINDOW:
            promising = True
    return promising
