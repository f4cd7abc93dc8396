"""A client company's web shop, on an origin of its own, with the callback widget in its pages.

The demo shows it to people, and the browser tests use the same. Its policy is as strict as a page's can be, so that
what the widget needs of a page stays known: a script and connections to Ringbridge, and nothing inline.
"""

from __future__ import annotations

import html
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from threading import Thread

FOLDER = Path(__file__).parent / "shop"
TEL = "+1 212 555 0101"
_FILES = {"/": "index.html", "/contact": "contact.html", "/shop.css": "shop.css"}


class Storefront:
    """A web server in a thread; `origin` is known from the start, the rest when the site is made."""

    def __init__(self, port: int = 0) -> None:
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """The demo's terminal is for the demo."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.pages: dict[str, str] = {}
        """More pages, by path, as templates."""
        self._words = {"api": "", "site": "", "tel": TEL, "dial": TEL.replace(" ", ""), "consent": ""}
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def open(self, api: str, site: str, consent: str = "") -> None:
        """Say where Ringbridge is, the site's key, and what a visitor agrees to."""
        self._words |= {"api": api, "site": site, "consent": consent}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def policy(self) -> str:
        api = self._words["api"]
        return (
            f"default-src 'none'; script-src {api}; connect-src {api}; style-src 'self'; img-src data:; "
            f"form-action {api}; base-uri 'none'; require-trusted-types-for 'script'"
        )

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        name = _FILES.get(path)
        text = self.pages.get(path) or ((FOLDER / name).read_text(encoding="utf-8") if name else "")
        body = text if path.endswith(".css") else self._filled(text)
        kind = "text/css" if path.endswith(".css") else "text/html"
        handler.send_response(HTTPStatus.OK if text else HTTPStatus.NOT_FOUND)
        handler.send_header("Content-Type", f"{kind}; charset=utf-8")
        handler.send_header("Content-Security-Policy", self.policy)
        handler.send_header("Content-Length", str(len(body.encode())))
        handler.end_headers()
        handler.wfile.write(body.encode())

    def _filled(self, text: str) -> str:
        return Template(text).substitute({name: html.escape(word) for name, word in self._words.items()})
