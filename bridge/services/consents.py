"""The record of consent: written with the callback, in its transaction; verified by `ringbridge db verify-consent`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bridge.domain.consent import FIRST, Consent, Kept, first_fault, seal
from bridge.store.database import Sessions
from bridge.store.models import Callback, ConsentRecord
from bridge.store.queries.keys import wait_for_lock

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Verified:
    """A site's chain: its entries, the last one's seal (kept elsewhere it shows a cut end), and what is wrong."""

    site: str
    entries: int
    last: str
    fault: str | None


def keep(
    session: Session, key: bytes, *, client: str, site: str, callback: str, at: datetime, text: str,
    page_url: str, ip_hash: str, number_hash: str,
) -> int:  # fmt: skip
    """Add an entry to the site's chain; its number."""
    # Two at once must not follow the same entry.
    wait_for_lock(session, f"consent:{site}")
    last = session.execute(
        select(ConsentRecord.number, ConsentRecord.seal)
        .where(ConsentRecord.site_id == site)
        .order_by(ConsentRecord.number.desc())
        .limit(1)
    ).one_or_none()
    number, before = (last.number + 1, last.seal) if last is not None else (1, FIRST)
    consent = Consent(
        site=site, number=number, callback=callback, at=at, text=text, page_url=page_url,
        ip_hash=ip_hash, number_hash=number_hash,
    )  # fmt: skip
    session.add(
        ConsentRecord(
            site_id=site, number=number, client_id=client, callback_id=callback, at=at, text=text, page_url=page_url,
            ip_hash=ip_hash, number_hash=number_hash, seal=seal(key, consent, before),
        )
    )
    session.flush()
    return number


def verify(sessions: Sessions, key: bytes) -> list[Verified]:
    """Every site's chain, checked entry by entry, and that each callback that has an entry agrees with it."""
    with sessions.read() as session:
        sites = set(session.scalars(select(ConsentRecord.site_id).distinct()))
        sites |= set(session.scalars(select(Callback.site_id).where(Callback.consent_number.is_not(None)).distinct()))
        return [_verify(session, key, site) for site in sorted(sites)]


def _verify(session: Session, key: bytes, site: str) -> Verified:
    last, entries = FIRST, 0

    def chain() -> Iterator[Kept]:
        nonlocal last, entries
        after: int | None = None
        while rows := _some(session, site, after):
            for row in rows:
                last, entries, after = row.seal, entries + 1, row.number
                yield Kept(_consent(row), row.seal)

    fault = first_fault(key, chain())
    if fault is None:
        fault = _disagreeing(session, site)
    return Verified(site, entries, last, fault)


def _some(session: Session, site: str, after: int | None) -> Sequence[ConsentRecord]:
    rows = select(ConsentRecord).where(ConsentRecord.site_id == site).order_by(ConsentRecord.number).limit(_BATCH)
    return session.scalars(rows if after is None else rows.where(ConsentRecord.number > after)).all()


def _disagreeing(session: Session, site: str) -> str | None:
    """A callback whose entry is gone, as at the end of a chain that was cut, or that tells another text."""
    same = (
        (ConsentRecord.callback_id == Callback.id)
        & (ConsentRecord.number == Callback.consent_number)
        & (ConsentRecord.text == Callback.consent_text)
    )
    lost = session.scalar(
        select(func.min(Callback.consent_number))
        .outerjoin(ConsentRecord, same)
        .where(Callback.site_id == site, Callback.consent_number.is_not(None), ConsentRecord.number.is_(None))
    )
    return None if lost is None else f"a callback names entry {lost}, which is missing or says something else"


def _consent(row: ConsentRecord) -> Consent:
    return Consent(
        site=row.site_id,
        number=row.number,
        callback=row.callback_id,
        at=row.at,
        text=row.text,
        page_url=row.page_url,
        ip_hash=row.ip_hash,
        number_hash=row.number_hash,
    )
