"""Callbacks that come from the telephone: the row they all become, and what is asked of them again before each dial."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from bridge.domain import hours
from bridge.domain.attempts import CALLBACK_ENDED, CallbackStatus
from bridge.domain.calls import CallEventType
from bridge.domain.errors import RateLimited
from bridge.domain.keyed import keyed_hash
from bridge.services import budgets, calendars, news, number_limits
from bridge.services.permission import check_number
from bridge.services.site_limits import site_limits
from bridge.settings import Settings
from bridge.store.models import Call, Callback, CallEventRow, Site, new_id
from bridge.store.queries.counters import count_each

WEB, QUEUE, MISSED = "web", "queue", "missed"
GOT_THROUGH = "got_through"
"""Reason of a callback that is not made, since its customer and somebody of the company have talked meanwhile."""
_LONGEST_CALL = timedelta(hours=4)
"""What began before this and has no end was lost track of: nobody is kept from being called by it."""
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


def add(
    session: Session,
    settings: Settings,
    site: Site,
    number: str,
    *,
    source: str,
    queue: str | None,
    joined_at: datetime,
    due: datetime,
    now: datetime,
) -> Callback:
    """A new callback of this number (E.164), under the same rules as one from the web.

    Raises what `check_number` does, and RateLimited (a spent budget too), and leaves its count to be taken back.
    """
    check_number(session, settings, site, number)
    number_limits.check(session, site, number, max(due, now))
    budgets.check(session, settings, site, number, now, due)
    _limit(session, settings, site, number, now)
    later = due > now
    row = Callback(
        id=new_id(),
        created_at=now,
        client_id=site.client_id,
        site_id=site.id,
        number=number,
        source=source,
        joined_at=joined_at,
        queue=queue,
        due_at=due,
        expires_at=max(due, now) + timedelta(hours=site_limits(site)["expire_hours"]),
        status=str(CallbackStatus.SCHEDULED if later else CallbackStatus.QUEUED),
        queued_at=None if later else now,
    )
    session.add(row)
    session.flush()
    news.note_callback(session, row)
    return row


def _limit(session: Session, settings: Settings, site: Site, number: str, now: datetime) -> None:
    """The limits of the web form that are no address's, in the form's own counters."""
    limits = site_limits(site)
    hashed = keyed_hash(settings.secret_key(), "number", number)
    asked = [("callback_number", f"{site.client_id}:{hashed}", _DAY), ("callback_site", site.id, _HOUR)]
    counts = count_each(session, asked, now)
    for found, most in zip(counts, (limits["per_number_day"], limits["per_site_hour"]), strict=True):
        if found > most:
            raise RateLimited("too many callbacks were asked for")


def waiting(session: Session, client: str, number: str) -> Callback | None:
    """The number's callback that is still to be made, over all sites of the client; the oldest."""
    return session.scalar(
        select(Callback)
        .where(
            Callback.client_id == client,
            Callback.number == number,
            Callback.status.not_in([str(status) for status in CALLBACK_ENDED]),
        )
        .order_by(Callback.created_at, Callback.id)
        .limit(1)
    )


def got_through(session: Session, client: str, number: str, since: datetime) -> bool:
    """Whether this number and somebody of the company have talked since then, whoever called whom."""
    talked = and_(Call.connected_at.is_not(None), Call.connected_at >= since)
    found = select(Call.id).where(Call.client_id == client, Call.customer_number == number, talked)
    return session.scalar(found.limit(1)) is not None


def on_the_line(session: Session, client: str, number: str, now: datetime) -> bool:
    """Whether this number is in a call with the company right now, talking or not; a dial of ours is none."""
    return (
        session.scalar(
            select(Call.id)
            .where(
                Call.client_id == client,
                Call.customer_number == number,
                Call.ended_at.is_(None),
                Call.started_at > now - _LONGEST_CALL,
                or_(Call.direction.is_(None), Call.direction == "inbound"),
                Call.attempt_id.is_(None),
            )
            .limit(1)
        )
        is not None
    )


def closed(session: Session, site: Site, queue: str | None, at: datetime) -> bool:
    """Whether nobody would call then, nor later; else a callback of closed hours waits for the next open one."""
    found = calendars.hours_of(session, site, queue)
    if found is None or hours.is_open(found.calendar, at):
        return False
    return site.when_closed == "refuse" or hours.next_open(found.calendar, at) is None


def joined(session: Session, call: Call) -> datetime:
    """When the caller joined the queue they left from; else when they called."""
    queued = CallEventRow.type == str(CallEventType.QUEUED)
    events = select(CallEventRow.at, CallEventRow.data).where(CallEventRow.call_id == call.id, queued)
    joined = [at for at, data in session.execute(events) if data.get("queue") == call.queue]
    return min(joined, default=call.started_at)
