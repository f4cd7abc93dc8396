"""Every recording cut at every event, with what the real PBX answered afterwards to all that a resync asks.

By default one of the recorded snapshots for each event. `RINGBRIDGE_LONG=1` tries every one that follows, with and
without the process lost; `RINGBRIDGE_SEED` says which ones are tried otherwise. A line for each recording goes to
standard output (`-s`), `cuts {…}` with JSON, and so does their sum.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_gaps import Gap, faults, gaps, record, some
from recorded import TRACES, name_of, pbx_of

EVERY = sorted(path.with_name("wire.jsonl.gz") for path in TRACES.glob("*/*/snapshots.jsonl.gz"))
LONG = bool(os.environ.get("RINGBRIDGE_LONG"))
SEED = os.environ.get("RINGBRIDGE_SEED") or (str(random.randrange(10**6)) if LONG else "1")


@pytest.fixture(scope="module")
def tally() -> Iterator[dict[str, Counter[str]]]:
    """By PBX; printed when all are done."""
    counts: dict[str, Counter[str]] = {}
    yield counts
    for pbx, count in sorted(counts.items()):
        print(f"\ncuts {json.dumps({'pbx': pbx, **count})}", end="")
    print(f"\ncuts {json.dumps({'pbx': 'all', **sum(counts.values(), Counter())})}")


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_no_cut_is_not_survived_by_the_pbxs_own_answers(path: Path, tally: dict[str, Counter[str]]) -> None:
    recording = record(path)
    tried = list(gaps(recording) if LONG else some(recording, random.Random(f"{SEED} {name_of(path)}")))
    wrong = {gap: found for gap in tried if (found := faults(recording, gap))}
    count = Counter(recordings=1, snapshots=len(recording.shots), tried=len(tried), survived=len(tried) - len(wrong))
    tally.setdefault(pbx_of(path), Counter()).update(count)
    print(f"\ncuts {json.dumps({'recording': name_of(path), **count})}", end="")
    told = [f"{gap}: {fault}" for gap, found in wrong.items() for fault in found]
    assert not wrong, f"RINGBRIDGE_SEED={SEED}\n" + "\n".join(told[:20])


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_the_pbx_was_asked_often_enough(path: Path) -> None:
    """At five or more points of the scenario, during its calls and after them."""
    recording = record(path)
    begins, ends = recording.heard[0].at, recording.heard[-1].at
    assert len(recording.shots) >= 5
    if ends - begins > 1:
        assert any(begins <= asked <= ends for asked, _, _ in recording.shots), "nobody asked while a call was on"
    assert recording.shots[-1][0] > ends, "nobody asked once all was over"


def test_answers_of_another_moment_are_noticed() -> None:
    """What is checked can fail: the PBX's answers of an earlier second are no picture of this one."""
    if not EVERY:
        pytest.skip("no recording has snapshots")
    for path in EVERY[:: max(1, len(EVERY) // 8)]:
        recording = record(path)
        if recording.heard[-1].at - recording.heard[0].at < 1:
            continue
        busy = max(range(len(recording.shots)), key=lambda n: len(recording.shots[n][2].snapshot().channels))
        asked, answered, shot = recording.shots[busy]
        recording.shots[-1] = (recording.shots[-1][0], recording.shots[-1][1], shot)
        late = Gap(len(recording.heard), len(recording.shots) - 1, True)
        assert answered >= asked
        assert faults(recording, late), name_of(path)
