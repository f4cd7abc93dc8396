"""What REST and the edge must agree on; nothing here needs a framework, so the edge stays small."""

from __future__ import annotations

import json
from http import HTTPStatus

GRANT_HEADER = "X-Ringbridge-Grant"
"""Set by the edge alone, which strips it from what comes from outside."""
LOCAL_HEADER = "X-Ringbridge-Local"
"""Set by the edge alone, for a request from this machine that came through no proxy."""
LARGEST_BODY = 64 * 1024
"""Bytes of a request's body. Scripts are the largest; 20,000 characters fit in any alphabet."""
PROBLEM_TYPE = "application/problem+json"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; media-src 'self'; manifest-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
SECURITY: dict[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


_TITLES = {
    400: "Bad request",
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    409: "Conflict",
    413: "Too large",
    415: "Wrong media type",
    422: "Not acceptable",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available now",
}


def title(status: int) -> str:
    try:
        return _TITLES.get(status) or HTTPStatus(status).phrase.capitalize()
    except ValueError:
        return "Error"


def problem_body(status: int, code: str, detail: str, field: str | None = None) -> bytes:
    """A problem document where no framework makes one."""
    body: dict[str, object] = {"type": "about:blank", "title": title(status), "status": status, "code": code}
    faults = [{"field": field, "code": code, "message": detail}] if field else []
    named = {"field": field} if field else {}
    return json.dumps({**body, "detail": detail, **named, "errors": faults}).encode()
