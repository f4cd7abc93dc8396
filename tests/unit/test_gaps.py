"""Every recording cut at every event: the link lost there, or the whole process, then a resync at a later moment.

By default one gap of random length at each event. `RINGBRIDGE_LONG=1` tries ten, with and without the process lost;
`RINGBRIDGE_SEED` says which.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest
from gaps import Cut, cuts, faults, record
from recorded import TRACES, name_of, wire
from story import side, told
from test_resync_freeswitch import FOLDER, NOW, answers

from bridge.domain.calls import CallEventType
from bridge.pbx.esl.resync import Snapshot, resync, take_snapshot

EVERY = [
    path
    for path in [*sorted(TRACES.glob("*-*/*/wire.jsonl*")), *sorted(TRACES.glob("ours/*/*.jsonl*"))]
    if not path.with_name("snapshots.jsonl.gz").exists()
]
"""Those of which the PBX's own answers were kept too need none of a model: see test_real_gaps."""
LONG = bool(os.environ.get("RINGBRIDGE_LONG"))
SEED = os.environ.get("RINGBRIDGE_SEED") or (str(random.randrange(10**6)) if LONG else "1")


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_no_gap_anywhere_leaves_a_wrong_picture(path: Path) -> None:
    recording = record(path)
    dice = random.Random(f"{SEED} {name_of(path)}")
    found: list[str] = []
    for cut in (cut for _ in range(10 if LONG else 1) for cut in cuts(recording, dice)):
        for same_process in (False, True) if LONG else (dice.random() < 0.5,):
            wrong = faults(recording, cut, same_process=same_process)
            found += [f"{cut}{' (same process)' if same_process else ''}: {fault}" for fault in wrong]
    assert not found, f"RINGBRIDGE_SEED={SEED}\n" + "\n".join(found[:20])


ONCE_WRONG = [
    # What was kept of two calls disagreed about a guest, or about a channel id that had come again.
    ("asterisk-22", "attended_code", Cut(17, 26), False),
    ("ours/asterisk-22", "agent_first_dialed_again", Cut(40, 48), False),
    ("ours/asterisk-22", "agent_first_dialed_again", Cut(40, 44, 3), False),
    # All known legs were gone and the call went on with others: it ended, and began again under its id.
    ("ours/asterisk-22", "agent_first_agent_noanswer", Cut(6, 18), False),
    # A phone that had dialled in and met another was adopted as if that one had been called.
    ("asterisk-22", "park_retrieve", Cut(11, 22, 3), False),
    # A leg of a consultation was adopted by the customer's call, since both have one Linkedid.
    ("asterisk-22", "attended_code", Cut(18, 21, 3), False),
    ("asterisk-16", "attended_code", Cut(19, 30), False),
    ("asterisk-22", "attended_code", Cut(16, 28), True),
    # Who was back from a consultation was still taken for its guest.
    ("asterisk-22-lab", "attended_code_refused", Cut(18, 28), False),
    # Who consulted was not known, and nine events from before the answers opened the consultation again without them.
    ("asterisk-16", "attended_code", Cut(15, 27, 9), True),
    # The guest of a consultation went with its own call.
    ("freeswitch-1.11-json", "attended_code", Cut(12, 16, 3), True),
    # A late word of a channel that the resync had found gone brought its call back.
    ("freeswitch-1.11-json", "caller_cancels", Cut(3, 6, 3), False),
    ("freeswitch-1.11-json", "simple", Cut(6, 9, 3), True),
]


@pytest.mark.parametrize(("link", "scenario", "cut", "same_process"), ONCE_WRONG)
def test_what_was_wrong_once_stays_mended(link: str, scenario: str, cut: Cut, same_process: bool) -> None:
    ours = list(TRACES.glob(f"{link}/{scenario}.jsonl*"))
    assert not faults(record(ours[0] if ours else wire(link, scenario)), cut, same_process=same_process)


def test_a_wrong_picture_would_be_seen() -> None:
    """The PBX's answers of another moment, or none, are no picture of this one."""
    for link in ("asterisk-22", "freeswitch-1.11-json"):
        recording = record(wire(link, "attended_refer"))
        half = len(recording.moments) // 2
        assert not faults(recording, Cut(half, half), same_process=False)
        for moment in recording.moments[half - 1 : half]:
            moment.snapshot = recording.moments[2].snapshot
        assert faults(recording, Cut(half, half), same_process=False)


# --- what the builder says beside what a real FreeSWITCH said in the same situation ---

ALIKE = {
    "ringing": ("simple", "call.offered", 1),
    "talk": ("simple", "call.connected", 1),
    "queued": ("queue_ringall", "call.offered", 5),
    "consulting": ("attended_code", "call.connected", 2),
    "after_att": ("attended_code", "call.connected", 3),
}
"""A recorded snapshot, and the moment of a recording at which it was so: after so many events of that type."""


def _pictured(snapshot: Snapshot) -> list[list[str]]:
    tracker = side("freeswitch").tracker()
    stories = told(resync(tracker, snapshot, None, NOW).batch.events).values()
    # Whose numbers they are, and in which order five phones were listed, differs.
    return [sorted(re.sub(r"\+\d+", "N", line) for line in story) for story in stories]


@pytest.mark.parametrize("name", ALIKE)
def test_the_builder_answers_as_a_real_one_did(name: str) -> None:
    scenario, kind, count = ALIKE[name]
    recording = record(wire("freeswitch-1.11-json", scenario))
    moment = next(
        moment
        for moment in recording.moments
        if sum(event.type is CallEventType(kind) for event in recording.said[: moment.said]) == count
    )
    real = take_snapshot(answers(name).__getitem__)
    assert _pictured(moment.snapshot) == _pictured(real)
    # Where the builder has a header of a dump that the resync reads, the real one has it too.
    needed = ("Call-Direction", "Channel-Call-State", "Channel-Name", "Caller-Channel-Created-Time", "Unique-ID")
    for dumps in (moment.snapshot.dumps, real.dumps):
        assert all(header in dump for dump in dumps.values() for header in needed)
    linked = [
        sorted(bool(dump.get("variable_originating_leg_uuid")) for dump in dumps.values())
        for dumps in (moment.snapshot.dumps, real.dumps)
    ]
    assert linked[0] == linked[1]


def test_every_recorded_answer_has_its_counterpart_or_its_reason() -> None:
    names = {path.name.partition(".")[0] for path in FOLDER.iterdir()}
    # Of these there is no moment of the corpus: other numbers of phones, another way round, another dialplan.
    assert names - set(ALIKE) == {"sales", "outbound", "after_blind", "conf"}
