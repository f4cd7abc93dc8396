"""`ringbridge bench listener` plays both PBXs' traffic and loses nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.load
WANTED = {
    "pbx", "events", "events_per_second", "lost", "cpu_us_per_event", "bare_cpu_us_per_event", "ratio",
    "rss_mb_start", "rss_mb_end", "lag_p99_ms",
}  # fmt: skip


def test_it_says_what_was_measured() -> None:
    bench = subprocess.run(
        [sys.executable, "-P", "-m", "bridge.cli", "bench", "listener", "--json",
         "--rounds", "3", "--rate", "5000", "--seconds", "2"],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    told = json.loads(bench.stdout)
    assert told.keys() >= WANTED
    assert (told["pbx"], told["events"], told["lost"]) == ("both", 20_000, 0)
    for kind in ("asterisk", "freeswitch"):
        assert told[kind].keys() >= WANTED
        assert (told[kind]["events"], told[kind]["lost"]) == (10_000, 0)
        assert told[kind]["calls"] > 0
    # In one run on one machine: codec, tracker, states and encoding, beside a mere parse.
    assert told["freeswitch"]["ratio"] < 1
    assert told["asterisk"]["ratio"] < 1.5
