"""What a callback's rules say: when it is due, and what follows an attempt. No clock, no I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge.domain.attempts import AttemptState
from bridge.domain.errors import Invalid

AGENT_NO_ANSWER = "agent_no_answer"
AGENT_UNREACHABLE = "agent_unreachable"
"""The agent's phone is not registered, or unknown to the PBX."""
TRUNK_UNREACHABLE = "trunk_unreachable"
"""The PBX had no way to the customer's number, and did not try."""
NOT_DIALED = "not_dialed"
"""Reconciliation found that the customer's leg was never dialled."""
MAX_TRIES = 3
RETRY_MINUTES = (5, 15, 60)
EXPIRE_HOURS = 8
FARTHEST = timedelta(days=90)
NOT_DIALED_DELAY = timedelta(seconds=15)
"""A dial that never left is tried again after this, so that a PBX that refuses is not asked every second."""

_WALL = re.compile(
    r"(?P<local>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2})?)(?:\.\d{1,6})?(?P<offset>Z|[+-]\d{2}:\d{2})?"
)
# What lies beside the zones of a tz database: this machine's own zone, leap-second clocks, and copies.
_ZONE = re.compile(r"(?!(?:posix|right)/|localtime|posixrules|Factory)[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")

NO_TRY_USED = frozenset(
    {
        AGENT_NO_ANSWER,
        AGENT_UNREACHABLE,
        TRUNK_UNREACHABLE,
        "never_sent",
        NOT_DIALED,
        "refused",
        "link_down",
        "not_found",
        "stale",
        "dialing_stopped",
        "observe",
        "agent_gone",
    }
)
"""Reasons of a failed attempt that did not disturb the customer."""
OUTCOME_UNKNOWN = "outcome_unknown"
"""Reconciliation could not say what became of it: the customer may have been rung, and may have talked."""
NEVER_AGAIN_Q850 = frozenset({1, 28})
"""The number does not exist, or is no number."""


class TimePast(Invalid):
    """This time is in the past; choose a later one."""

    code = "time_past"


class TooFarAhead(Invalid):
    """This time is too far ahead; choose an earlier one."""

    code = "too_far_ahead"


@dataclass(frozen=True, slots=True)
class Due:
    """When a callback is due, and how the visitor said it: a local wall time and its zone, or an instant."""

    at: datetime
    wall_time: str | None
    timezone: str | None


def zone(name: str) -> ZoneInfo:
    """The IANA zone of that name. Raises Invalid(field="timezone")."""
    try:
        if not _ZONE.fullmatch(name):
            raise ValueError
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid('this is no IANA time zone; write it as in "Europe/Berlin"', field="timezone") from None


def instant(wall_time: str, timezone: str) -> datetime:
    """The UTC time of a local wall time.

    A time in a skipped hour moves forward by the length of the gap; of a repeated hour the first is taken.
    """
    # fold=0 is both rules: the offset before the change, so a gap's time lands behind the gap.
    return datetime.fromisoformat(wall_time).replace(tzinfo=zone(timezone), fold=0).astimezone(UTC)


def due_from(when: str | None, timezone: str | None, now: datetime) -> Due:
    """Read what a visitor asked for; `when` None means now.

    `when` is a local time with `timezone` beside it, or RFC 3339 with an offset. Raises Invalid for a naive
    time alone, TimePast (a minute's grace, for slow forms), TooFarAhead for more than 90 days.
    """
    if when is None:
        if timezone is not None:
            zone(timezone)
        return Due(now, None, None)
    match = _WALL.fullmatch(when)
    if match is None:
        raise Invalid('this is no time; write it as in "2026-05-04T09:30"', field="when")
    local, offset = match["local"], match["offset"]
    try:
        naive = datetime.fromisoformat(local)
        if offset is None:
            if timezone is None:
                raise Invalid(
                    "a time without an offset needs the IANA time zone beside it in `timezone`",
                    field="timezone",
                )
            due = Due(instant(local, timezone), naive.isoformat(), timezone)
        else:
            at = datetime.fromisoformat(local + offset.replace("Z", "+00:00")).astimezone(UTC)
            if timezone is not None and at.astimezone(zone(timezone)).replace(tzinfo=None) != naive:
                raise Invalid(
                    "the offset in `when` is not that of `timezone` at this time; leave one of them out",
                    field="timezone",
                )
            due = Due(at, local + offset, None)
    except (ValueError, OverflowError):
        raise Invalid("there is no such date or time", field="when") from None
    if due.at < now - timedelta(minutes=1):
        raise TimePast(field="when")
    if due.at > now + FARTHEST:
        raise TooFarAhead(f"this time is more than {FARTHEST.days} days ahead; choose an earlier one", field="when")
    return due


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


def after_attempt(
    state: AttemptState,
    reason: str | None,
    q850: int | None,
    tries: int,
    max_tries: int = MAX_TRIES,
    retry_minutes: Sequence[float] = RETRY_MINUTES,
) -> Next:
    """The policy for the next attempt, once one has ended as `state`; `tries` were used up before it."""
    if state is AttemptState.DONE:
        return Next(Then.END_DONE, tries + 1)
    if state is AttemptState.CANCELLED:
        return Next(Then.END_CANCELLED, tries)
    if reason in NO_TRY_USED:
        return Next(Then.AGAIN, tries, _free_delay(reason, retry_minutes))
    used = tries + 1
    if reason == OUTCOME_UNKNOWN:
        # Whoever was perhaps talked with already is not called again without a person's word.
        return Next(Then.END_FAILED, used)
    if q850 in NEVER_AGAIN_Q850 or used >= max_tries:
        return Next(Then.END_FAILED, used)
    waits = list(retry_minutes) or list(RETRY_MINUTES)
    return Next(Then.AGAIN, used, timedelta(minutes=waits[min(used, len(waits)) - 1]))


def _free_delay(reason: str | None, retry_minutes: Sequence[float]) -> timedelta:
    """How long a callback waits after an attempt that used up no try."""
    if reason in (AGENT_NO_ANSWER, AGENT_UNREACHABLE, "never_sent"):
        return timedelta(0)
    if reason == TRUNK_UNREACHABLE:
        # An agent's phone rang for it.
        return timedelta(minutes=(list(retry_minutes) or list(RETRY_MINUTES))[0])
    return NOT_DIALED_DELAY
