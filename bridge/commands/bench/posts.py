"""`ringbridge bench posts`: visitors' forms at a steady rate, whatever the answers do.

The load is open: a form is due every 1/rate seconds, and its time counts from then, so a server (or a bench) that
falls behind shows it. The site is in test mode: everything happens but the call.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any
from urllib.parse import urlsplit

import click

from bridge.commands.bench.common import (
    as_json,
    by_administrator,
    make_site,
    numbers,
    percentile,
    show,
    spread,
)
from bridge.commands.rest import Rest

_ANSWER_SECONDS = 30.0


@dataclass
class _Visitors:
    """What they met. Times in milliseconds, from the moment a form was due."""

    host: str
    port: int
    site: str
    answered: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """How much later than due a form was sent: the bench's own share."""
    refused: Counter[str] = field(default_factory=Counter)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    opened: int = 0

    async def ask(self, number: str, due: float) -> None:
        """One form."""
        body = json.dumps({"number": number, "site": self.site, "name": "Bench"})
        head = (
            f"POST /api/v1/callbacks HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: application/json\r\n"
            f"Idempotency-Key: {secrets.token_hex(16)}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = self.idle.pop() if self.idle else await self._open()
                self.late.append((time.perf_counter() - due) * 1000)
                writer.write((head + body).encode())
                status = await _status(reader)
        except (OSError, ValueError, EOFError) as error:
            self.refused[type(error).__name__] += 1
            return
        self.idle.append((reader, writer))
        if status == 201:
            self.answered.append((time.perf_counter() - due) * 1000)
        else:
            self.refused[str(status)] += 1

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.opened += 1
        return await asyncio.open_connection(self.host, self.port)


async def _status(reader: asyncio.StreamReader) -> int:
    """Read a whole answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])


@click.command()
@click.option(
    "--rate", type=click.FloatRange(1, 2000), default=200.0, show_default=True, help="Forms a second."
)
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=10.0, show_default=True, help="For how long."
)
@click.option(
    "--under", type=click.FloatRange(1), help="Find the highest rate, up to --rate, whose p99 stays under this (ms)."
)
@by_administrator
@as_json
def posts(admin: Rest, rate: float, seconds: float, under: float | None, as_json: bool) -> int:
    """Send forms at a steady rate to a site in test mode, and measure their answers. Nothing is dialled.

    It makes a client and a site of its own through REST. Ends with 1 where a form was not answered with 201. With
    --under it halves the span of rates until it is a tenth, each rate for --seconds, and tells of each.
    """
    _, site = make_site(admin, test_mode=True)
    if under is None:
        found = _measure(admin, site, rate, seconds)
        show(found, as_json)
        return 1 if found["failed"] else 0
    tried = _search(lambda asked: _measure(admin, site, asked, seconds), rate, under)
    good = [found for found in tried if _is_under(found, under)]
    best = max(good, key=lambda found: float(found["rate"]), default=None)
    show({"under_ms": under, "rate": best["rate"] if best else None, "best": best, "tried": tried}, as_json)
    return 0 if best else 1


def _search(measure: Callable[[float], dict[str, Any]], most: float, under: float) -> list[dict[str, Any]]:
    """The rates that were tried, in that order: the highest first, then what halves what is left of the span."""
    tried = [measure(most)]
    low, high = 0.0, most
    if _is_under(tried[0], under):
        return tried
    while high - low > max(most / 10, 1.0):
        tried.append(measure((low + high) / 2))
        if _is_under(tried[-1], under):
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return tried


def _is_under(found: Mapping[str, Any], under: float) -> bool:
    return not found["failed"] and found["post_p99_ms"] is not None and found["post_p99_ms"] < under


def _measure(admin: Rest, site: str, rate: float, seconds: float) -> dict[str, Any]:
    parts = urlsplit(admin.url)
    visitors = _Visitors(parts.hostname or "127.0.0.1", parts.port or 80, site)
    count = max(1, round(rate * seconds))
    took = asyncio.run(_send(visitors, rate, count))
    return {
        "count": count,
        "failed": count - len(visitors.answered),
        "rate": rate,
        "seconds": round(took, 1),
        **spread("post", visitors.answered),
        "post_max_ms": percentile(visitors.answered, 1.0),
        "late_p99_ms": percentile(visitors.late, 0.99),
        "connections": visitors.opened,
        **({"reasons": dict(visitors.refused)} if visitors.refused else {}),
    }


async def _send(visitors: _Visitors, rate: float, count: int) -> float:
    asked = cycle(list(islice(numbers(), 1000)))
    began = time.perf_counter() + 0.1
    async with asyncio.TaskGroup() as group:
        for index in range(count):
            due = began + index / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(visitors.ask(next(asked), due))
    for _, writer in visitors.idle:
        writer.close()
    return time.perf_counter() - began
