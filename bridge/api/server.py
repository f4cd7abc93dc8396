"""The HTTP server under the edge: gevent's, with deadlines on every read and no traceback that shows a request."""

from __future__ import annotations

import io
import os
import resource
import socket as native
from http import HTTPStatus
from typing import Any

import gevent
import structlog
from gevent import socket
from gevent.pywsgi import Input, WSGIHandler, WSGIServer, headers_factory

from bridge.api.head import BadHead, check_request_line, read_head
from bridge.api.policy import PROBLEM_TYPE, problem_body
from bridge.domain.errors import Conflict, SettingsError

log = structlog.get_logger(__name__)

IDLE_SECONDS = 75.0
HEAD_SECONDS = 10.0
WRITE_SECONDS = 30.0
"""A peer that takes nothing for so long is gone."""
DISCARD_SECONDS = 5.0
DISCARD_BYTES = 1024 * 1024
"""So much of a body that nobody wanted is read, so that its sender hears the answer; then the connection ends."""
BACKLOG = 1024
MOST_CONNECTIONS = 8192
_FILES = 16_384


class Body(Input):  # type: ignore[misc]  # gevent's class is untyped
    """A request's body, of which little is read when nobody wants it."""

    def __init__(self, given: Input) -> None:
        super().__init__(given.rfile, given.content_length, given.socket, given.chunked_input)
        self.left_over = False

    def _discard(self) -> None:
        if not self.chunked_input and self.position >= (self.content_length or 0):
            return
        if self._chunked_input_error:
            self.left_over = True
            return
        self.send_100_continue_enabled = False
        self.left_over = True
        with gevent.Timeout(DISCARD_SECONDS, False):
            for _ in range(DISCARD_BYTES // 16384):
                if not self.read(16384):
                    self.left_over = False
                    return


class Handler(WSGIHandler):  # type: ignore[misc]  # gevent's class is untyped
    """One connection."""

    path: str
    wsgi_input: Any

    def handle(self) -> None:
        self.socket.settimeout(WRITE_SECONDS)
        try:
            super().handle()
        except OSError:
            return

    def read_requestline(self) -> Any:
        late = gevent.Timeout.start_new(IDLE_SECONDS)
        self.socket.settimeout(IDLE_SECONDS)
        try:
            return super().read_requestline()
        except gevent.Timeout:
            return b""
        finally:
            late.close()
            self.socket.settimeout(WRITE_SECONDS)

    def read_request(self, raw_requestline: str) -> bool:
        late = gevent.Timeout.start_new(HEAD_SECONDS)
        try:
            check_request_line(raw_requestline)
            return bool(super().read_request(raw_requestline))
        except gevent.Timeout:
            return False
        finally:
            late.close()

    def MessageClass(self, file: Any, *_rest: Any) -> Any:
        return headers_factory(io.BytesIO(read_head(file, self.request_version)))

    def handle_one_response(self) -> None:
        super().handle_one_response()
        if self.wsgi_input.left_over:
            self.close_connection = True

    def get_environ(self) -> dict[str, Any]:
        # An absolute target (`GET http://host/path`) is what proxies are sent; only its path counts here.
        if not self.path.startswith("/"):
            self.path = "/" + self.path.split("://", 1)[1].partition("/")[2]
        environ: dict[str, Any] = super().get_environ()
        self.wsgi_input = environ["wsgi.input"] = Body(self.wsgi_input)
        environ["RAW_PATH"] = self.path
        # Event streams write to it themselves, once their headers are out.
        environ["ringbridge.socket"] = self.socket
        return environ

    def log_request(self) -> None:
        """REST counts requests; a line for each would hold tokens."""

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        log.error("the edge failed on a request", error=getattr(t, "__name__", str(t)))

    def _handle_client_error(self, ex: Exception) -> tuple[str, bytes]:
        bad = ex if isinstance(ex, BadHead) else BadHead()
        return str(bad.status), _raw(bad.status, HTTPStatus(bad.status).phrase, bad.code, bad.detail)

    def handle_one_request(self) -> Any:
        result = super().handle_one_request()
        if isinstance(result, tuple) and str(result[0])[:3] == "414":
            return "414", _raw(414, "URI Too Long", "uri_too_long", "the address is too long")
        if isinstance(result, tuple) and str(result[0])[:3] == "400":
            return self._handle_client_error(ValueError())
        return result


def _raw(status: int, title: str, code: str, detail: str) -> bytes:
    body = problem_body(status, code, detail)
    head = (
        f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: {PROBLEM_TYPE}\r\n"
        f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def listen(bind: str) -> socket.socket:
    """A listening socket. Raises Conflict where the port is taken, SettingsError where we may not listen."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, proto, _, address = native.getaddrinfo(host, int(port), type=native.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(native.SOL_SOCKET, native.SO_REUSEADDR, 1)
        # Connections inherit it. Without it an answer's body waits for the browser to acknowledge the head: 40 ms.
        sock.setsockopt(native.IPPROTO_TCP, native.TCP_NODELAY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except native.gaierror:
        raise SettingsError(f"[http] bind: {host!r} is no address of this machine") from None
    except OSError as error:
        if error.errno == 98 or "in use" in str(error).lower():
            raise Conflict(
                f"{bind} is taken by another program; stop it, or set another [http] bind"
            ) from None
        raise SettingsError(f"[http] bind {bind}: {os.strerror(error.errno or 0)}") from None
    return sock


def make_server(sock: socket.socket, application: Any) -> WSGIServer:
    """A server on that socket, not yet started."""
    return WSGIServer(
        sock,
        application,
        handler_class=Handler,
        log=None,
        error_log=None,
        spawn=MOST_CONNECTIONS,
        environ={"SERVER_SOFTWARE": "ringbridge"},
    )


def allow_many_files() -> None:
    """Each stream is a file: use what the system allows, up to what is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
