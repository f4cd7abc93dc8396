"""Whether a number may be called for a site: asked when a callback is accepted, and again when it is dialled."""

from __future__ import annotations

from sqlalchemy.orm import Session

from bridge.domain.numbers import dialable
from bridge.services import budgets, dnc
from bridge.services.checking import protection
from bridge.settings import Settings
from bridge.store.models import Site


def check_number(session: Session, settings: Settings, site: Site, number: str) -> None:
    """Raises an Invalid whose code is the reason why this number (E.164) is not called for this site."""
    dialable(number, site.regions or settings.dialing.regions, protection(site)["block"])
    dnc.check(session, settings, site.client_id, number)
    budgets.check_price(session, settings, site, number)
