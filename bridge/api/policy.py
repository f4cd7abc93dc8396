"""What REST and the edge must agree on; nothing here needs a framework, so the edge stays small."""

from __future__ import annotations

import json

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


def problem_body(status: int, title: str, code: str, detail: str) -> bytes:
    """A problem document where no framework makes one."""
    return json.dumps(
        {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail, "errors": []}
    ).encode()
