"""Limits on guessing: of passwords per address and per username, of callbacks' tokens per address.

Limits that protect money live in SQL.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask import Flask, Response, request
from flask_limiter import Limiter, RateLimitExceeded

from bridge.api.address import limit_key
from bridge.api.auth import remote_address
from bridge.api.problems import problem
from bridge.api.strict import read_json
from bridge.domain.errors import RingbridgeError
from bridge.settings import Settings

View = TypeVar("View", bound=Callable[..., Any])
PER_ADDRESS = "30 per 15 minutes"
PER_USERNAME = "10 per 15 minutes"
"""From one address: who guesses elsewhere must not lock a person out of their own desk."""
PER_USERNAME_ANYWHERE = "100 per 15 minutes"
PER_ASKER = "60 per minute"
"""What is public and costs a look at the database: an office behind one address opens the form less often."""
_WAIT_SECONDS = 0.5

limiter = Limiter(
    key_func=remote_address,
    in_memory_fallback_enabled=True,
    headers_enabled=False,
    strategy="fixed-window",
    key_prefix="rb:limit",
)


def install(app: Flask, settings: Settings) -> None:
    """Count in Redis, so that every process counts together; in memory while Redis does not answer."""
    url = settings.redis_url
    if url.startswith("unix://"):
        url = "redis+" + url
    app.config["RATELIMIT_STORAGE_URI"] = url
    app.config["RATELIMIT_STORAGE_OPTIONS"] = {
        "socket_timeout": _WAIT_SECONDS,
        "socket_connect_timeout": _WAIT_SECONDS,
    }
    app.config["RATELIMIT_SWALLOW_ERRORS"] = True
    limiter.init_app(app)
    app.register_error_handler(RateLimitExceeded, _exceeded)


def _exceeded(error: RateLimitExceeded) -> Response:
    reached = limiter.current_limit
    wait = max(1, math.ceil(reached.reset_at - time.time())) if reached is not None else 60
    minutes = math.ceil(wait / 60)
    what = error.limit.error_message or "too many tries that were refused"
    return problem(
        429,
        "rate_limited",
        f"{what}; wait {minutes} minute{'s' if minutes > 1 else ''}, then try again",
        headers={"Retry-After": str(wait)},
    )


def by_address() -> str:
    """The sender, as far as a limit tells senders apart."""
    return "address:" + limit_key(remote_address())


def by_username_here() -> str:
    """That name, tried from this sender."""
    return f"{by_username()}:{by_address()}"


def by_username() -> str:
    """The name somebody tries to sign in with, hashed: it may be anything."""
    try:
        body = read_json(request.get_data())
    except RingbridgeError:
        body = None
    name = body.get("username") if isinstance(body, dict) else None
    digest = hashlib.sha256(str(name).lower().encode("utf-8", "surrogatepass")).hexdigest()
    return "username:" + digest[:32]


def was_refused(response: Response) -> bool:
    """Only a wrong password counts: whoever knows theirs is never locked out by working a lot."""
    return response.status_code == 401


def guessing(view: View) -> View:
    """A view that a callback's token opens: an address's refused tokens count together, wherever tried."""
    shared = limiter.shared_limit(PER_ADDRESS, "callback token", key_func=by_address, deduct_when=was_forbidden)
    return cast(View, shared(view))


def asking(view: View) -> View:
    """A public view that costs a look at the database: all of an address's questions count together."""
    words = "this was asked too often"
    shared = limiter.shared_limit(lambda: PER_ASKER, "asking", key_func=by_address, error_message=words)
    return cast(View, shared(view))


def was_forbidden(response: Response) -> bool:
    """The token was not this callback's."""
    return response.status_code == 403
