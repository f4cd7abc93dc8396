"""`ringbridge bench listener`: what an event of the PBX costs us, and whether we keep up with very many.

Recorded traffic is played over TCP at a rate into a real `ringbridge listen` with a real Redis, every time with other
calls in it. How long it took from an event until what came of it stood in Redis shows in the lag, and whether
all of it came is counted at both ends. In the same run the bare library parses the same bytes, and does nothing else.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import click

from bridge.commands.bench import traffic
from bridge.commands.bench.common import as_json, percentile, show
from bridge.commands.bench.stage import Process, Stage, bare_reader, listening, unread
from bridge.commands.bench.traffic import NAME, Kind, Traffic
from bridge.domain.calls import CallEventType
from bridge.domain.errors import Unavailable
from bridge.live import keys
from bridge.live.calls import id_key

_GROUPS_A_SECOND = 1000
"""Events come in groups, each sent when it is due."""
_BARE_EVENTS = 40_000
_SAMPLE_SECONDS = 0.05
_LATEST = 20
_WARM = 0.1
"""That share of the run passes before memory counts: what is kept for a while has come to its length then."""
_TOLD_SECONDS = 20.0


@click.command()
@click.option("--pbx", type=click.Choice(["asterisk", "freeswitch", "both"]), default="both", show_default=True)
@click.option(
    "--traces",
    type=click.Path(path_type=Path),
    default=traffic.TRACES,
    help="Folder with recorded traffic (default: the clone's tests/traces).",
)
@click.option("--rate", type=click.IntRange(1), default=20_000, show_default=True, help="Events a second.")
@click.option("--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, help="How long at that rate.")
@click.option("--calls", type=click.IntRange(1), help="Go on until so many calls were played, instead of --seconds.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds of the bare library.")
@click.option("--filtered", is_flag=True, help="Asterisk: as with the event filters of our manager.conf.")
@click.option("--everything", is_flag=True, help="FreeSWITCH: also what the link does not subscribe to.")
@as_json
def listener(
    pbx: str,
    traces: Path,
    rate: int,
    seconds: float,
    calls: int | None,
    rounds: int,
    filtered: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """Play events at a rate into a listener, and measure it beside the bare library. Nothing need run.

    With both PBXs the values are the sums of what is counted and the worse of what is measured, and those of each PBX
    stand under its name.
    """
    found: dict[str, dict[str, Any]] = {}
    kinds: tuple[Kind, ...] = ("asterisk", "freeswitch")
    for kind in kinds:
        if pbx not in (kind, "both"):
            continue
        played = (
            traffic.asterisk(traces, filtered=filtered)
            if kind == "asterisk"
            else traffic.freeswitch(traces, everything=everything)
        )
        wanted = max(rate * seconds, 1) if calls is None else played.events * calls / played.calls
        # Whole passes: so every call comes to its end.
        passes = -(-int(wanted) // played.events)
        found[kind] = _measure(played, rate, passes, rounds)
    show(found[pbx] if pbx in found else _worst(found), as_json)


def _measure(played: Traffic, rate: int, passes: int, rounds: int) -> dict[str, Any]:
    bare = [_bare(played, rate) for _ in range(rounds)]
    with listening(played.kind) as stage:
        run = _Run(stage, played, rate, passes)
        run.play()
        told = run.told()
    mine, theirs = run.cpu / run.events * 1e6, statistics.median(bare)
    return {
        "pbx": played.kind,
        **told,
        "bytes_per_event": played.bytes_per_event,
        "cpu_us_per_event": round(mine, 2),
        "bare_cpu_us_per_event": round(theirs, 2),
        "ratio": round(mine / theirs, 2),
    }


def _worst(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    each = list(found.values())
    worst = max(each, key=lambda one: one["ratio"])
    heaviest = max(each, key=lambda one: one["rss_mb_end"])
    counted = ("events", "lost", "calls", "call_events", "call_events_lost", "calls_left")
    return {
        **worst,
        "pbx": "both",
        **{name: sum(one[name] for one in each) for name in counted},
        **{name: min(one[name] for one in each) for name in ("events_per_second", "events_per_core_second")},
        **{name: max(one[name] for one in each) for name in ("busy", "lag_p50_ms", "lag_p99_ms")},
        **{name: heaviest[name] for name in ("rss_mb_start", "rss_mb_end", "rss_mb")},
        **found,
    }


def _bare(played: Traffic, rate: int) -> float:
    """Microseconds of CPU for an event in the bare library, socket included."""
    with bare_reader(played.kind) as (fake, process):
        before = process.cpu()
        sent = 0
        began = time.monotonic()
        for group in played.play(rate, max(1, rate // _GROUPS_A_SECOND), bare=True):
            _wait(began + group.due)
            fake.send(group.data(played.kind, time.time()))
            sent += group.events
            if sent >= _BARE_EVENTS:
                break
        _emptied(fake, process)
        return (process.cpu() - before) / sent * 1e6


def _wait(until: float) -> None:
    left = until - time.monotonic()
    if left > 0:
        time.sleep(left)


def _emptied(fake: Any, process: Process) -> float:
    """Wait until all was taken and worked on; when that was."""
    while unread(fake):
        if process.popen.poll() is not None:
            raise Unavailable("who reads in the bench broke off")
        time.sleep(0.02)
    return process.settle()


@dataclass
class _Run:
    """One listener and what is played to it."""

    stage: Stage
    played: Traffic
    rate: int
    passes: int
    before: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0
    seconds: float = 0.0
    lags: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    last: tuple[int, int] = (0, 0)

    @property
    def events(self) -> int:
        return self.passes * self.played.events

    def play(self) -> None:
        """All of it, to the end."""
        listener, kind = self.stage.listener, self.played.kind
        self.before = self.stage.counters()
        over = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(over,), daemon=True)
        sampler.start()
        used, began = listener.cpu(), time.monotonic()
        sent = 0
        for group in self.played.play(self.rate, max(1, self.rate // _GROUPS_A_SECOND)):
            _wait(began + group.due)
            # Its time is when it is written: who plays may be late too, and that is not the listener's lag.
            self.stage.fake.send(group.data(kind, time.time()))
            sent += group.events
            if sent == self.events:
                break
        self.seconds = _emptied(self.stage.fake, listener) - began
        self.cpu = listener.cpu() - used
        over.set()
        sampler.join()

    def _sample(self, over: threading.Event) -> None:
        began, due = time.monotonic(), 0.0
        every = max(self.events / self.rate / 20, 0.2)
        while not over.wait(_SAMPLE_SECONDS):
            self._look()
            elapsed = time.monotonic() - began
            if elapsed >= due:
                due = elapsed + every
                self.memory.append((round(elapsed, 1), round(self.stage.listener.rss_mb(), 1)))

    def _look(self) -> None:
        """The latest call events in Redis: how long after what they speak of was sent they stood there."""
        latest = cast(list[tuple[str, dict[str, str]]], self.stage.redis.xrevrange(keys.CALLS, count=_LATEST))
        for entry_id, values in latest:
            if id_key(entry_id) <= self.last:
                break
            # A start has the time of the channel's birth, which may have been long before.
            if "call" in values and values["type"] != CallEventType.STARTED:
                self.lags.append(id_key(entry_id)[0] - datetime.fromisoformat(values["at"]).timestamp() * 1000)
        if latest:
            self.last = id_key(latest[0][0])

    def told(self) -> dict[str, Any]:
        """What became of it."""
        counted = self._counted()
        heard = counted["link_events"] - self.before["link_events"]
        published = counted["published"] - self.before["published"]
        warm = [mb for at, mb in self.memory if at >= _WARM * self.events / self.rate] or [self.memory[-1][1]]
        return {
            "events": self.events,
            "rate": self.rate,
            "events_per_second": round(self.events / self.seconds),
            "lost": round(self.events - heard),
            "calls": self.passes * self.played.calls,
            "calls_left": int(self.stage.redis.hlen(keys.live(NAME))),
            "call_events": round(published),
            "call_events_lost": round(self.passes * self.played.call_events - published),
            # What one core would carry that has nothing else to do.
            "events_per_core_second": round(self.events / self.cpu),
            "busy": round(self.cpu / self.seconds, 2),
            "rss_mb_start": warm[0],
            "rss_mb_end": self.stage.listener.rss_mb(),
            "rss_mb": self.memory,
            "lag_p50_ms": percentile(self.lags, 0.5),
            "lag_p99_ms": percentile(self.lags, 0.99),
        }

    def _counted(self) -> dict[str, float]:
        """The listener's own counters, once they stand still."""
        end = time.monotonic() + _TOLD_SECONDS
        found = self.stage.counters()
        while time.monotonic() < end and found["link_events"] - self.before["link_events"] < self.events:
            time.sleep(0.2)
            found = self.stage.counters()
        return found
