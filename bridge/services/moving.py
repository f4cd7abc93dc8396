"""What a visitor may change of their callback: another time by the rules of the first, or their word that they wait."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import structlog
from redis import Redis
from sqlalchemy import update
from sqlalchemy.orm import Session

from bridge.domain.attempts import CALLBACK_ENDED, CallbackStatus
from bridge.domain.errors import Conflict, NotFound, RateLimited
from bridge.live import jobs
from bridge.services import budgets, calendars, callback_states, news, number_limits, promises, zone_rules
from bridge.services.callbacks import DIAL_JOB, CallbackView, view_of
from bridge.services.permission import check_number
from bridge.services.site_limits import site_limits
from bridge.settings import Settings
from bridge.store.database import Sessions, changed
from bridge.store.models import Callback, Client, Site
from bridge.store.queries.counters import count

log = structlog.get_logger(__name__)
_MOVES = 20
"""Moves of one callback within a day."""
_DAY = timedelta(days=1)


class InFlight(Conflict):
    """You are just being called, so the time cannot be changed now; cancel, or try again when nothing rings."""

    code = "call_in_flight"


class Ended(Conflict):
    """This callback has ended; ask for a new one."""

    code = "callback_ended"


class SiteClosed(Conflict):
    """No callbacks are taken here any more; cancel this one, or call us."""

    code = "site_closed"


def move(
    sessions: Sessions,
    redis: Redis,
    settings: Settings,
    callback_id: str,
    when: str | None,
    timezone: str | None,
    *,
    now: datetime,
) -> CallbackView:
    """Put a callback at another time; `when` and `timezone` as in `Wish`. Who moves it has confirmed it.

    Tries that were used up stay so. Raises NotFound; Ended, InFlight and SiteClosed; RateLimited; and the kinds of
    Invalid that a new callback raises.
    """
    with sessions.begin() as session:
        row = _open_callback(session, callback_id)
        if row.held_by is not None:
            raise InFlight
        site = session.get(Site, row.site_id)
        if site is None or not site.active or not session.get_one(Client, site.client_id).active:
            raise SiteClosed
        check_number(session, settings, site, row.number)
        due, calendar = calendars.place(session, site, row.queue, when, timezone, now, moved=row.id)
        number_limits.check(session, site, row.number, max(due.at, now))
        budgets.check(session, settings, site, row.number, now, due.at)
        if count(session, "callback_moves", row.id, _DAY, now) > _MOVES:
            raise RateLimited(
                "this callback was moved too often; cancel it, or call us",
                retry_after=int(_DAY.total_seconds() / 12),
            )
        later = due.at > now
        values: dict[str, Any] = {
            "wall_time": due.wall_time,
            "timezone": due.timezone,
            "tzdata": zone_rules.version() if due.timezone else None,
            "calendar_id": calendar,
            "due_at": due.at,
            # Who is called now keeps the place in the line; who chose a later time joins it then.
            "joined_at": due.at if later else min(row.joined_at or now, now),
            "expires_at": max(due.at, now) + timedelta(hours=site_limits(site)["expire_hours"]),
            **_promise(session, settings, site, row, due.at, now),
            "confirmed_at": now,
            "reason": None,
            "queued_at": None if later else now,
        }
        status = CallbackStatus.SCHEDULED if later else CallbackStatus.QUEUED
        waiting = (
            Callback.held_by.is_(None),
            Callback.status.in_([str(CallbackStatus.SCHEDULED), str(CallbackStatus.QUEUED)]),
        )
        if not callback_states.change(session, row.id, status, *waiting, **values):
            raise InFlight
    if later:
        news.publish(redis, session)
    elif not jobs.enqueue(redis, jobs.DIAL, DIAL_JOB, row.id, also=lambda pipe: news.write(pipe, session)):
        log.warning("no job for now; the sweep will find the callback", callback=row.id)
    return view_of(row)


def confirm(sessions: Sessions, redis: Redis, callback_id: str, *, now: datetime) -> CallbackView:
    """Keep the visitor's word that they wait for the call. Raises NotFound, Ended."""
    with sessions.begin() as session:
        row = _open_callback(session, callback_id)
        changed(session, update(Callback).where(Callback.id == row.id).values(confirmed_at=now))
        session.refresh(row)
        news.note_callback(session, row)
    news.publish(redis, session)
    return view_of(row)


def _open_callback(session: Session, callback_id: str) -> Callback:
    row = session.get(Callback, callback_id, with_for_update=True)
    if row is None:
        raise NotFound("there is no such callback")
    if CallbackStatus(row.status) in CALLBACK_ENDED:
        raise Ended(f"this callback has ended as {row.status}; ask for a new one")
    return row


def _promise(
    session: Session, settings: Settings, site: Site, row: Callback, due: datetime, now: datetime
) -> dict[str, Any]:
    made = promises.made(session, settings, site, row.queue, due, now)
    # A promise that was judged already stays so; the new one is told, and counts no more.
    return made if row.promise_kept is None else {"promised_at": made["promised_at"]}
