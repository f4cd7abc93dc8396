"""Who is signed in: by cookie (browsers; changes need the CSRF header too) or by bearer token (programs)."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from flask import Response, g, request

from bridge.api.address import client_address
from bridge.api.parts import now, parts
from bridge.domain.errors import Forbidden
from bridge.services import sessions
from bridge.services.access import Access

COOKIE = "rb_session"
CSRF_HEADER = "X-CSRF-Token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class CsrfMissing(Forbidden):
    """This change needs the header X-CSRF-Token with the value that signing in returned."""

    code = "csrf"


def bearer_token() -> str | None:
    """The token of the Authorization header."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def current_access() -> Access:
    """Whoever sends this request. Raises NotSignedIn, CsrfMissing."""
    known: Access | None = g.get("access")
    if known is not None:
        return known
    token = bearer_token()
    by_cookie = token is None
    token = token or request.cookies.get(COOKIE)
    if not token:
        raise sessions.NotSignedIn
    with parts().database.read() as db:
        access = sessions.find_access(db, now(), token)
    if by_cookie and request.method not in _SAFE:
        sent = request.headers.get(CSRF_HEADER, "")
        if not secrets.compare_digest(sent.encode(), access.csrf.encode()):
            raise CsrfMissing
    g.access = access
    return access


def page_access() -> Access | None:
    """The same for a page, which sends people to the sign-in instead."""
    try:
        return current_access()
    except sessions.NotSignedIn:
        return None


def set_cookie(response: Response, token: str) -> None:
    """Keep the session in the browser, out of reach of scripts."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(sessions.SIGNED_IN_FOR.total_seconds()),
        httponly=True,
        samesite="Lax",
        secure=is_https(),
        path="/",
    )


def clear_cookie(response: Response) -> None:
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="Lax", secure=is_https())


def is_https() -> bool:
    """Whether the browser speaks https; the edge passes the scheme on only when it knows it."""
    return parts().secure or (
        _behind_edge() and request.headers.get("X-Forwarded-Proto", "").lower() == "https"
    )


def remote_address() -> str:
    """The visitor's address: the edge's word on our own socket, else worked out from the trusted proxies."""
    forwarded = request.headers.get("X-Forwarded-For", "")
    if _behind_edge():
        return forwarded.rpartition(",")[2].strip() or "127.0.0.1"
    return client_address(request.remote_addr or "", forwarded, parts().settings.http.trusted_proxies)


def own_address() -> str:
    """How our own pages are reached, without a slash at its end."""
    return (parts().settings.http.public_url or request.host_url).rstrip("/")


def is_own(origin: str) -> bool:
    """Whether a request with this Origin comes from a page of ours. "null" and what is no origin never do."""
    own = {request.host, _host(parts().settings.http.public_url or "")} - {""}
    return _host(origin) in own


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _behind_edge() -> bool:
    """A unix socket has no address: only the edge can reach it."""
    return not request.environ.get("REMOTE_ADDR")
