"""Callers whom nobody answered become callbacks, where a site of theirs wants it (`sites.missed`).

Made in the transaction that stores the end of their call, so one end makes one callback, however often it is read.
Whether they got through since is asked again before each dial (`services.dialling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.domain.calls import CallEventType, Cause
from bridge.domain.errors import Invalid, RateLimited
from bridge.domain.keyed import keyed_hash
from bridge.domain.numbers import parse_number
from bridge.services import phoned
from bridge.services.site_limits import site_limits
from bridge.settings import Settings
from bridge.store.models import Call, Callback, CallEventRow, Client, Did, Site
from bridge.store.queries.counters import count

log = structlog.get_logger(__name__)

MISSED = Counter("ringbridge_missed_calls_total", "Calls to a DID whose missed callers are called back", ["then"])

MIN_WAIT_SECONDS = 5
DELAY_MINUTES = 1
_DAY = timedelta(days=1)
_NOBODY = frozenset({str(Cause.CANCELLED), str(Cause.NO_ANSWER), str(Cause.BUSY), str(Cause.REJECTED)})
"""Ends of a call that rang at phones; `abandoned` is that of one that waited in a queue."""


def call_back(session: Session, settings: Settings, calls: Sequence[Call], now: datetime) -> list[Callback]:
    """Callbacks for those of these ended calls that were missed. Raises for the database only."""
    made = []
    for call in calls:
        if not _missed(session, call):
            continue
        site = _site(session, call)
        if site is None:
            continue
        made_of = _call_back(session, settings, call, site, now)
        if isinstance(made_of, Callback):
            made.append(made_of)
        then = "callback" if isinstance(made_of, Callback) else made_of
        MISSED.labels(then).inc()
        log.info("missed call", call=call.id, site=site.id, then=then)
    return made


def _missed(session: Session, call: Call) -> bool:
    """A caller from outside, with a number, with whom nobody talked though they waited or phones rang for them."""
    if call.direction != "inbound" or call.connected_at is not None or call.attempt_id is not None:
        return False
    if call.client_id is None or not call.customer_number or call.ended_at is None:
        return False
    if call.cause == Cause.ABANDONED:
        return True
    if call.cause not in _NOBODY:
        return False
    rang = (str(CallEventType.OFFERED), str(CallEventType.UNOFFERED))
    phones = select(CallEventRow.seq).where(CallEventRow.call_id == call.id, CallEventRow.type.in_(rang))
    return session.scalar(phones.limit(1)) is not None


def _site(session: Session, call: Call) -> Site | None:
    """The client's site that calls back who dialled this DID; the oldest where several would."""
    client = session.get(Client, call.client_id or "")
    if client is None or not client.active:
        return None
    dialled = {str(text) for text in (_of(call.to_party, "number"), _of(call.to_party, "extension")) if text}
    for text in list(dialled):
        try:
            dialled.add(parse_number(text, client.region))
        except Invalid:
            continue
    # Only its own client's: a DID may have gone to another company since the site named it.
    own = set(session.scalars(select(Did.number).where(Did.number.in_(dialled), Did.client_id == client.id)))
    sites = select(Site).where(Site.client_id == client.id, Site.active).order_by(Site.created_at, Site.id)
    return next((site for site in session.scalars(sites) if own & set(site.missed.get("dids") or ())), None)


def _call_back(
    session: Session, settings: Settings, call: Call, site: Site, now: datetime
) -> Callback | str:
    """The callback, or why there is none."""
    number, ended = str(call.customer_number), call.ended_at or now
    if (ended - call.started_at).total_seconds() < _setting(site, "min_wait_seconds", MIN_WAIT_SECONDS):
        return "too_short"
    due = max(ended + timedelta(minutes=_setting(site, "delay_minutes", DELAY_MINUTES)), now)
    if now - ended >= timedelta(hours=site_limits(site)["expire_hours"]):
        return "too_late"
    if phoned.waiting(session, site.client_id, number) is not None:
        return "waits_already"
    if phoned.got_through(session, site.client_id, number, call.started_at):
        return phoned.GOT_THROUGH
    if phoned.closed(session, site, call.queue, due):
        return "outside_hours"
    hashed = keyed_hash(settings.secret_key(), "number", number)
    try:
        # Taken back whole where it is refused, so that a refusal uses up no limit.
        with session.begin_nested():
            if count(session, "missed_number", f"{site.client_id}:{hashed}", _DAY, now) > 1:
                raise RateLimited("this number was called back today", code="once_a_day")
            return phoned.add(
                session,
                settings,
                site,
                number,
                source=phoned.MISSED,
                queue=call.queue,
                joined_at=phoned.joined(session, call),
                due=due,
                now=now,
            )
    except RateLimited as error:
        return str(error.details.get("code") or error.code)
    except Invalid as error:
        return error.code


def _setting(site: Site, name: str, default: int) -> int:
    value = site.missed.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def _of(party: dict[str, Any] | None, name: str) -> Any:
    return (party or {}).get(name)
