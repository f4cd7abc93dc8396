"""A site's limits as they stand: its own over the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.domain.retrying import MAX_TRIES, RETRY_MINUTES, rules_of
from bridge.store.models import Site


def site_limits(site: Site | None) -> Mapping[str, Any]:
    """The site's limits over the defaults; a value of the wrong kind counts as absent."""
    own = dict(site.limits) if site is not None else {}
    out: dict[str, Any] = {
        "per_ip_hour": 3,
        "per_network_hour": None,
        "per_number_day": 3,
        "per_site_hour": 60,
        "per_number_dials_day": None,
        "per_number_dials": None,
        "tries": MAX_TRIES,
        "expire_hours": 8,
    }
    for name in out:
        value = own.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
            out[name] = value
    if out["per_network_hour"] is None:
        # An office or a carrier's gateway is one address for many people, its network seldom more than ten.
        out["per_network_hour"] = out["per_ip_hour"] * 10
    out["retry"] = rules_of(own.get("retry"))
    waits = own.get("retry_minutes")
    good = isinstance(waits, list) and waits and all(isinstance(w, (int, float)) and w >= 0 for w in waits)
    out["retry_minutes"] = tuple(waits) if good and isinstance(waits, list) else RETRY_MINUTES
    return out
