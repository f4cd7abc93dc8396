"""Whether a number may be called for a site: asked when a callback is accepted, and again when it is dialled."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from bridge.domain.callbacks import Due
from bridge.domain.numbers import dialable
from bridge.services import budgets, calendars, dnc, number_limits
from bridge.services.checking import protection
from bridge.settings import Settings
from bridge.store.models import Site


def check_number(session: Session, settings: Settings, site: Site, number: str) -> None:
    """Raises an Invalid whose code is the reason why this number (E.164) is not called for this site."""
    dialable(number, site.regions or settings.dialing.regions, protection(site)["block"])
    dnc.check(session, settings, site.client_id, number)
    budgets.check_price(session, settings, site, number)


def check_entry(
    session: Session,
    settings: Settings,
    site: Site,
    number: str,
    queue: str | None,
    when: str | None,
    timezone: str | None,
    now: datetime,
) -> tuple[Due, str | None]:
    """What every new callback passes, whoever asks for it; when it is due, and the id of the calendar that says so.

    Raises what `check_number` and `calendars.place` raise, RateLimited and BudgetSpent.
    """
    check_number(session, settings, site, number)
    due, calendar = calendars.place(session, site, queue, when, timezone, now)
    number_limits.check(session, site, number, max(due.at, now))
    budgets.check(session, settings, site, number, now, due.at)
    return due, calendar
