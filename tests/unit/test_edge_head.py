"""The head of a request: one way to read it, or none."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.api.head import BadHead, check_request_line, read_head


def read(lines: bytes, version: str = "HTTP/1.1") -> bytes:
    return read_head(io.BytesIO(lines), version)


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: x\r\n\r\n",
        b"Host: [::1]:8080\nA:\n\n",
        b"Host: x\r\nTransfer-Encoding: Chunked\r\n\r\n",
        b"Host: x\r\nContent-Length: 12 \r\nCookie: a=\xff\tb\r\nCookie: c=d\r\n\r\n",
    ],
)
def test_a_plain_head_is_read_as_it_is(lines: bytes) -> None:
    assert read(lines + b"body") == lines


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"A: b\r\n",
        b"Host: x\r\nHost: y\r\n",
        b"Host: a b\r\n",
        b"Host: a\"><script>\r\n",
        b"Host: x\r\n A: folded\r\n",
        b"Host: x\r\nA : b\r\n",
        b"Host: x\r\nno colon\r\n",
        b"Host: x\r\n: b\r\n",
        b"Host: x\r\nA\xff: b\r\n",
        b"Host: x\r\nA: b\0\r\n",
        b"Host: x\r\nA: b\rC: d\r\n",
        b"Host: x\r\nTransfer-Encoding: xchunked\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked, chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Host: x\r\nContent-Length: 3\r\ncontent-length: 3\r\n",
        b"Host: x\r\nContent-Length: +3\r\n",
        b"Host: x\r\nContent-Length: 1_0\r\n",
        b"Host: x\r\nContent-Length: \xb2\r\n",
        b"Host: x\r\nContent-Length:\r\n",
        b"Host: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    ],
)
def test_what_could_mean_two_things_is_refused(lines: bytes) -> None:
    with pytest.raises(BadHead) as refused:
        read(lines + b"\r\n")
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "lines",
    [b"A: " + b"a" * 8190 + b"\r\n", b"A: a\r\n" * 81, (b"A: " + b"a" * 8000 + b"\r\n") * 5],
)
def test_a_head_is_bounded(lines: bytes) -> None:
    with pytest.raises(BadHead) as refused:
        read(b"Host: x\r\n" + lines + b"\r\n")
    assert refused.value.status == 431


@pytest.mark.parametrize(
    "line", ["GET / HTTP/1.1\r\n", "GET http://x:1/a?b://c HTTP/1.1\n", "DELETE /a%20b HTTP/1.0\r\n"]
)
def test_request_lines(line: str) -> None:
    check_request_line(line)


@pytest.mark.parametrize(
    "line",
    [
        "GET /",
        "GET  / HTTP/1.1",
        "GET a HTTP/1.1",
        "{}GET / HTTP/1.1",
        "get / HTTP/1.1",
        "GET /\xff HTTP/1.1",
        "GET / HTTP/2.0",
        "OPTIONS * HTTP/1.1",
        "CONNECT x:1 HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET /\x0b HTTP/1.1",
    ],
)
def test_request_lines_that_are_none(line: str) -> None:
    with pytest.raises(BadHead):
        check_request_line(f"{line}\r\n")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(lines: bytes) -> None:
    try:
        found = read(b"Host: x\r\n" + lines)
    except BadHead:
        return
    assert b"\0" not in found and b"\r" not in found.replace(b"\r\n", b"")
