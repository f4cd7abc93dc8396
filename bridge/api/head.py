"""The head of a request, read strictly: what two servers could read in two ways is refused.

A proxy before us and REST behind us must see the same requests on a connection. So no folded lines, no doubtful
lengths, no encodings but `chunked`, and nothing said twice that may be said once.
"""

from __future__ import annotations

import re
from typing import BinaryIO

LONGEST_LINE = 8190
MOST_LINES = 80
"""REST takes 100, ours among them."""
MOST_BYTES = 32 * 1024
_METHOD = re.compile(r"[A-Z]{1,20}")
_TARGET = re.compile(r"(?:https?://[^/?#]+)?/[!-~]*", re.IGNORECASE)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(rb"[A-Za-z0-9._-]*(?::[0-9]{0,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?")
_BROKEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization"})


class BadHead(ValueError):
    """This is no HTTP request that we understand."""

    def __init__(self, status: int = 400, code: str = "bad_request", detail: str | None = None) -> None:
        self.status, self.code = status, code
        self.detail = detail or "this is no HTTP request that we understand"
        super().__init__(code)


def check_request_line(line: str) -> None:
    """Method, target and version, apart by one space each. Raises BadHead."""
    words = line.rstrip("\r\n").split(" ")
    if len(words) != 3:
        raise BadHead
    method, target, version = words
    if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target) or version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadHead


def read_head(file: BinaryIO, version: str) -> bytes:
    """The lines of the head up to and with the empty one. Raises BadHead."""
    lines: list[bytes] = []
    said: dict[bytes, bytes] = {}
    size = 0
    while True:
        line = file.readline(LONGEST_LINE + 1)
        size += len(line)
        if len(line) > LONGEST_LINE or size > MOST_BYTES or len(lines) > MOST_LINES:
            raise BadHead(431, "headers_too_large", "the headers are too large")
        if not line.endswith(b"\n"):
            raise BadHead
        bare = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        lines.append(line)
        if not bare:
            break
        _note(bare, said)
    _check_length(said, version)
    return b"".join(lines)


def _note(line: bytes, said: dict[bytes, bytes]) -> None:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name) or _BROKEN.search(value):
        raise BadHead
    low = name.lower()
    if low in _ONCE:
        if low in said:
            raise BadHead
        said[low] = value.strip(b" \t")


def _check_length(said: dict[bytes, bytes], version: str) -> None:
    host = said.get(b"host")
    if (host is None and version == "HTTP/1.1") or (host is not None and not _HOST.fullmatch(host)):
        raise BadHead
    encoding, length = said.get(b"transfer-encoding"), said.get(b"content-length")
    if encoding is not None and (encoding.lower() != b"chunked" or length is not None or version != "HTTP/1.1"):
        raise BadHead
    if length is not None and not re.fullmatch(rb"[0-9]{1,18}", length):
        raise BadHead
