"""Everything is killed, cut, frozen, flushed and restarted at random while callbacks run, on a real PBX.

`python -m tests.faults.chaos` does the same for as long as you like. Believed is the world's witness of INVITEs, never
what we say of ourselves.

    RINGBRIDGE_LONG=1            thirty rounds of twenty seconds
    RINGBRIDGE_CHAOS_SEED=123    the same rounds again (instants differ a little, as processes do)
    RINGBRIDGE_CHAOS_ROUNDS=60   so many
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from labs import KINDS

from ringbridge_lab import freeswitch_installation
from ringbridge_lab.errors import LabError
from ringbridge_lab.witness import Invite
from tests.faults.chaos.judge import Story, judge
from tests.faults.chaos.people import Accepted, read_journal
from tests.faults.chaos.plan import plan
from tests.faults.chaos.rounds import Options, Run, State, clean

LONG = bool(os.environ.get("RINGBRIDGE_LONG"))
SEED = int(os.environ.get("RINGBRIDGE_CHAOS_SEED", str(time.time_ns() % 1_000_000)))
ROUNDS = int(os.environ.get("RINGBRIDGE_CHAOS_ROUNDS", "30" if LONG else "10"))
SECONDS, SETTLE, LATER = (20.0, 300.0, 200.0) if LONG else (4.0, 150.0, 1.0)

pytestmark = pytest.mark.faults


@pytest.mark.pbx
@pytest.mark.timeout(ROUNDS * (SECONDS + 10) + SETTLE + 400)
@pytest.mark.parametrize("pbx", KINDS)
def test_no_harm_dials_twice_or_loses_a_callback(pbx: str, tmp_path: Path) -> None:
    if pbx == "freeswitch" and not os.environ.get("RINGBRIDGE_LAB_FREESWITCH"):
        try:
            freeswitch_installation.find()
        except LabError as reason:
            pytest.skip(str(reason))
    # pytest -s shows it; every failure names it too.
    print(f"RINGBRIDGE_CHAOS_SEED={SEED}")
    told = Run(tmp_path, Options(ROUNDS, SEED, SECONDS, SETTLE, LATER, pbx), print).run()
    print(json.dumps(told))
    assert clean(told), f"RINGBRIDGE_CHAOS_SEED={SEED}\n{json.dumps(told, indent=1)}\nlogs in {tmp_path}"
    assert told["rounds"] == ROUNDS and told["kills"] and told["invites"] and told["callbacks"] >= ROUNDS


def test_a_seed_draws_the_same_rounds() -> None:
    assert plan(7, 3, 20, 2) == plan(7, 3, 20, 2)
    assert plan(7, 3, 20, 2) != plan(7, 4, 20, 2) != plan(8, 4, 20, 2)
    for number in range(200):
        drawn = plan(1, number, 20, 2)
        assert 3 <= len(drawn.asks) <= 5 and all(blow.at <= 10 for blow in drawn.blows)
    ways = {(blow.way, blow.part) for number in range(200) for blow in plan(1, number, 20, 2).blows}
    assert {("kill", part) for part in ("listener", "worker", "dial worker", "web", "redis")} <= ways
    assert {("kill pbx", None), ("cut link", None), ("flush redis", None), ("restart redis", None)} <= ways


def test_a_run_is_resumed_from_its_state(tmp_path: Path) -> None:
    state = State(7, done=3, sites=[("key", 1)], harms={"kill web": 2}, last_seen={"leg": NOW.isoformat()}, longest=9.5)
    state.save(tmp_path / "state.json")
    run = Run(tmp_path, Options(10, 7), print)
    assert run.state.done == 3 and run.before["kill web"] == 2 and run.last_seen == {"leg": NOW}
    with pytest.raises(ValueError, match="seed 7"):
        Run(tmp_path, Options(10, 8), print)
    journal = tmp_path / "accepted.jsonl"
    whole = json.dumps({"key": "k", "number": NUMBER, "site": "s", "id": "c", "tries": 1})
    # The kill came as the second line was being written.
    journal.write_text(f"{whole}\n{whole[:9]}", encoding="utf-8")
    assert [row.id for row in read_journal(journal)] == ["c"]


# The judge: what it must find, each planted into a story in which all went well.

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
NUMBER = "+14155550100"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def attempt(name: str, claimed: float, state: str = "done", reason: str | None = "completed") -> dict[str, Any]:
    return {
        "id": name, "callback_id": "c", "number": NUMBER, "agent_device": "PJSIP/101", "state": state, "reason": reason,
        "claimed_at": at(claimed), "ended_at": at(claimed + 8), "locked_until": None,
    }  # fmt: skip


def invite(name: str, seconds: float, number: str = NUMBER) -> Invite:
    return Invite(at(seconds), f"sip-{name}-{seconds}", number, name, "", f"leg-{name}-{seconds}")


def change(name: str, seconds: float, old: str, new: str, reason: str | None = None) -> dict[str, Any]:
    return {"attempt_id": name, "at": at(seconds), "old": old, "new": new, "reason": reason}


def tale(*attempts: dict[str, Any], **other: Any) -> Story:
    """One callback with these attempts, each of which rang agent and customer."""
    row = {"id": "c", "status": "done", "reason": "completed", "held_by": None, "due_at": NOW, "expires_at": at(9999)}
    claimed = [(row["id"], (row["claimed_at"] - NOW).total_seconds()) for row in attempts]
    story = Story(
        accepted=[Accepted("key", NUMBER, "site", "c", 3)],
        invites=[i for name, s in claimed for i in (invite(name, s + 1, "101"), invite(name, s + 2))],
        last_seen={},
        callbacks={"c": row},
        attempts={row["id"]: row for row in attempts},
        changes=[],
        phones={"PJSIP/101": "101"},
        now=at(100),
    )
    return replace(story, **other)


def row(**values: Any) -> dict[str, Any]:
    return {"c": {**tale().callbacks["c"], **values}}


BUSY = attempt("a", 0, "failed", "busy")
AGAIN = attempt("b", 60)
ONCE = tale(AGAIN).invites


@pytest.mark.parametrize(
    ("story", "what"),
    [
        (tale(AGAIN, invites=[*ONCE, invite("b", 63)]), "one attempt rang twice"),
        (tale(AGAIN, invites=[*ONCE, invite("x", 63)]), "nobody asked"),
        (tale(AGAIN, invites=[*ONCE, invite("b", 63, "102")]), "somebody else"),
        (tale(BUSY, AGAIN, last_seen={"leg-a-2.0": at(62.5)}), "at once"),
        (tale(BUSY, AGAIN, accepted=[Accepted("key", NUMBER, "site", "c", 1)]), "1 allowed"),
        (tale(attempt("a", 0), AGAIN), "again after done"),
        (tale(attempt("a", 55, "failed", "busy"), AGAIN), "again after failed"),
        (tale(attempt("a", 0, "failed", "outcome_unknown"), AGAIN), "again after failed (outcome_unknown)"),
        (tale(attempt("a", 0, "failed", "not_dialed"), AGAIN), "as if it had not"),
        (tale(BUSY, AGAIN, changes=[change("a", 4, "answered", "connected")]), "again after failed"),
        (tale(AGAIN, accepted=[Accepted("key", NUMBER, "site", who, 3) for who in "cd"]), "one form"),
    ],
)
def test_the_judge_finds_a_double(story: Story, what: str) -> None:
    assert what in judge(story).doubled[0]["what"]


@pytest.mark.parametrize(
    ("story", "what"),
    [
        (tale(callbacks={}), "not there"),
        (tale(callbacks=row(status="queued", held_by="gone")), "neither ended nor due"),
        (tale(callbacks=row(status="queued", expires_at=at(99))), "neither ended nor due"),
        (tale({**AGAIN, "state": "dialing"}, callbacks=row(status="calling_agent", held_by="b")), "neither ended"),
        (tale({**AGAIN, "state": "uncertain"}, callbacks=row(status="calling_agent", held_by="b")), "neither ended"),
        (tale(callbacks=row(status="failed", reason=None)), "without a reason"),
        (tale(AGAIN, invites=[]), "never rung"),
        (tale(BUSY, invites=[]), "never rung"),
    ],
)
def test_the_judge_finds_who_was_lost(story: Story, what: str) -> None:
    [lost] = judge(story).lost
    assert what in lost["what"]


WAITS = {**AGAIN, "state": "uncertain", "locked_until": at(900)}


@pytest.mark.parametrize(
    "story",
    [
        tale(AGAIN),
        tale(BUSY, AGAIN),
        tale(attempt("a", 0, "failed", "agent_no_answer"), AGAIN, invites=ONCE),
        tale(callbacks=row(status="queued", reason="busy")),
        tale(callbacks=row(status="expired", reason="not_reached_in_time")),
        tale(WAITS, callbacks=row(status="calling_agent", held_by="b")),
        tale(attempt("a", 0, "failed", "outcome_unknown"), invites=[]),
    ],
)
def test_the_judge_lets_pass_what_is_well(story: Story) -> None:
    verdict = judge(story)
    assert (verdict.doubled, verdict.lost) == ([], [])


def test_each_uncertain_attempt_is_told_with_what_became_of_it() -> None:
    doubted = attempt("a", 0, "failed", "outcome_unknown")
    [told] = judge(tale(doubted, changes=[change("a", 3, "ringing", "uncertain", "lost")])).uncertain
    assert (told["was"], told["doubted"]) == ("ringing", "lost")
    assert (told["now"], told["reason"]) == ("failed", "outcome_unknown")
    assert told["after_seconds"] == 5.0 and told["world"] == {"agent_rung": True, "customer_rung": True}
