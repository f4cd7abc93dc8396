"""A small client of our own REST, for commands that use a running Ringbridge as anybody would."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from bridge.domain.errors import Conflict, Forbidden, Invalid, NotFound, RingbridgeError, Unavailable

_KINDS: dict[int, type[RingbridgeError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    502: Unavailable,
    503: Unavailable,
}
_LOST = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class Rest:
    """One account on one server; safe to share between threads, each of which keeps a connection open."""

    def __init__(self, url: str, token: str | None = None, seconds: float = 20.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Invalid(f"{url!r} is no address; write it as http://127.0.0.1:8080")
        self.url = url.rstrip("/")
        self.token = token
        self._parts = parts
        self._seconds = seconds
        self._local = threading.local()

    def signed_in(self, username: str, password: str, device: str | None = None) -> Rest:
        """The same server as that person. Raises Forbidden."""
        wish = {"username": username, "password": password} | ({"device": device} if device else {})
        return Rest(self.url, self.post("/api/v1/session", wish)["token"], self._seconds)

    def close(self) -> None:
        """Close this thread's connection; the next request opens a new one."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def get(self, path: str, token: str | None = None) -> Any:
        return self._call("GET", path, None, token, {})

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
        return self._call("POST", path, body, None, headers or {})

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, body, None, {})

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, body, None, {})

    def delete(self, path: str) -> None:
        self._call("DELETE", path, None, None, {})

    def events(self, path: str, stop: threading.Event, seconds: float = 60.0) -> Iterator[tuple[str, dict[str, Any]]]:
        """(event, data) of a stream as they come, until `stop` is set or the stream ends. Raises Unavailable."""
        connection = self._connect(seconds)
        try:
            connection.request("GET", path, headers=self._headers(None) | {"Accept": "text/event-stream"})
            response = connection.getresponse()
            if response.status != 200:
                raise Unavailable(f"the event stream answered {response.status}")
            event = ""
            while not stop.is_set():
                try:
                    line = response.readline()
                except TimeoutError:
                    # A quiet stream; what was read of a line is lost, so begin anew.
                    raise Unavailable("the event stream is silent") from None
                if not line:
                    return
                name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
                if name == "event":
                    event = value.strip()
                elif name == "data":
                    yield event, json.loads(value)
        except OSError as error:
            raise Unavailable(f"the event stream broke ({type(error).__name__})") from None
        finally:
            connection.close()

    def _call(
        self, method: str, path: str, body: Any, token: str | None, headers: dict[str, str]
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers(token) | headers | ({} if data is None else {"Content-Type": "application/json"})
        status, text = self._exchange(method, path, data, headers)
        try:
            answer = json.loads(text) if text else None
        except ValueError:
            answer = None
        if status >= 400:
            told = answer if isinstance(answer, dict) else {}
            detail = told.get("detail") or told.get("title") or f"status {status}"
            raise _KINDS.get(status, RingbridgeError)(f"{method} {path}: {detail}", status=status)
        return answer

    def _exchange(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        for fresh in (False, True):
            connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
            reused = connection is not None and not fresh
            if connection is None or fresh:
                connection = self._local.connection = self._connect(self._seconds)
            try:
                connection.request(method, path, data, headers)
                response = connection.getresponse()
                return response.status, response.read()
            except _LOST:
                # The server closes idle connections; only then is a second try harmless.
                connection.close()
                if not reused:
                    break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._local.connection = None
                raise Unavailable(f"Ringbridge does not answer at {self.url} ({type(error).__name__})") from None
        self._local.connection = None
        raise Unavailable(f"Ringbridge closed the connection at {self.url}")

    def _connect(self, seconds: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=seconds)

    def _headers(self, token: str | None) -> dict[str, str]:
        bearer = token or self.token
        return {"Accept": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
