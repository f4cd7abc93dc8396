"""What the benches share: who asks, whom they may call, and how results are told."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any

import click

from bridge.commands.rest import Rest
from bridge.domain.errors import Invalid
from bridge.domain.numbers import dialable
from bridge.settings import load

_OPTIONS = (
    click.option("--url", help="Where Ringbridge answers (default: [http] bind)."),
    click.option(
        "--token", envvar="RINGBRIDGE_TOKEN", help="An administrator's token (or $RINGBRIDGE_TOKEN)."
    ),
    click.option(
        "--username", default="admin", show_default=True, help="Sign in as, where there is no token."
    ),
    click.option(
        "--password", envvar="RINGBRIDGE_PASSWORD", help="Their password (or $RINGBRIDGE_PASSWORD)."
    ),
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and no progress.")


def by_administrator(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of an account, and call it with `admin`, signed in. Raises Invalid, Forbidden."""

    @wraps(command)
    def called(url: str | None, token: str | None, username: str, password: str | None, **rest: Any) -> Any:
        admin = Rest(url or f"http://{load().http.bind}", token)
        if token is None:
            if password is None:
                raise Invalid("give an administrator's --token, or --username and $RINGBRIDGE_PASSWORD")
            admin = admin.signed_in(username, password)
        return command(admin=admin, **rest)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called


def numbers() -> Iterator[str]:
    """Numbers of the lab's world that answer and hang up at once, each once (+1 NPA 555-018x)."""
    for last in range(10):
        for area in range(201, 990):
            number = f"+1{area}555018{last}"
            try:
                dialable(number, ["US"])
            except Invalid:
                continue
            yield number


def make_site(admin: Rest, *, pbx: str | None = None, test_mode: bool = False) -> tuple[str, str]:
    """A client and a site of the bench's own, without limits; the client's id and the site's key."""
    name = f"Bench {secrets.token_hex(4)}"
    client = admin.post("/api/v1/clients", {"name": name})["id"]
    limits = {"per_ip_hour": 100_000, "per_number_day": 1_000, "per_site_hour": 1_000_000, "tries": 1}
    wish = {
        "client_id": client,
        "name": name,
        "regions": ["US"],
        "pbx": pbx,
        "test_mode": test_mode,
        "limits": limits,
    }
    return client, admin.post("/api/v1/sites", wish)["key"]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed; None of nothing."""
    if not values:
        return None
    return round(sorted(values)[max(0, math.ceil(share * len(values)) - 1)], 1)


def spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Median and 99th percentile under their names."""
    return {f"{name}_p50_ms": percentile(values, 0.50), f"{name}_p99_ms": percentile(values, 0.99)}


def show(result: Mapping[str, object], as_json: bool) -> None:
    """One JSON object, or a line for each value."""
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, value in result.items():
        click.echo(f"{name:32} {value}")
