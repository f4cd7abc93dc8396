"""HTTP as browsers and sites speak it, with the headers of one person."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass
class Web:
    """HTTP to one address, with the headers of one person."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            given = {**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
            data = None
            if body is not None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                given.setdefault("Content-Type", "application/json")
            connection.request(method, path, data, given)
            reply = connection.getresponse()
            text = reply.read()
            kind = reply.headers.get("Content-Type", "")
            return Answer(
                reply.status, json.loads(text) if "json" in kind and text else text, dict(reply.headers)
            )
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """The body of an answer that must be a success."""
        answer = self(method, path, body, **headers)
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.body
