"""Recorded traffic of a PBX: a JSON object a line, with `t`, `dir` and `b64`; gzip where the name ends in .gz.

`t` is seconds since the recording began; `dir` is `in` from the PBX, `out` from the client. One `in` line is what one
`recv` returned, so an event may be split over lines and one line may hold many events.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from bridge.domain.errors import Invalid

MAX_LINE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes that went over the wire together."""

    t: float
    received: bool
    data: bytes


def rows(path: Path) -> Iterator[Row]:
    """What was recorded, in order. Raises Invalid where the file is no recording, OSError where it cannot be read."""
    last = 0.0
    with _opened(path) as file:
        number = 0
        while True:
            try:
                line = file.readline(MAX_LINE)
            except (gzip.BadGzipFile, EOFError, zlib.error):
                raise Invalid(f"{path}: its gzip data is damaged after line {number}") from None
            if not line:
                return
            number += 1
            row = _row(line)
            if row is None or row.t < last:
                raise Invalid(f"{path}, line {number}: not a row of recorded traffic")
            last = row.t
            yield row


def received(path: Path) -> Iterator[bytes]:
    """The bytes that the PBX sent, as they came."""
    return (row.data for row in rows(path) if row.received)


def line(row: Row) -> bytes:
    """The row as a line of the file."""
    text = base64.b64encode(row.data).decode()
    return (
        json.dumps({"t": round(row.t, 6), "dir": "in" if row.received else "out", "b64": text}).encode() + b"\n"
    )


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _row(raw: bytes) -> Row | None:
    try:
        values = json.loads(raw)
        at, direction, data = values["t"], values["dir"], base64.b64decode(values["b64"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        return None
    if direction not in ("in", "out") or isinstance(at, bool) or not isinstance(at, int | float) or not at >= 0:
        return None
    return Row(float(at), direction == "in", data)
