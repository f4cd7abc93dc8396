"""Whether a page and not a flood asks: the puzzle of `domain.proof`, or another check that is installed.

Another check is a Python entry point of the group `ringbridge.checks`, named as the site's `protection.proof` names
it: a callable of `(proof, ip)` that says whether it passes. One that is missing or fails lets nobody in.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import structlog
from sqlalchemy.orm import Session

from bridge.domain.addresses import wide_network
from bridge.domain.errors import RateLimited, Unavailable
from bridge.domain.keyed import keyed_hash
from bridge.domain.proof import (
    BITS,
    FEWEST_BITS,
    MOST_BITS,
    ProofInvalid,
    ProofNeeded,
    bits_under_load,
    check_pass,
    check_proof,
    is_pass,
    new_challenge,
    new_pass,
)
from bridge.services.refusals import REFUSED
from bridge.services.site_limits import site_limits
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Attempt, Callback, Site
from bridge.store.queries import counters

log = structlog.get_logger(__name__)
OFF, WORK = "off", "work"
GROUP = "ringbridge.checks"
_PASS = "pass:"
_HOUR = timedelta(hours=1)
_KEPT = timedelta(hours=2)
"""Longer than anything that is good once is good."""
Check = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a page is asked to solve."""

    challenge: str
    bits: int


def protection(site: Site) -> Mapping[str, Any]:
    """The site's own protection over the defaults; a value of the wrong kind counts as absent."""
    proof, bits = site.protection.get("proof"), site.protection.get("bits")
    return {
        "proof": proof if isinstance(proof, str) and proof else OFF,
        "bits": bits if isinstance(bits, int) and FEWEST_BITS <= bits <= MOST_BITS else BITS,
        "block": [each for each in site.protection.get("block") or [] if isinstance(each, str)],
    }


def prompt_of(session: Session, attempt: Attempt) -> str | None:
    """The sound after which this attempt's customer has to press 1; None where an agent is called first or nobody asks.

    As the site has it now: what was switched on after the claim is asked too.
    """
    callback = session.get(Callback, attempt.callback_id) if attempt.callback_id and not attempt.agent_first else None
    site = session.get(Site, callback.site_id) if callback is not None else None
    prompt = site.protection.get("press_1") if site is not None else None
    return prompt if isinstance(prompt, str) and prompt else None


def challenge(sessions: Sessions, settings: Settings, site: Site, *, now: datetime) -> Challenge | None:
    """A new challenge, harder the more is asked of the site; None where it wants none of ours. Raises Unavailable."""
    wanted = protection(site)
    if wanted["proof"] != WORK:
        return None
    with sessions.read() as session:
        asked = sum(counters.total(session, scope, site.id, _HOUR, now) for scope in ("callback_site", REFUSED))
    bits = bits_under_load(wanted["bits"], asked, int(site_limits(site)["per_site_hour"]))
    made = new_challenge(settings.secret_key(), site.id, bits, secrets.token_bytes(12), now)
    return Challenge(made, bits)


def check(settings: Settings, site: Site, proof: str | None, ip: str, *, now: datetime) -> str | None:
    """What `use_once` takes; None where the site wants no puzzle. Raises ProofNeeded, ProofInvalid, TooSoon,
    Unavailable.
    """
    kind = protection(site)["proof"]
    if kind == OFF:
        return None
    if not proof:
        raise ProofNeeded(field="proof")
    if kind == WORK and is_pass(proof):
        return f"{_PASS}{check_pass(settings.secret_key(), site.id, proof, now)}"
    if kind == WORK:
        return check_proof(settings.secret_key(), site.id, proof, now)
    installed = _installed(kind)
    if installed is None:
        log.error("a site asks for a check that is not installed", site=site.id, check=kind)
        raise Unavailable("callbacks cannot be taken here now; call us")
    try:
        passed = installed(proof, ip)
    except Exception as error:  # noqa: BLE001
        # Somebody else's code: whatever it raises, nobody gets in by it.
        log.error("a site's check failed", site=site.id, check=kind, error=type(error).__name__)
        raise Unavailable("callbacks cannot be taken here now; call us") from None
    if not passed:
        raise ProofInvalid(field="proof")
    return None


def waiting_pass(settings: Settings, site: Site, *, now: datetime) -> str | None:
    """What the plain form of a site with a puzzle carries, since it cannot solve one; None for other sites."""
    if protection(site)["proof"] != WORK:
        return None
    return new_pass(settings.secret_key(), site.id, secrets.token_bytes(12), now)


def use_once(session: Session, settings: Settings, site: Site, name: str, ip: str, now: datetime) -> None:
    """Count a solved challenge, or a pass of the plain form, in the caller's transaction.

    Passes cost a flood nothing but time, so they are few: a whole network has as many in an hour as
    one address has wishes, the site a quarter of all it takes. Raises ProofInvalid where it was used before,
    RateLimited.
    """
    if counters.count(session, "challenge", f"{site.id}:{name}", _KEPT, now) > 1:
        raise ProofInvalid(field="proof")
    if not name.startswith(_PASS):
        return
    limits = site_limits(site)
    network = keyed_hash(settings.secret_key(), "network", wide_network(ip))
    for scope, subject, most in (
        ("plain_network", f"{site.id}:{network}", max(1, int(limits["per_ip_hour"]))),
        ("plain_site", site.id, max(1, int(limits["per_site_hour"]) // 4)),
    ):
        if counters.count(session, scope, subject, _HOUR, now) > most:
            raise RateLimited(
                "too many callbacks were asked for without scripts; try again later or call us",
                retry_after=int(_HOUR.total_seconds() / 12),
            )


@cache
def _installed(name: str) -> Check | None:
    found = entry_points(group=GROUP, name=name)
    loaded: Check | None = next(iter(found)).load() if found else None
    return loaded
