"""What follows an attempt, by how it ended: one table, whose lines a site may change. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from bridge.domain.attempts import AttemptState

AGENT_NO_ANSWER = "agent_no_answer"
AGENT_UNREACHABLE = "agent_unreachable"
"""The agent's phone is not registered, or unknown to the PBX."""
TRUNK_UNREACHABLE = "trunk_unreachable"
"""The PBX had no way to the customer's number, and did not try."""
NOT_DIALED = "not_dialed"
"""Reconciliation found that the customer's leg was never dialled."""
OUTCOME_UNKNOWN = "outcome_unknown"
"""Reconciliation could not say what became of it: the customer may have been rung, and may have talked."""
NOT_CONFIRMED = "not_confirmed"
"""Whoever answered did not press 1 when asked; no agent was called."""
WRONG_NUMBER = "wrong_number"
FAILED = "failed"
MAX_TRIES = 3
RETRY_MINUTES = (5, 15, 60)
NEVER_AGAIN_Q850 = frozenset({1, 28})
"""The number does not exist, or is no number."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows attempts of one outcome."""

    minutes: tuple[float, ...] | None = None
    """Until the next attempt, by how many ended so before; None: the site's common waits, by the tries used up."""
    again: int | None = None
    """How many more attempts may follow ones that ended so: 0 is never, None as many as there are tries."""
    uses_try: bool = True
    """Whether it disturbed the customer, and so uses up one of their tries."""


_COMMON = Rule()
_AT_ONCE = Rule(minutes=(0,), uses_try=False)
# A dial that never left is tried again after this, so that a PBX that refuses is not asked every second.
_SOON = Rule(minutes=(0.25,), uses_try=False)

RULES: Mapping[str, Rule] = {
    "busy": _COMMON,
    "no_answer": _COMMON,
    "rejected": _COMMON,
    "machine": _COMMON,
    "congestion": _COMMON,
    FAILED: _COMMON,
    "agent_hung_up": _COMMON,
    WRONG_NUMBER: Rule(again=0),
    # Perhaps somebody else gave this number: they are not called again.
    NOT_CONFIRMED: Rule(again=0),
    # Whoever was perhaps talked with already is not called again without a person's word.
    OUTCOME_UNKNOWN: Rule(again=0),
    # An agent's phone rings each time, and some PBXs say so of a number that does not exist: it has an end.
    TRUNK_UNREACHABLE: Rule(again=3, uses_try=False),
    AGENT_NO_ANSWER: _AT_ONCE,
    AGENT_UNREACHABLE: _AT_ONCE,
    "never_sent": _AT_ONCE,
    NOT_DIALED: _SOON,
    "refused": _SOON,
    "link_down": _SOON,
    "not_found": _SOON,
    "stale": _SOON,
    "dialing_stopped": _SOON,
    "observe": _SOON,
    "agent_gone": _SOON,
}
"""By outcome; one that is not here follows the site's `tries` and `retry_minutes` alone."""

SETTABLE = (
    "busy",
    "no_answer",
    "rejected",
    "machine",
    "congestion",
    FAILED,
    "agent_hung_up",
    WRONG_NUMBER,
    NOT_CONFIRMED,
    TRUNK_UNREACHABLE,
    AGENT_NO_ANSWER,
    AGENT_UNREACHABLE,
)
"""Outcomes whose line a site may change. An unknown outcome is none: it could ring somebody twice."""

NO_TRY_USED = frozenset(outcome for outcome, rule in RULES.items() if not rule.uses_try)
"""Reasons of a failed attempt that did not disturb the customer."""


class Then(StrEnum):
    """What follows the end of an attempt."""

    AGAIN = "again"
    END_DONE = "done"
    END_FAILED = "failed"
    END_CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Next:
    """`again` after `delay`, or the callback's end; `tries` is the count of the customer's tries used up."""

    then: Then
    tries: int
    delay: timedelta = timedelta(0)


def outcome_of(reason: str | None, q850: int | None) -> str:
    """Which line of the table a failed attempt falls under."""
    if reason in NO_TRY_USED or reason == OUTCOME_UNKNOWN:
        return str(reason)
    return WRONG_NUMBER if q850 in NEVER_AGAIN_Q850 else reason or FAILED


def rules_of(own: object) -> Mapping[str, Rule]:
    """The table with a site's own lines: `{outcome: {minutes, again}}`. What is of the wrong kind counts as absent."""
    if not isinstance(own, dict):
        return RULES
    lines = {name: own[name] for name in SETTABLE if isinstance(own.get(name), dict)}
    return {**RULES, **{name: _changed(RULES[name], line) for name, line in lines.items()}}


def _changed(rule: Rule, line: Mapping[str, Any]) -> Rule:
    minutes, again = line.get("minutes"), line.get("again")
    if isinstance(minutes, list) and minutes and all(_is_amount(wait) for wait in minutes):
        rule = replace(rule, minutes=tuple(minutes))
    if isinstance(again, int) and _is_amount(again):
        rule = replace(rule, again=again)
    return rule


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def after_attempt(
    state: AttemptState,
    reason: str | None,
    q850: int | None,
    tries: int,
    max_tries: int = MAX_TRIES,
    retry_minutes: Sequence[float] = RETRY_MINUTES,
    *,
    rules: Mapping[str, Rule] = RULES,
    before: Iterable[str] = (),
) -> Next:
    """The policy for the next attempt, once one has ended as `state`; `tries` were used up before it.

    `before` are the outcomes of the callback's earlier attempts.
    """
    if state is AttemptState.DONE:
        return Next(Then.END_DONE, tries + 1)
    if state is AttemptState.CANCELLED:
        return Next(Then.END_CANCELLED, tries)
    outcome = outcome_of(reason, q850)
    rule = rules.get(outcome, _COMMON)
    used = tries + rule.uses_try
    same = sum(earlier == outcome for earlier in before)
    if rule.again is not None and same >= rule.again:
        return Next(Then.END_FAILED, used)
    if rule.uses_try and used >= max_tries:
        return Next(Then.END_FAILED, used)
    common = tuple(retry_minutes) or RETRY_MINUTES
    # The common waits grow with each try; those of one outcome, or of what uses up no try, with each that ended so.
    step = used - 1 if rule.minutes is None and rule.uses_try else same
    waits = rule.minutes or common
    return Next(Then.AGAIN, used, timedelta(minutes=waits[min(step, len(waits) - 1)]))
