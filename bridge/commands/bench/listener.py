"""`ringbridge bench listener`: what an event of the PBX costs us, beside what it costs the bare library.

Recorded traffic is played through codec, tracker and the encoding of what is published, and in turns with that through
panoramisk, which only parses. Times are CPU times, and each value is the median of its rounds.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from panoramisk import Manager
from panoramisk.ami_protocol import AMIProtocol
from redis.connection import Connection

import bridge
from bridge.commands.bench.common import as_json, show
from bridge.domain.errors import NotFound
from bridge.live.calls import encode
from bridge.pbx.ami.codec import Decoder
from bridge.pbx.ami.hearing import UNHEARD
from bridge.pbx.ami.tracker import Tracker

Trace = Sequence[tuple[float, bytes]]
_TRACES = Path(bridge.__file__).parent.parent / "tests" / "traces"
_TRUNKS = ("PJSIP/trunk",)


@click.command()
@click.option(
    "--traces",
    type=click.Path(path_type=Path),
    default=_TRACES,
    help="Folder with recorded traffic (default: the clone's tests/traces).",
)
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True, help="Rounds of each.")
@as_json
def listener(traces: Path, rounds: int, as_json: bool) -> None:
    """Measure the CPU time of one event of the PBX in the listener and in the bare library. Nothing need run."""
    found = [_read(path) for path in sorted(traces.rglob("*.jsonl"))]
    played = [trace for trace in found if trace and trace[0][1].startswith(b"Asterisk")]
    if not played:
        raise NotFound(f"there is no recorded traffic in {traces}; give --traces, in a clone: tests/traces")
    events = sum(chunk.count(b"Event: ") for trace in played for _, chunk in trace)
    ours, bare = _Ours(), _Bare()
    for play in (ours.play, bare.play):
        play(played)
    times = [(_cpu(ours.play, played), _cpu(bare.play, played)) for _ in range(rounds)]
    mine, theirs = (statistics.median(column) / events * 1e6 for column in zip(*times, strict=True))
    show(
        {
            "pbx": "asterisk",
            "events": events * rounds,
            "events_per_second": round(1e6 / mine),
            "cpu_us_per_event": round(mine, 2),
            "bare_cpu_us_per_event": round(theirs, 2),
            "ratio": round(statistics.median(one / other for one, other in times), 2),
            "call_events": ours.published // (rounds + 1) * rounds,
        },
        as_json,
    )


def _read(path: Path) -> Trace:
    """(seconds, bytes) of what the PBX sent, cut as it came."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(float(row["t"]), base64.b64decode(row["b64"])) for row in rows if row["dir"] == "in"]


def _cpu(play: Callable[[Sequence[Trace]], None], traces: Sequence[Trace]) -> float:
    gc.collect()
    began = time.thread_time()
    play(traces)
    return time.thread_time() - began


class _Ours:
    """Codec, tracker, and the bytes that go to Redis."""

    def __init__(self) -> None:
        self.published = 0
        self._connection: Any = Connection()  # type: ignore[no-untyped-call]  # redis-py's own

    def play(self, traces: Sequence[Trace]) -> None:
        for trace in traces:
            decoder, tracker = Decoder(UNHEARD), Tracker("bench", _TRUNKS)
            for at, chunk in trace:
                messages = decoder.feed(chunk)
                if not messages:
                    continue
                batch = tracker.feed(messages, at)
                if batch.events or batch.live:
                    self.published += len(batch.events)
                    words = [word for event in batch.events for word in encode(event)]
                    words += [word for call, state in batch.live.items() for word in (call, state or "")]
                    self._connection.pack_command("EVALSHA", "0" * 40, 5, *words)


class _Bare:
    """panoramisk as it comes, with nobody who hears the events."""

    def __init__(self) -> None:
        logging.getLogger("panoramisk").setLevel(logging.ERROR)
        self._manager = Manager(loop=asyncio.new_event_loop())
        # Its own hearing of FullyBooted would start a task at each.
        self._manager.patterns.clear()

    def play(self, traces: Sequence[Trace]) -> None:
        for trace in traces:
            protocol = AMIProtocol()
            protocol.connection_made(None)
            protocol.factory = self._manager
            protocol.encoding = "utf8"
            for _, chunk in trace:
                protocol.data_received(chunk)
