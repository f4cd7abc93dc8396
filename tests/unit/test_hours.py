"""Opening hours, and what a wall time means where clocks change; the table in the manual is checked line by line."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain import hours
from bridge.domain.callbacks import instant

README = Path(__file__).resolve().parents[2] / "bridge" / "README.md"
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ZONES = sorted(
    name for name in zoneinfo.available_timezones() if "/" in name and not name.startswith(("Etc/", "posix/", "right/"))
)
YEARS = range(2020, 2032)


def calendar(timezone: str = "Europe/Berlin", **more: Any) -> hours.Calendar:
    """Monday to Friday 9 to 12:30 and 13 to 18."""
    office = [{"opens": "09:00", "closes": "12:30"}, {"opens": "13:00", "closes": "18:00"}]
    weekly = more.pop("weekly", dict.fromkeys(hours.DAYS[:5], office))
    return hours.read({"timezone": timezone, "weekly": weekly, **more})


def all_week(*spans: tuple[str, str]) -> dict[str, Any]:
    return {day: [{"opens": opens, "closes": closes} for opens, closes in spans] for day in hours.DAYS}


def at(text: str, timezone: str = "Europe/Berlin") -> datetime:
    return instant(text, timezone)


# --- wall times ---


def changes(name: str) -> Iterator[tuple[datetime, timedelta, timedelta]]:
    """The instants at which a zone's offset changes, with the offsets before and after."""
    zone = zoneinfo.ZoneInfo(name)
    at, end = datetime(YEARS[0], 1, 1, tzinfo=UTC), datetime(YEARS[-1], 12, 31, tzinfo=UTC)

    def offset(when: datetime) -> timedelta:
        return when.astimezone(zone).utcoffset() or timedelta()

    before = offset(at)
    while at < end:
        after = offset(at + 10 * DAY)
        if after != before:
            low, high = at, at + 10 * DAY
            while high - low > MINUTE / 60:
                middle = low + (high - low) / 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            change = high.replace(microsecond=0)
            # Two changes may lie within ten days: this one's other side, then on from there.
            after = offset(change + MINUTE)
            yield change, before, after
            before, at = after, change + MINUTE
        else:
            at += 10 * DAY


def test_every_change_of_every_zone() -> None:
    """In a gap: as long after it as the time lies in it. Twice: the first. Reckoned here without the code's own way."""
    gaps = repeats = 0
    for name in ZONES:
        for change, before, after in changes(name):
            length = abs(after - before)
            for share in (0.0, 0.25, 0.5, 0.99):
                into = timedelta(seconds=int(length.total_seconds() * share))
                if after > before:
                    wall = (change + before + into).replace(tzinfo=None)
                    # The clock moved on: what it would have shown, had it not.
                    expected, shown = change + into, wall + length
                    gaps += 1
                else:
                    wall = (change + after + into).replace(tzinfo=None)
                    expected, shown = change - length + into, wall
                    repeats += 1
                found = instant(wall.isoformat(), name)
                assert found == expected, (name, wall)
                assert found.astimezone(zoneinfo.ZoneInfo(name)).replace(tzinfo=None) == shown, (name, wall)
                assert hours.exists(wall.isoformat(), name) == (after < before), (name, wall)
    assert gaps > 1000 and repeats > 1000


def table() -> list[list[str]]:
    part = README.read_text(encoding="utf-8").partition("<!-- dst -->")[2].partition("<!-- dst: end -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.strip().splitlines()]
    return rows[2:]


def test_the_table_of_the_manual_is_long_enough() -> None:
    assert len(table()) >= 10
    assert {row[2].split(",")[0] for row in table()} >= {"skipped", "twice", "once"}


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row[0]} {row[1]}")
def test_the_table_of_the_manual_is_true(row: list[str]) -> None:
    name, wall, what, called, utc = row
    found = instant(wall.replace(" ", "T"), name)
    assert found == datetime.fromisoformat(utc.replace(" ", "T")).replace(tzinfo=UTC)
    assert hours.wall_time(found, name).replace("T", " ") == called
    zone = zoneinfo.ZoneInfo(name)
    shown = [
        when
        for fold in (0, 1)
        if (when := datetime.fromisoformat(wall).replace(tzinfo=zone, fold=fold).astimezone(UTC))
        and when.astimezone(zone).replace(tzinfo=None) == datetime.fromisoformat(wall)
    ]
    assert what.split(",")[0] == {0: "skipped", 1: "once", 2: "twice"}[len(set(shown))]
    length = re.search(r"(\d+) minutes", what)
    if length:
        assert abs((found.astimezone(zone).utcoffset() or timedelta()) - _other_offset(found, zone)) == int(
            length[1]
        ) * MINUTE


def _other_offset(at: datetime, zone: zoneinfo.ZoneInfo) -> timedelta:
    """The offset on the other side of the change that is near."""
    here = at.astimezone(zone).utcoffset()
    for step in range(-25 * 60, 25 * 60):
        there = (at + step * MINUTE).astimezone(zone).utcoffset() or timedelta()
        if there != here:
            return there
    raise AssertionError("no change is near")


# --- open or not ---


@pytest.mark.parametrize(
    ("local", "is_open", "then"),
    [
        ("2026-05-04T08:59:59", False, "2026-05-04T09:00"),
        ("2026-05-04T09:00", True, "2026-05-04T09:00"),
        ("2026-05-04T12:29:59", True, "2026-05-04T12:29:59"),
        ("2026-05-04T12:30", False, "2026-05-04T13:00"),
        ("2026-05-04T18:00", False, "2026-05-05T09:00"),
        ("2026-05-08T18:00", False, "2026-05-11T09:00"),
        ("2026-05-14T10:00", False, "2026-05-15T09:00"),  # Ascension Day
        ("2026-06-04T10:00", False, "2026-06-05T09:00"),  # Corpus Christi, in Bavaria
        ("2026-12-23T18:00", False, "2026-12-24T10:00"),  # a special day
        ("2026-12-24T12:00", False, "2026-12-28T09:00"),
        ("2026-10-03T11:00", True, "2026-10-03T11:00"),  # a special day that is a Saturday and a holiday
    ],
)
def test_when_it_is_open(local: str, is_open: bool, then: str) -> None:
    office = calendar(
        country="DE",
        subdivision="BY",
        special_days=[
            {"date": "2026-12-24", "name": "Christmas Eve", "hours": [{"opens": "10:00", "closes": "12:00"}]},
            {"date": "2026-10-03", "hours": [{"opens": "10:00", "closes": "12:00"}]},
        ],
    )
    assert hours.is_open(office, at(local)) is is_open
    assert hours.next_open(office, at(local)) == at(then)


def test_a_holiday_of_one_part_of_the_country_is_none_of_another() -> None:
    day = at("2026-06-04T10:00")
    assert not hours.is_open(calendar(country="DE", subdivision="BY"), day)
    assert hours.is_open(calendar(country="DE", subdivision="BE"), day)
    assert hours.is_open(calendar(), day)


def test_the_calendar_s_clock_counts_and_no_other() -> None:
    morning = datetime(2026, 5, 4, 14, 0, tzinfo=UTC)
    assert hours.is_open(calendar("America/New_York"), morning)
    assert not hours.is_open(calendar("Asia/Tokyo"), morning)


def test_closed_for_good_has_no_next_time() -> None:
    assert hours.next_open(calendar(weekly={}), at("2026-05-04T10:00")) is None
    assert list(hours.slots(calendar(weekly={}), at("2026-05-04T10:00"), at("2026-05-18T10:00"))) == []


def test_past_midnight_is_one_night() -> None:
    night = calendar(weekly=all_week(("00:00", "06:00"), ("22:00", "24:00")))
    for local in ("2026-05-04T23:59:59", "2026-05-05T00:00", "2026-05-05T05:59"):
        assert hours.is_open(night, at(local))
    assert hours.next_open(night, at("2026-05-05T06:00")) == at("2026-05-05T22:00")


def test_hours_across_a_change_of_the_clock() -> None:
    """Their edges are wall times like any other: moved on in a gap, the first of two."""
    night = calendar(weekly=all_week(("02:00", "02:30"), ("04:00", "05:00")))
    assert hours.next_open(night, at("2026-03-29T01:00")) == at("2026-03-29T03:00")
    assert hours.is_open(night, at("2026-03-29T03:29")) and not hours.is_open(night, at("2026-03-29T03:30"))
    first = datetime(2026, 10, 25, 0, 15, tzinfo=UTC)
    assert hours.is_open(night, first)
    assert not hours.is_open(night, first + HOUR)


# --- slots ---


def walls(of: hours.Calendar, day: str, days: int = 1) -> list[str]:
    since = at(f"{day}T00:00", of.timezone) - MINUTE
    return [slot.wall_time for slot in hours.slots(of, since, since + days * DAY)]


def test_slots_of_a_day() -> None:
    found = walls(calendar(slot_minutes=60), "2026-05-04")
    assert [wall[11:] for wall in found] == ["09:00", "10:00", "11:00", "13:00", "14:00", "15:00", "16:00", "17:00"]
    rest = hours.slot_of(calendar(slot_minutes=60), at("2026-05-04T12:29"))
    assert rest is not None and (rest.wall_time, rest.ends) == ("2026-05-04T11:00", at("2026-05-04T12:30"))
    assert walls(calendar(), "2026-05-03") == []


def test_slots_where_the_clock_changes_mean_one_time_each() -> None:
    night = calendar(weekly=all_week(("01:00", "04:00")))
    spring = [wall[11:] for wall in walls(night, "2026-03-29")]
    assert spring == ["01:00", "01:30", "03:00", "03:30"]
    autumn = [wall[11:] for wall in walls(night, "2026-10-25")]
    assert autumn == ["01:00", "01:30", "02:00", "02:30", "03:00", "03:30"]


@given(
    zone=st.sampled_from(ZONES),
    day=st.dates(date(2024, 1, 1), date(2031, 12, 31)),
    minute=st.integers(0, 1439),
    spans=st.lists(st.integers(0, 288), min_size=2, max_size=6, unique=True).map(sorted),
    length=st.integers(10, 240),
)
def test_slots_and_hours_agree(zone: str, day: date, minute: int, spans: list[int], length: int) -> None:
    edges = [f"{five // 12:02}:{five % 12 * 5:02}" for five in spans]
    of = calendar(zone, weekly=all_week(*zip(edges[::2], edges[1::2], strict=False)), slot_minutes=length)
    since = datetime(day.year, day.month, day.day, tzinfo=UTC) + minute * MINUTE
    opens = hours.next_open(of, since)
    assert opens is not None and opens >= since and hours.is_open(of, opens)
    assert (opens == since) == hours.is_open(of, since)
    if opens > since:
        assert not hours.is_open(of, opens - timedelta(seconds=1))
    before = since
    for slot in hours.slots(of, since, since + 2 * DAY):
        assert slot.at > before
        before = slot.at
        assert hours.is_open(of, slot.at) and instant(slot.wall_time, zone) == slot.at
        assert hours.exists(slot.wall_time, zone)
        inside = hours.slot_of(of, slot.at)
        assert inside is not None and inside.at <= slot.at < inside.ends
