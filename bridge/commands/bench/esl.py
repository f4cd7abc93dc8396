"""`ringbridge bench esl`: how fast FreeSWITCH's events are read, by us and by the libraries there are.

One server plays the same recorded calls to each, in turns, over TCP; each reader is a process of its own and tells
the CPU time it took, its connection included. The libraries only parse, as they come; they read the plain encoding,
since neither reads the other.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import click

import bridge
from bridge.commands.bench.common import as_json, show
from bridge.domain.errors import Invalid, NotFound, Unavailable
from bridge.pbx.sim.esl import FakeFreeSWITCH, events_of
from bridge.pbx.trace import received

_TRACES = Path(bridge.__file__).parent.parent / "tests" / "traces"
_JSON, _PLAIN = "freeswitch-1.11-json", "freeswitch-1.11-plain"
_GENESIS = Path(__file__).with_name("esl_genesis.py")
_SECONDS = 120.0
_READERS = {
    "codec": _JSON,
    "codec_plain": _PLAIN,
    "session": _JSON,
    "listener": _JSON,
    "greenswitch": _PLAIN,
    "genesis": _PLAIN,
}
"""Each reader, and what it reads: our codec alone in both encodings, with our session, with tracker and publishing."""


@click.command()
@click.option(
    "--traces",
    type=click.Path(path_type=Path),
    default=_TRACES,
    help="Folder with recorded traffic (default: the clone's tests/traces).",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds of each.")
@click.option("--repeat", type=click.IntRange(1), default=4, show_default=True, help="Times the calls in a round.")
@click.option(
    "--genesis",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The Python of a virtual environment with Genesis in it; without, it is left out.",
)
@as_json
def esl(traces: Path, rounds: int, repeat: int, genesis: Path | None, as_json: bool) -> None:
    """Measure the reading of FreeSWITCH's events beside bare greenswitch and Genesis. Nothing need run."""
    streams, events = _streams(traces, repeat)
    readers = [name for name in _READERS if name != "genesis" or genesis is not None]
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name in readers:
            times[name].append(_read(name, streams[_READERS[name]], events, genesis))
    result: dict[str, object] = {"pbx": "freeswitch", "events": events, "rounds": rounds}
    result["kilobytes_per_event"] = round(len(streams[_JSON]) / events / 1000, 2)
    for name in readers:
        cpu = statistics.median(times[name]) / events
        result[f"{name}_cpu_us_per_event"] = round(cpu * 1e6, 1)
        result[f"{name}_events_per_second"] = round(1 / cpu)
    for name in readers:
        if name != "greenswitch":
            ratios = [one / other for one, other in zip(times[name], times["greenswitch"], strict=True)]
            result[f"{name}_to_greenswitch"] = round(statistics.median(ratios), 2)
    show(result, as_json)


def _streams(traces: Path, repeat: int) -> tuple[dict[str, bytes], int]:
    """The events of the calls that were heard in both encodings at once, as they came over the wire."""
    heard: dict[str, list[bytes]] = {_JSON: [], _PLAIN: []}
    for path in sorted((traces / _JSON).glob("*/wire.jsonl.gz")):
        other = traces / _PLAIN / path.parent.name / path.name
        if not other.exists():
            continue
        one, two = ([raw for raw, _ in events_of(received(trace))] for trace in (path, other))
        if len(one) == len(two):
            heard[_JSON] += one
            heard[_PLAIN] += two
    if not heard[_JSON]:
        raise NotFound(f"there are no calls in both encodings in {traces}; give --traces, in a clone: tests/traces")
    return {name: b"".join(parts) * repeat for name, parts in heard.items()}, len(heard[_JSON]) * repeat


def _read(name: str, stream: bytes, events: int, genesis: Path | None) -> float:
    """One reader's CPU seconds. Raises Unavailable where it does not come to an end."""
    with FakeFreeSWITCH() as server:
        server.any_secret = True
        own = [sys.executable, "-m", "bridge.commands.bench.esl_readers", name]
        command = [str(genesis), str(_GENESIS)] if name == "genesis" else own
        with subprocess.Popen(
            [*command, str(server.port), str(events)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as reader:
            try:
                while not server.listeners:
                    if reader.poll() is not None:
                        raise Invalid(f"{name} did not start; try: {' '.join(command)} {server.port} {events}")
                    _pause(reader)
                # A reader that stops to read would hold the sender for ever.
                sender = threading.Thread(target=server.send, args=(stream,), daemon=True)
                sender.start()
                out, _ = reader.communicate(timeout=_SECONDS)
            except subprocess.TimeoutExpired:
                raise Unavailable(f"{name} did not read {events} events within {_SECONDS:g} s") from None
            finally:
                reader.kill()
    return _told(name, out.splitlines())


def _pause(reader: subprocess.Popen[str]) -> None:
    try:
        reader.wait(0.05)
    except subprocess.TimeoutExpired:
        return


def _told(name: str, lines: Sequence[str]) -> float:
    try:
        return float(json.loads(lines[-1])["cpu"])
    except (IndexError, ValueError, TypeError, KeyError):
        raise Unavailable(f"{name} broke off") from None
