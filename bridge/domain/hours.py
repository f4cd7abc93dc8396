"""When a site is open, and which hours it offers. No clock, no I/O.

One rule reads every wall time here, of visitors and of opening hours alike (`callbacks.instant`): a time in a skipped
hour moves forward by the length of the gap, of a repeated hour the first is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

from bridge.domain.callbacks import instant, zone
from bridge.domain.errors import Invalid

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SLOT_MINUTES = 30
AHEAD_DAYS = 14
FARTHEST_DAYS = 90
_SEARCHED_DAYS = 400
"""So far ahead an open hour is looked for; whoever is closed for longer is closed for good."""
_MIDNIGHT = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """From `opens` to before `closes`, in minutes of one day's wall clock; `agents` usually there, where it says."""

    opens: int
    closes: int
    agents: int | None = None


@dataclass(frozen=True, slots=True)
class Calendar:
    """A week of open hours, and the days that are different."""

    timezone: str
    weekly: Mapping[int, tuple[Window, ...]]
    """By weekday, Monday is 0. What lies between two windows of a day is a break."""
    special: Mapping[date, tuple[Window, ...]] = field(default_factory=dict)
    """Stronger than holidays and the week; without windows the day is closed."""
    country: str | None = None
    subdivision: str | None = None
    slot_minutes: int = SLOT_MINUTES
    agents: int | None = None
    """Agents usually there: a slot takes as many callbacks. None: it takes any number."""
    ahead_days: int = AHEAD_DAYS


@dataclass(frozen=True, slots=True)
class Slot:
    """From `at` to before `ends` (UTC); `wall_time` is `at` on the calendar's clock."""

    at: datetime
    ends: datetime
    wall_time: str
    agents: int | None


def read(values: Mapping[str, Any]) -> Calendar:
    """A calendar from the columns of its row. Raises Invalid with the field."""
    zone(values["timezone"])
    weekly = values.get("weekly") or {}
    unknown = sorted(set(weekly) - set(DAYS))
    if unknown:
        raise Invalid('is no day of the week; write "monday" to "sunday"', field=f"weekly.{unknown[0]}"[:200])
    check_region(values.get("country"), values.get("subdivision"))
    special: dict[date, tuple[Window, ...]] = {}
    for number, day in enumerate(values.get("special_days") or ()):
        try:
            when = date.fromisoformat(day["date"])
        except ValueError:
            raise Invalid("there is no such day", field=f"special_days.{number}.date") from None
        if when in special:
            raise Invalid("this day is named twice", field=f"special_days.{number}.date")
        special[when] = _windows(day.get("hours") or (), f"special_days.{number}.hours")
    return Calendar(
        timezone=values["timezone"],
        weekly={DAYS.index(name): _windows(hours, f"weekly.{name}") for name, hours in weekly.items()},
        special=special,
        country=values.get("country"),
        subdivision=values.get("subdivision"),
        slot_minutes=values.get("slot_minutes") or SLOT_MINUTES,
        agents=values.get("agents"),
        ahead_days=values.get("ahead_days") or AHEAD_DAYS,
    )


def _windows(hours: Sequence[Mapping[str, Any]], where: str) -> tuple[Window, ...]:
    found: list[Window] = []
    for number, entry in enumerate(hours):
        window = Window(_minutes(entry["opens"]), _minutes(entry["closes"]), entry.get("agents"))
        if window.closes <= window.opens:
            raise Invalid(
                'closes before it opens; what goes on past midnight is "24:00" here and "00:00" the day after',
                field=f"{where}.{number}.closes",
            )
        if found and window.opens < found[-1].closes:
            raise Invalid("begins before the one before it ends", field=f"{where}.{number}.opens")
        found.append(window)
    return tuple(found)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


@cache
def _regions() -> Mapping[str, Sequence[str]]:
    # Imported here: it takes half a second that most processes never need.
    import holidays

    found: Mapping[str, Sequence[str]] = holidays.list_supported_countries(include_aliases=True)
    return found


def check_region(country: str | None, subdivision: str | None) -> None:
    """Raises Invalid where no public holidays are known for that place."""
    if country is None:
        if subdivision is not None:
            raise Invalid("a subdivision needs its country", field="subdivision")
        return
    known = _regions().get(country)
    if known is None:
        raise Invalid('no holidays are known for this country; write it as in "DE"', field="country")
    if subdivision is not None and subdivision not in known:
        raise Invalid('this country has no such subdivision; write it as in "BY"', field="subdivision")


@cache
def _holidays(country: str, subdivision: str | None, year: int) -> Mapping[date, str]:
    import holidays

    return dict(holidays.country_holidays(country, subdiv=subdivision, years=year, expand=False))


def is_holiday(calendar: Calendar, day: date) -> bool:
    """Whether it is a public holiday of the calendar's place."""
    return calendar.country is not None and day in _holidays(calendar.country, calendar.subdivision, day.year)


def holidays_from(calendar: Calendar, first: date) -> list[tuple[date, str]]:
    """The public holidays of the calendar's place in the year that begins at `first`, with their names, in order."""
    if calendar.country is None:
        return []
    years = (first.year, first.year + 1)
    known = [day for year in years for day in _holidays(calendar.country, calendar.subdivision, year).items()]
    return sorted((day, name) for day, name in known if first <= day < first + timedelta(days=365))


def windows_on(calendar: Calendar, day: date) -> tuple[Window, ...]:
    """The open hours of that day: the special day's, else none on a holiday, else the week's."""
    if day in calendar.special:
        return calendar.special[day]
    if is_holiday(calendar, day):
        return ()
    return calendar.weekly.get(day.weekday(), ())


def _spans(calendar: Calendar, first: date, days: int) -> Iterator[tuple[datetime, datetime, Window]]:
    """Open hours as instants, of `days` days from `first` on; what the clock skips wholly comes as long after it."""
    for number in range(days):
        try:
            day = first + timedelta(days=number)
            for window in windows_on(calendar, day):
                opens, closes = _at(calendar, day, window.opens), _at(calendar, day, window.closes)
                if opens < closes:
                    yield opens, closes, window
        except OverflowError:
            return


def _at(calendar: Calendar, day: date, minutes: int) -> datetime:
    wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)  # noqa: DTZ001 - a wall time
    return instant(wall.isoformat(), calendar.timezone)


def _around(calendar: Calendar, at: datetime) -> date:
    """The day before `at`'s: what a change of the clock moves past midnight begins there."""
    local = at.astimezone(zone(calendar.timezone)).date()
    return local - timedelta(days=1) if local > date.min else local


def is_open(calendar: Calendar, at: datetime) -> bool:
    """Whether somebody may be called at that instant."""
    return any(opens <= at < closes for opens, closes, _ in _spans(calendar, _around(calendar, at), 3))


def next_open(calendar: Calendar, at: datetime) -> datetime | None:
    """`at` itself where it is open, else the next instant that is; None where there is none."""
    for opens, closes, _ in _spans(calendar, _around(calendar, at), _SEARCHED_DAYS):
        if at < closes:
            return max(at, opens)
    return None


def slots(calendar: Calendar, since: datetime, until: datetime) -> Iterator[Slot]:
    """What can be chosen: slots that begin after `since` and not after `until`, in order.

    Each is named by one wall time that is really there and means it: none in a gap, a repeated hour once.
    """
    last = since
    first = _around(calendar, since)
    days = max((until - since).days + 4, 0)
    for opens, closes, window in _spans(calendar, first, days):
        for slot in _cut(calendar, opens, closes, window):
            if slot.at > until:
                return
            if slot.at > last and instant(slot.wall_time, calendar.timezone) == slot.at:
                last = slot.at
                yield slot


def slot_of(calendar: Calendar, at: datetime) -> Slot | None:
    """The slot in which an instant lies; None outside opening hours."""
    for opens, closes, window in _spans(calendar, _around(calendar, at), 3):
        if opens <= at < closes:
            return next(slot for slot in _cut(calendar, opens, closes, window) if slot.at <= at < slot.ends)
    return None


def _cut(calendar: Calendar, opens: datetime, closes: datetime, window: Window) -> Iterator[Slot]:
    """A window in slots; a rest too short for one belongs to the last."""
    length = timedelta(minutes=calendar.slot_minutes)
    agents = window.agents if window.agents is not None else calendar.agents
    count = max(1, (closes - opens) // length)
    for number in range(count):
        at = opens + number * length
        ends = closes if number == count - 1 else at + length
        yield Slot(at, ends, wall_time(at, calendar.timezone), agents)


def wall_time(at: datetime, timezone: str) -> str:
    """An instant on the clock of a zone, to the minute where it has no seconds."""
    local = at.astimezone(zone(timezone)).replace(tzinfo=None)
    return local.isoformat(timespec="seconds" if local.second or local.microsecond else "minutes")


def exists(wall: str, timezone: str) -> bool:
    """Whether clocks in the zone ever show that time; False in a gap."""
    local = instant(wall, timezone).astimezone(zone(timezone)).replace(tzinfo=None)
    return local == datetime.fromisoformat(wall)
