"""`ringbridge bench listener`: what an event of the PBX costs us, and whether we keep up with very many.

First recorded traffic is played through codec, tracker and the encoding of what is published, and in turns with that
through the bare library, which only parses. Times are CPU times, and each value is the median of its rounds. Then the
same traffic comes over TCP at a chosen rate, into a process that does all of it: who falls behind shows in the lag.
"""

from __future__ import annotations

import gc
import json
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from bridge.commands.bench import traffic
from bridge.commands.bench.common import as_json, show
from bridge.commands.bench.reading import Ours, bare, redis_connection
from bridge.domain.errors import Unavailable

_PIECE = 4
"""Events that come with one read, about as on a PBX with some calls at a time."""
_TICK = 0.002
_PATIENCE = 120.0
_TRAFFIC = {"asterisk": traffic.asterisk, "freeswitch": traffic.freeswitch}


@click.command()
@click.option("--pbx", type=click.Choice(["asterisk", "freeswitch", "both"]), default="both", show_default=True)
@click.option(
    "--traces",
    type=click.Path(path_type=Path),
    default=traffic.TRACES,
    help="Folder with recorded traffic (default: the clone's tests/traces).",
)
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True, help="Rounds of each reader.")
@click.option("--rate", type=click.IntRange(1), default=20_000, show_default=True, help="Events a second.")
@click.option("--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, help="How long at that rate.")
@click.option("--narrow", is_flag=True, help="FreeSWITCH: only what the link subscribes to, a sixth and the largest.")
@as_json
def listener(
    pbx: str, traces: Path, rounds: int, rate: int, seconds: float, narrow: bool, as_json: bool
) -> None:
    """Measure the listener's cost of an event beside the bare library, and play events at a rate. Nothing need run."""
    kinds = ["asterisk", "freeswitch"] if pbx == "both" else [pbx]
    found = {kind: _measure(_TRAFFIC[kind](traces, narrow=narrow), rounds, rate, seconds) for kind in kinds}
    show(found[pbx] if pbx in found else _worst(found), as_json)


def _measure(played: traffic.Traffic, rounds: int, rate: int, seconds: float) -> dict[str, Any]:
    mine, theirs, ratio = _cost(played, rounds)
    told = _replay(played, rate, seconds)
    return {
        "pbx": played.kind,
        **told,
        "rate": rate,
        "bytes_per_event": round(sum(len(event) for call in played.calls for event in call) / played.events),
        "cpu_us_per_event": round(mine, 2),
        "bare_cpu_us_per_event": round(theirs, 2),
        "ratio": round(ratio, 2),
    }


def _worst(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of both PBXs: sums of what is counted, the worse of what is measured; and each alone."""
    each = list(found.values())
    worst = max(each, key=lambda one: one["ratio"])
    return {
        **worst,
        "pbx": "both",
        **{name: sum(one[name] for one in each) for name in ("events", "lost", "calls", "call_events")},
        **{name: min(one[name] for one in each) for name in ("events_per_second", "events_per_core_second")},
        **{name: max(one[name] for one in each) for name in ("busy", "lag_p50_ms", "lag_p99_ms")},
        **found,
    }


def _cost(played: traffic.Traffic, rounds: int) -> tuple[float, float, float]:
    """Microseconds of CPU for an event, ours and the bare library's, and the ratio of the two."""
    mine = [_pieces(call) for call in played.calls]
    theirs = [_pieces(call) for call in played.bare]
    parse, connection = bare(played.kind), redis_connection()

    def ours() -> None:
        for call in mine:
            reader = Ours(played.kind, connection)
            for piece in call:
                reader.feed(piece)

    def others() -> None:
        for call in theirs:
            parse(call)

    ours()
    others()
    times = [(_cpu(ours), _cpu(others)) for _ in range(rounds)]
    one, two = (statistics.median(column) / played.events * 1e6 for column in zip(*times, strict=True))
    return one, two, statistics.median(a / b for a, b in times)


def _pieces(events: Sequence[bytes]) -> list[bytes]:
    return [b"".join(events[at : at + _PIECE]) for at in range(0, len(events), _PIECE)]


def _cpu(play: Callable[[], None]) -> float:
    gc.collect()
    began = time.thread_time()
    play()
    return time.thread_time() - began


def _replay(played: traffic.Traffic, rate: int, seconds: float) -> dict[str, Any]:
    """Events at a rate into a reader of its own. Raises Unavailable where it does not come to an end."""
    events = round(rate * seconds)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_PATIENCE)
        port = server.getsockname()[1]
        command = [sys.executable, "-W", "ignore::RuntimeWarning:runpy", "-m", "bridge.commands.bench.reading"]
        command += [played.kind, str(port), str(events), str(rate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            try:
                peer, _ = server.accept()
                with peer:
                    peer.settimeout(_PATIENCE)
                    _send(peer, played, events, rate)
                out, _ = reader.communicate(timeout=_PATIENCE)
                told: dict[str, Any] = json.loads(out)
            except (OSError, subprocess.TimeoutExpired, ValueError):
                raise Unavailable("the reader of the bench broke off or did not come to its end") from None
            finally:
                reader.kill()
    return told


def _send(peer: socket.socket, played: traffic.Traffic, events: int, rate: int) -> None:
    passes = played.passes()
    data, ends = next(passes)
    start = time.monotonic() + 0.2
    peer.sendall(struct.pack("d", start))
    sent = at = position = 0
    while sent < events:
        due = min(int((time.monotonic() - start) * rate) + 1, events)
        if due <= sent:
            time.sleep(_TICK)
            continue
        count = min(due - sent, len(ends) - at)
        end = ends[at + count - 1]
        peer.sendall(data[position:end])
        sent, at, position = sent + count, at + count, end
        if at == len(ends):
            (data, ends), at, position = next(passes), 0, 0
