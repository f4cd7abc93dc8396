"""The second connection that asks a PBX all that a resync asks, over and over."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from rig import until
from scenarios.looking import Answered, Looker, Shot, chosen, read, write

from bridge.pbx.ami.resync import CHANNELS, QUESTIONS
from bridge.pbx.sim.ami import FakeAsterisk
from bridge.settings import Pbx


def shot(n: int, answer: str) -> Shot:
    return Shot((Answered(CHANNELS, float(n), n + 0.5, answer),))


def test_every_question_is_asked_and_every_answer_kept(tmp_path: Path) -> None:
    with FakeAsterisk() as pbx:
        settings = Pbx(name="lab", port=pbx.port, secret="reader-secret", command_secret="dialler-secret")
        with Looker(settings, datetime.now(UTC), every=0.001) as looker:
            until(lambda: len(looker.shots) > 2)
            pbx.channels = [{"Channel": "PJSIP/101-00000001", "Uniqueid": "1.1", "CallerIDName": "Caller Ünï"}]
            until(lambda: looker.shots[-1].snapshot().channels)
    assert [reply.question for reply in looker.shots[0].replies] == list(QUESTIONS)
    kept = looker.write(tmp_path / "snapshots.jsonl.gz")
    shots = read(tmp_path / "snapshots.jsonl.gz")
    assert kept == len(shots) >= 4
    assert shots[0].snapshot().channels == ()
    [channel] = shots[-1].snapshot().channels
    assert channel["CallerIDName"] == "Caller Ünï"
    assert all(one.asked < one.answered <= two.asked for one, two in pairwise(shots))


def test_what_kept_it_from_looking_is_told() -> None:
    with FakeAsterisk() as pbx:
        settings = Pbx(name="lab", port=pbx.port, secret="reader-secret", command_secret="dialler-secret")
        looker = Looker(settings, datetime.now(UTC), every=0.001)
        with pytest.raises(OSError), looker:
            until(lambda: looker.shots)
            pbx.cut()
            until(lambda: not looker.looks)


def test_those_are_kept_that_say_something_new(tmp_path: Path) -> None:
    shots = [shot(n, f"Channel: {n // 10}\r\nDuration: {n}\r\n") for n in range(100)]
    kept = chosen(shots, most=24, least=8)
    assert {one.asked for one in kept} == {*range(0, 100, 10), 99}
    # Where there are too many, they are spread; where there are few, some more are kept.
    assert len(chosen([shot(n, str(n)) for n in range(100)], most=24)) == 24
    assert len(chosen([shot(n, "") for n in range(100)], least=8)) == 8
    write(tmp_path / "some.gz", kept)
    assert read(tmp_path / "some.gz") == kept
    assert read(tmp_path / "none.gz") == []
