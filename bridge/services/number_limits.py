"""How often a number may be dialled for a client, over all its sites.

Asked when a callback is accepted or moved, when a next try is planned, and again at each dial.
Counted are attempts in SQL, not requests: one request may be dialled several times.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from bridge.domain.errors import RateLimited
from bridge.domain.retrying import NO_TRY_USED
from bridge.services.site_limits import site_limits
from bridge.store.models import Attempt, Site

NUMBER_LIMIT = "number_limit"
"""Reason of a callback that was not dialled, or not again, since its number was dialled so often."""
_DAY = timedelta(days=1)
_ASK_AGAIN_SECONDS = 2 * 60 * 60


def check(session: Session, site: Site, number: str, at: datetime) -> None:
    """Raises RateLimited where this number (E.164) may not be dialled once more at that time."""
    if reached(session, site, number, at):
        raise RateLimited(
            "this number was called too often; try again later or call us",
            field="number",
            retry_after=_ASK_AGAIN_SECONDS,
        )


def reached(session: Session, site: Site, number: str, at: datetime) -> bool:
    """Whether one more dial at that time would be over a limit. Only dials that disturbed the customer count."""
    limits = site_limits(site)
    spans = ((limits["per_number_dials_day"], at - _DAY), (limits["per_number_dials"], None))
    return any(most is not None and _dialled(session, site, number, since) >= most for most, since in spans)


def _dialled(session: Session, site: Site, number: str, since: datetime | None) -> int:
    """An attempt in flight counts: its phone rings, or may."""
    disturbing = or_(Attempt.reason.is_(None), Attempt.reason.not_in(sorted(NO_TRY_USED)))
    statement = select(func.count()).where(
        Attempt.number == number, Attempt.client_id == site.client_id, disturbing
    )
    if since is not None:
        statement = statement.where(Attempt.claimed_at > since)
    return session.scalar(statement) or 0
