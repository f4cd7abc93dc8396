"""Headers that every answer carries: what a browser may load, and what it may tell others."""

from __future__ import annotations

from flask import Flask, Response, request

from bridge.api.policy import SECURITY

_YEAR = 31_536_000


def install(app: Flask, *, https: bool) -> None:
    """Add the headers to every answer of the app, errors too."""

    def add(response: Response) -> Response:
        for name, value in SECURITY.items():
            response.headers.setdefault(name, value)
        if https:
            response.headers.setdefault("Strict-Transport-Security", f"max-age={_YEAR}")
        if not request.path.startswith("/static/"):
            response.headers.setdefault("Cache-Control", "no-store")
        # A form on another site reads the answers of the public part; nobody else reads any.
        if "Access-Control-Allow-Origin" not in response.headers:
            response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        else:
            response.headers.setdefault("Cross-Origin-Resource-Policy", "cross-origin")
        return response

    app.after_request(add)
