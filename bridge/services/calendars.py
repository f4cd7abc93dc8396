"""Opening hours where they meet callbacks: judged when one is asked for, and by the same rules when it is dialled."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.domain import hours
from bridge.domain.attempts import CallbackStatus
from bridge.domain.callbacks import Due, TimePast, TooFarAhead, due_from, instant
from bridge.domain.errors import Invalid
from bridge.services import callback_states, news, zone_rules
from bridge.store.database import Sessions
from bridge.store.models import Calendar, Callback, Site

log = structlog.get_logger(__name__)
OUTSIDE_HOURS = "outside_hours"
"""Reason of a callback that came due in closed hours and waits for the next open one."""
_NAMED = 3
"""Open times that a refusal names."""
_OFFERED_DAYS = 14
_ROOM_TAKEN = [str(s) for s in CallbackStatus if s not in ("cancelled", "failed", "expired")]


class OutsideHours(Invalid):
    """Nobody is there at this time."""

    code = OUTSIDE_HOURS


class SlotFull(Invalid):
    """So many others are to be called at this time that it takes no more."""

    code = "slot_full"


@dataclass(frozen=True, slots=True)
class Hours:
    """A calendar and its id."""

    id: str
    calendar: hours.Calendar


@dataclass(frozen=True, slots=True)
class Offer:
    """What a visitor may choose from. `any_time` where the site keeps no hours."""

    timezone: str
    now: bool
    any_time: bool
    slots: list[hours.Slot]


def hours_of(session: Session, site: Site, queue: str | None) -> Hours | None:
    """The queue's calendar, else the site's; None where calls are made at any hour."""
    own = site.queue_calendars.get(queue) if queue is not None and site.queue_calendars else None
    for calendar_id in (own, site.calendar_id):
        if calendar_id is None:
            continue
        row = session.get(Calendar, calendar_id)
        if row is not None:
            return Hours(row.id, parse(row))
        log.warning("the calendar of a site is gone", site=site.id, calendar=calendar_id)
    return None


def parse(row: Calendar) -> hours.Calendar:
    """The row as the domain reads it. Raises Invalid."""
    return hours.read({name: getattr(row, name) for name in COLUMNS})


COLUMNS = (
    "timezone",
    "weekly",
    "special_days",
    "country",
    "subdivision",
    "slot_minutes",
    "agents",
    "ahead_days",
)


def place(
    session: Session,
    site: Site,
    queue: str | None,
    when: str | None,
    timezone: str | None,
    now: datetime,
    *,
    moved: str | None = None,
) -> tuple[Due, str | None]:
    """When a callback is due, and the id of the calendar that says so.

    `moved` is the id of a callback that has a place already, which is then nobody else's.
    Raises Invalid, TimePast, TooFarAhead, OutsideHours and SlotFull; the last four name the next open times.
    """
    found = hours_of(session, site, queue)
    if found is None:
        return due_from(when, timezone, now), None
    try:
        due = due_from(when, timezone, now)
    except (TimePast, TooFarAhead) as error:
        raise _with_times(session, found, type(error), error.message, now) from None
    if due.at > now:
        _check_chosen(session, found, due.at, now, moved)
    elif not hours.is_open(found.calendar, now):
        due = _next_time(session, site, found, now, moved)
    return due, found.id


def _check_chosen(session: Session, found: Hours, at: datetime, now: datetime, moved: str | None) -> None:
    calendar = found.calendar
    if at > now + timedelta(days=calendar.ahead_days):
        words = f"this time is more than {calendar.ahead_days} days ahead; choose an earlier one"
        raise _with_times(session, found, TooFarAhead, words, now)
    slot = hours.slot_of(calendar, at)
    if slot is None:
        raise _with_times(session, found, OutsideHours, "nobody is there at this time", now)
    _lock(session, found)
    if not _has_room(slot, _taken(session, found.id, slot.at, slot.ends, moved)):
        words = "so many others are to be called at this time that it takes no more"
        raise _with_times(session, found, SlotFull, words, now)


def _next_time(session: Session, site: Site, found: Hours, now: datetime, moved: str | None) -> Due:
    """What "now" means in closed hours: the next slot with room, where the site has it so."""
    if site.when_closed == "refuse":
        raise _with_times(session, found, OutsideHours, "nobody is there now", now)
    _lock(session, found)
    ahead = timedelta(days=found.calendar.ahead_days)
    slot = next(_free_slots(session, found, now, ahead, moved), None)
    if slot is None:
        raise _with_times(session, found, OutsideHours, "nobody is there now", now)
    return Due(slot.at, slot.wall_time, found.calendar.timezone)


def _lock(session: Session, found: Hours) -> None:
    """Whoever else counts this calendar's callbacks waits for this transaction, so that no slot takes one too many."""
    session.execute(select(Calendar.id).where(Calendar.id == found.id).with_for_update())


def _with_times(
    session: Session, found: Hours, kind: type[Invalid], words: str, now: datetime
) -> Invalid:
    """The refusal, with the next open times in words and as `slots`."""
    ahead = timedelta(days=found.calendar.ahead_days)
    near = list(islice(_free_slots(session, found, now, ahead), _NAMED))
    zone = found.calendar.timezone
    if near:
        listed = ", ".join(slot.wall_time.replace("T", " ") for slot in near)
        words = f"{words.partition(';')[0]}; the next open times are {listed} ({zone})"
    else:
        words = f"{words.partition(';')[0]}; no time is free in the next {found.calendar.ahead_days} days"
    return kind(words, field="when", timezone=zone, slots=[slot_body(slot) for slot in near])


def slot_body(slot: hours.Slot) -> dict[str, str | None]:
    """A slot as the API writes it."""
    return {"wall_time": slot.wall_time, "at": news.rfc3339(slot.at)}


def offer(session: Session, site: Site, queue: str | None, day: date | None, now: datetime) -> Offer:
    """The slots of the days to come, or of one of them, that have room."""
    found = hours_of(session, site, queue)
    if found is None:
        return Offer(site.timezone, True, True, [])
    calendar = found.calendar
    ahead = timedelta(days=min(calendar.ahead_days, _OFFERED_DAYS))
    free = _free_slots(session, found, now, ahead)
    wanted = [slot for slot in free if day is None or slot.wall_time.startswith(day.isoformat())]
    return Offer(calendar.timezone, hours.is_open(calendar, now), False, wanted)


def _free_slots(
    session: Session, found: Hours, now: datetime, ahead: timedelta, moved: str | None = None
) -> Iterator[hours.Slot]:
    taken: list[datetime] | None = None
    for slot in hours.slots(found.calendar, now, now + ahead):
        if slot.agents is not None and taken is None:
            taken = _taken(session, found.id, now, now + ahead + timedelta(days=1), moved)
        within = taken[bisect_left(taken, slot.at) : bisect_left(taken, slot.ends)] if taken else []
        if _has_room(slot, within):
            yield slot


def _has_room(slot: hours.Slot, taken: list[datetime]) -> bool:
    return slot.agents is None or len(taken) < slot.agents


def _taken(
    session: Session, calendar_id: str, since: datetime, until: datetime, moved: str | None
) -> list[datetime]:
    """When the calendar's callbacks are due, in order; those that will not be made leave their room to others."""
    statement = select(Callback.due_at).where(
        Callback.calendar_id == calendar_id,
        Callback.due_at >= since,
        Callback.due_at < until,
        Callback.status.in_(_ROOM_TAKEN),
    )
    if moved is not None:
        # Nobody is in their own way.
        statement = statement.where(Callback.id != moved)
    return list(session.scalars(statement.order_by(Callback.due_at)))


def postpone(session: Session, row: Callback, site: Site, now: datetime) -> bool:
    """Whether a callback that is due is outside its hours; it then waits for the next open one, and is told so.

    The wait in closed hours does not count towards its expiry. Where no hour will ever be open it stays as it is
    until it expires.
    """
    found = hours_of(session, site, row.queue)
    if found is None or hours.is_open(found.calendar, now):
        return False
    at = hours.next_open(found.calendar, now)
    if at is None:
        return True
    values: dict[str, Any] = {
        "reason": OUTSIDE_HOURS,
        "wall_time": hours.wall_time(at, found.calendar.timezone),
        "timezone": found.calendar.timezone,
        "tzdata": zone_rules.version(),
        "calendar_id": found.id,
        "due_at": at,
        "promised_at": at,
        "expires_at": row.expires_at + (at - now),
        "queued_at": None,
    }
    waiting = (
        Callback.held_by.is_(None),
        Callback.due_at == row.due_at,
        Callback.status.in_([str(CallbackStatus.SCHEDULED), str(CallbackStatus.QUEUED)]),
    )
    callback_states.change(session, row.id, CallbackStatus.SCHEDULED, *waiting, **values)
    return True


def retime(session: Session, row: Callback) -> bool:
    """Put a callback of a chosen time where its zone's rules, perhaps new, have it now; True where that moved it."""
    if row.wall_time is None or row.timezone is None or row.status != CallbackStatus.SCHEDULED:
        return False
    row.tzdata = zone_rules.version()
    try:
        due = instant(row.wall_time, row.timezone)
    except Invalid:
        log.warning("a time zone is gone; the callback keeps its time", callback=row.id)
        return False
    if due == row.due_at:
        return False
    row.expires_at += due - row.due_at
    row.due_at = row.promised_at = due
    session.flush()
    news.note_callback(session, row)
    return True


def closed_queues(
    session: Session, pairs: list[tuple[str, str | None]], now: datetime
) -> list[tuple[str, str | None]]:
    """Of these sites and queues, those where nobody may be called now."""
    found = []
    for site_id, queue in pairs:
        site = session.get(Site, site_id)
        of = hours_of(session, site, queue) if site is not None else None
        if of is not None and not hours.is_open(of.calendar, now):
            found.append((site_id, queue))
    return found


def offer_of(sessions: Sessions, site: Site, queue: str | None, day: date | None, now: datetime) -> Offer:
    """`offer` in a reading transaction of its own."""
    with sessions.read() as session:
        return offer(session, site, queue, day, now)
