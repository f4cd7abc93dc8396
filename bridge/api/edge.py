"""The edge: event streams and static files from here, everything else from REST.

It runs on one gevent hub without monkey-patching: no SQL, no password hashing, no secret is read here, and the only
native thread reads Redis. So nothing can freeze the streams.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

import gevent
import structlog
from gevent import socket

from bridge.api.address import client_address, is_trusted
from bridge.api.fanout import Fanout, Stream, chunk, entry_id, frame
from bridge.api.policy import (
    GRANT_HEADER,
    LARGEST_BODY,
    LOCAL_HEADER,
    PROBLEM_TYPE,
    SECURITY,
    problem_body,
)
from bridge.api.reader import Reader
from bridge.api.static_files import File, StaticFiles
from bridge.api.upstream import Reply, RestDown, Upstream, passed_on
from bridge.api.widget_script import WidgetScript
from bridge.live.screens import ScreenEvent
from bridge.settings import Settings

log = structlog.get_logger(__name__)

Environ = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], Any]

HEARTBEAT_SECONDS = 15.0
RETRY_MS = 2000
CHECK_SECONDS = 20.0
"""How often it is asked which sessions still stand."""
CHECK_AT_ONCE = 500
BODY_SECONDS = 20.0
MOST_STREAMS = 5000
MOST_PUBLIC = 50
"""Streams without a session from one address."""
LONGEST_SECONDS = 4 * 3600.0
_ENDS_SESSIONS = re.compile(r"/api/v1/(session|agents/[^/]+)")
"""Addresses a successful change of which may end sessions: then it is asked at once."""
_STREAM = re.compile(r"/api/v1/(me|board)/events|/api/v1/callbacks/[^/]+/events")
_LOOPBACK = ("127.0.0.0/8", "::1")
_PING = b": still here\n\n" + frame("ping", "{}")
_PING_CHUNK = chunk(_PING)


class Edge:
    """The WSGI application of the edge process."""

    def __init__(self, settings: Settings, upstream: Upstream, static: Path) -> None:
        self.fanout = Fanout()
        self._settings = settings
        self._upstream = upstream
        self._static = StaticFiles(static)
        self._widget = WidgetScript(self._static)
        self._reader = Reader(settings, self._hear)
        self._draining = False

    def start(self) -> None:
        """Begin to read Redis and to look after sessions."""
        self._reader.start()
        gevent.spawn(self._check_for_ever)

    def drain(self) -> None:
        """End every stream; browsers come back to whoever listens then."""
        self._draining = True
        self._reader.stop()
        for stream in self.fanout.streams:
            stream.close()

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if path.startswith("/static/"):
            return self._serve_file(environ, start, method, path.removeprefix("/static/"))
        if path == "/widget.js":
            return self._serve_widget(environ, start, method)
        if path.startswith("/edge/"):
            return _problem(start, 404, "not_found", "there is nothing at this address")
        try:
            if method == "GET" and _STREAM.fullmatch(path):
                return self._open_stream(environ, start)
            return self._pass_on(environ, start)
        except _Refused as refused:
            return _problem(start, refused.status, refused.code, refused.detail)
        except RestDown as down:
            self.fanout.counts.refused += 1
            code = "busy" if down.busy else "rest_down"
            detail = (
                "Ringbridge has too much to do; try again in a moment"
                if down.busy
                else "this part of Ringbridge is just starting or has stopped; try again in a moment"
            )
            return _problem(start, 503, code, detail, [("Retry-After", "2")])

    # Requests to REST

    def _pass_on(self, environ: Environ, start: Start) -> Iterable[bytes]:
        reply = self._upstream.ask(
            environ["REQUEST_METHOD"], _target(environ), self._headers(environ), _body(environ)
        )
        body = reply.body
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if method in ("DELETE", "PATCH") and reply.status < 300 and _ENDS_SESSIONS.fullmatch(path):
            gevent.spawn(self.check_sessions)
        if environ.get("PATH_INFO") == "/metrics" and reply.status == 200:
            body += self._metrics()
        headers = [*reply.headers]
        if environ["REQUEST_METHOD"] != "HEAD" and reply.status not in (204, 304):
            headers.append(("Content-Length", str(len(body))))
        start(f"{reply.status} {reply.reason}", headers)
        return [body] if body else []

    def _headers(self, environ: Environ) -> list[tuple[str, str]]:
        """What REST is told of the sender: their headers, and our word on who they are."""
        found = [
            (name[5:].replace("_", "-").title(), value)
            for name, value in environ.items()
            if name.startswith("HTTP_") and isinstance(value, str)
        ]
        if environ.get("CONTENT_TYPE"):
            found.append(("Content-Type", environ["CONTENT_TYPE"]))
        headers = passed_on(found, environ.get("HTTP_CONNECTION", ""))
        peer = environ.get("REMOTE_ADDR", "")
        headers.append(("X-Forwarded-For", self._address(environ)))
        trusted = is_trusted(peer, self._settings.http.trusted_proxies)
        https = trusted and environ.get("HTTP_X_FORWARDED_PROTO", "").strip().lower() == "https"
        headers.append(("X-Forwarded-Proto", "https" if https else "http"))
        proxied = "HTTP_X_FORWARDED_FOR" in environ or "HTTP_FORWARDED" in environ
        if not proxied and is_trusted(peer, _LOOPBACK):
            headers.append((LOCAL_HEADER, "1"))
        return headers

    def _address(self, environ: Environ) -> str:
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "")
        return client_address(
            environ.get("REMOTE_ADDR", ""), forwarded, self._settings.http.trusted_proxies
        )

    def _metrics(self) -> bytes:
        counts = self.fanout.counts
        late, counts.late_seconds = counts.late_seconds, 0.0
        rows = (
            ("gauge", "streams", "Open event streams", len(self.fanout)),
            ("counter", "streams_opened_total", "Streams opened", counts.opened),
            ("counter", "streams_dropped_total", "Streams closed because they were too slow", counts.dropped),
            ("counter", "screen_entries_total", "Entries of rb:screens read", counts.entries),
            ("counter", "screen_deliveries_total", "Entries given to a stream", counts.deliveries),
            ("counter", "rest_down_total", "Requests that REST did not answer", counts.refused),
            ("gauge", "fanout_longest_seconds", "Longest fan-out since the last scrape", f"{late:.6f}"),
            ("gauge", "screens_up", "1 while Redis answers the edge", int(self._reader.up)),
        )
        return "".join(
            f"# HELP ringbridge_edge_{name} {words}\n# TYPE ringbridge_edge_{name} {kind}\n"
            f"ringbridge_edge_{name} {value}\n"
            for kind, name, words, value in rows
        ).encode()

    # Event streams

    def _open_stream(self, environ: Environ, start: Start) -> Iterable[bytes]:
        if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
            raise _Refused(426, "http_version", "event streams need HTTP/1.1")
        if self._draining or len(self.fanout) >= MOST_STREAMS:
            raise _Refused(503, "too_many_streams", "too many pages are open here now; try again in a moment")
        address = self._address(environ)
        public = environ["PATH_INFO"].startswith("/api/v1/callbacks/")
        if public and self.fanout.count_at(address) >= MOST_PUBLIC:
            raise _Refused(429, "rate_limited", "too many pages wait for a callback from this address")
        # What comes after this moment is sent from memory, so nothing is lost while REST is asked.
        before = self.fanout.last
        reply = self._ask_grant(environ)
        if reply.status != 200:
            start(f"{reply.status} {reply.reason}", [*reply.headers, ("Content-Length", str(len(reply.body)))])
            return [reply.body]
        grant = json.loads(reply.body)
        stream = Stream(grant["topics"], grant.get("check"), grant.get("clients"), address)
        self._begin(stream, _last_event_id(environ), before, grant["hello"])
        start("200 OK", _stream_headers(reply))
        return self._run(stream, environ["ringbridge.socket"])

    def _ask_grant(self, environ: Environ) -> Reply:
        headers = [*self._headers(environ), (GRANT_HEADER, "1")]
        return self._upstream.ask("GET", _target(environ), headers)

    def _begin(self, stream: Stream, resume: str, before: str, hello: list[dict[str, Any]]) -> None:
        """Queue what was missed, then how things stand, then what came meanwhile; nothing runs in between."""
        self.fanout.add(stream)
        mark = entry_id(before)
        missed = self.fanout.since(stream, entry_id(resume), mark) if resume else []
        news = self.fanout.since(stream, mark)
        greeting = [frame(one["event"], _compact(one["data"]), before) for one in hello]
        for data in (*missed, *map(chunk, greeting), *news):
            if not stream.put(data):
                self.fanout.counts.dropped += 1
                break

    def _run(self, stream: Stream, sock: socket.socket) -> Iterator[bytes]:
        """The server sends what is yielded first, with the headers; the rest goes to the socket as it is."""
        end = monotonic() + LONGEST_SECONDS
        try:
            yield f"retry: {RETRY_MS}\n\n".encode() + _PING
            while not stream.closed and monotonic() < end:
                data = stream.take()
                if data:
                    stream.fd = -1
                    sock.sendall(data)
                else:
                    stream.fd = sock.fileno()
                    if not stream.wake.wait(HEARTBEAT_SECONDS):
                        stream.put(_PING_CHUNK)
        except OSError:
            # The browser is gone, or took nothing for too long; what the server still adds must not wait for it.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        finally:
            stream.fd = -1
            self.fanout.remove(stream)

    def _hear(self, events: list[ScreenEvent], fresh: bool) -> None:
        self.fanout.feed(events, fresh=fresh)

    def _check_for_ever(self) -> None:
        while not self._draining:
            gevent.sleep(CHECK_SECONDS)
            self.check_sessions()

    def check_sessions(self) -> None:
        """Close the streams whose session has ended. While REST is down, all stay open."""
        open_now = sorted({stream.check for stream in self.fanout.streams if stream.check})
        for begin in range(0, len(open_now), CHECK_AT_ONCE):
            asked = open_now[begin : begin + CHECK_AT_ONCE]
            headers = [("Host", "rest"), ("Content-Type", "application/json"), (GRANT_HEADER, "1")]
            try:
                body = json.dumps({"sessions": asked}).encode()
                reply = self._upstream.ask("POST", "/edge/sessions", headers, body)
                if reply.status != 200:
                    continue
                standing = set(json.loads(reply.body)["sessions"])
            except (RestDown, ValueError, KeyError):
                log.warning("sessions of open streams not checked: REST does not answer")
                continue
            for stream in self.fanout.streams:
                if stream.check in asked and stream.check not in standing:
                    stream.close()

    # Static files

    def _serve_file(self, environ: Environ, start: Start, method: str, name: str) -> Iterable[bytes]:
        if method not in ("GET", "HEAD"):
            return _problem(start, 405, "method_not_allowed", "files are only read", [("Allow", "GET, HEAD")])
        file = self._static.find(name)
        if file is None:
            return _problem(start, 404, "not_found", "there is no such file")
        version = parse_qs(environ.get("QUERY_STRING", "")).get("v", [None])[0]
        headers = [("Cache-Control", file.caching(version)), ("Cross-Origin-Resource-Policy", "same-origin")]
        return _send_file(environ, start, method, file, headers)

    def _serve_widget(self, environ: Environ, start: Start, method: str) -> Iterable[bytes]:
        """The script that pages of other sites load: served from here, so that it can say that the rest is away."""
        if method not in ("GET", "HEAD"):
            return _problem(start, 405, "method_not_allowed", "files are only read", [("Allow", "GET, HEAD")])
        packed = _takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", ""))
        headers = [
            ("Cache-Control", "public, max-age=300"),
            ("Vary", "Accept-Encoding"),
            ("Access-Control-Allow-Origin", "*"),
            ("Cross-Origin-Resource-Policy", "cross-origin"),
            *([("Content-Encoding", "gzip")] if packed else []),
        ]
        return _send_file(environ, start, method, self._widget.find(packed=packed), headers)


def _send_file(
    environ: Environ, start: Start, method: str, file: File, headers: Iterable[tuple[str, str]]
) -> Iterable[bytes]:
    headers = [*SECURITY.items(), ("ETag", file.etag), *headers]
    known = {tag.strip().removeprefix("W/") for tag in environ.get("HTTP_IF_NONE_MATCH", "").split(",")}
    if file.etag in known:
        start("304 Not Modified", headers)
        return []
    start("200 OK", [*headers, ("Content-Type", file.type), ("Content-Length", str(len(file.body)))])
    return [file.body] if method == "GET" else []


def _takes_gzip(accepted: str) -> bool:
    for one in accepted.lower().split(","):
        coding, _, weight = one.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "").strip("0.") != "q="
    return False


class _Refused(Exception):
    """A request that the edge itself refuses."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        self.status, self.code, self.detail = status, code, detail
        super().__init__(code)


def _problem(
    start: Start, status: int, code: str, detail: str, headers: Iterable[tuple[str, str]] = ()
) -> list[bytes]:
    body = problem_body(status, code, detail, "body" if status == 413 else None)
    start(
        f"{status} {HTTPStatus(status).phrase}",
        [
            *SECURITY.items(),
            ("Content-Type", PROBLEM_TYPE),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            *headers,
        ],
    )
    return [body]


def _target(environ: Environ) -> str:
    """The request's target as it was sent, so that REST decodes it once."""
    raw: str = environ.get("RAW_PATH", "/")
    return raw if raw.startswith("/") else "/"


def _body(environ: Environ) -> bytes:
    """The whole body. Raises _Refused where it is too large, too slow or broken off."""
    too_large = _Refused(413, "too_large", "the body is too large")
    length = environ.get("CONTENT_LENGTH", "")
    if length.isdigit() and int(length) > LARGEST_BODY:
        # Read a little of what comes, so that the sender hears the answer.
        raise too_large
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if not chunked and (not length or length == "0"):
        return b""
    try:
        with gevent.Timeout(BODY_SECONDS):
            data: bytes = environ["wsgi.input"].read(LARGEST_BODY + 1)
    except gevent.Timeout:
        raise _Refused(408, "timeout", "the body came too slowly") from None
    except OSError:
        raise _Refused(400, "bad_request", "the body broke off or is not well-formed") from None
    if len(data) > LARGEST_BODY:
        raise too_large
    if not chunked and len(data) < int(length):
        raise _Refused(400, "bad_request", "the body broke off")
    return data


def _last_event_id(environ: Environ) -> str:
    """Where the browser stopped: its header, or the query of a page that opens a stream anew."""
    header: str = environ.get("HTTP_LAST_EVENT_ID", "")
    asked = parse_qs(environ.get("QUERY_STRING", "")).get("last_event_id", [""])[0]
    newest = max((header, asked), key=entry_id)
    return newest if entry_id(newest) > (0, 0) else ""


def _stream_headers(reply: Reply) -> list[tuple[str, str]]:
    """REST's headers (security, CORS) with those of a stream."""
    dropped = {"content-type", "content-length", "cache-control", "date", "server"}
    kept = [(name, value) for name, value in reply.headers if name.lower() not in dropped]
    return [
        *kept,
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-cache, no-store"),
        # nginx would collect events otherwise.
        ("X-Accel-Buffering", "no"),
    ]


def _compact(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
