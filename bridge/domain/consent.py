"""A record of what people agreed to, in which a change shows: each entry's hash covers the one before it, under a key.

No clock, no I/O.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

FIRST = "0" * 64
"""What stands where there is no entry before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """The text as it was shown, when, on which page, from which address (hashed), for which callback."""

    site: str
    number: int
    """From 1, without gaps, per site."""
    callback: str
    at: datetime
    text: str
    page_url: str
    ip_hash: str
    number_hash: str


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry as it was found."""

    consent: Consent
    seal: str


def seal(key: bytes, consent: Consent, before: str) -> str:
    """The entry's hash, over the one before it."""
    said = {**asdict(consent), "at": consent.at.astimezone(UTC).isoformat(timespec="microseconds"), "before": before}
    return hmac.new(key, b"consent:" + json.dumps(said, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def first_fault(key: bytes, chain: Iterable[Kept]) -> str | None:
    """Where a site's chain is broken, in words; None where every entry is as it was written."""
    before, expected = FIRST, 1
    for kept in chain:
        if kept.consent.number != expected:
            return f"entry {expected} is missing"
        if not hmac.compare_digest(seal(key, kept.consent, before), kept.seal):
            return f"entry {expected} was changed, or one before it was put in its place"
        before, expected = kept.seal, expected + 1
    return None
