"""What a visitor may ask for: when a callback is due. No clock, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge.domain.errors import Invalid

FARTHEST = timedelta(days=90)

_WALL = re.compile(
    r"(?P<local>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2})?)(?:\.\d{1,6})?(?P<offset>Z|[+-]\d{2}:\d{2})?"
)
# What lies beside the zones of a tz database: this machine's own zone, leap-second clocks, and copies.
_ZONE = re.compile(r"(?!(?:posix|right)/|localtime|posixrules|Factory)[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")


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
