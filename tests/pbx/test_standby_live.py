"""Two listeners for one real PBX: whatever becomes of the one that publishes, consumers see every call whole.

A few rounds of each harm; `RINGBRIDGE_LONG=1` plays sixty, at random. `RINGBRIDGE_SEED` repeats what was drawn.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import threading
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from doubles.postgres import new_database, postgres  # noqa: F401 - a fixture
from pair import Listener, Pair, paired
from people import People, talk
from rig import RedisServer, until

from bridge.live import keys
from bridge.pbx.calls.model import load
from bridge.uptime import uptime
from ringbridge_lab.lab import Lab

LONG = bool(os.environ.get("RINGBRIDGE_LONG"))
SEED = int(os.environ.get("RINGBRIDGE_SEED") or random.randrange(10**9))
HARMS = ("killed", "frozen", "stopped", "no sql", "no redis", "no pbx")
ROUNDS = 60 if LONG else len(HARMS)
PATIENCE = 120.0
"""How long a takeover may take on the slowest machine; five seconds is what it takes, and what is printed."""

pytestmark = [pytest.mark.pbx, pytest.mark.timeout(7200 if LONG else 900)]


def harm(listener: Listener, kind: str) -> None:
    assert listener.process is not None
    if kind in SIGNALS:
        listener.process.send_signal(SIGNALS[kind])
    else:
        listener.lines[kind.removeprefix("no ")].cut()


SIGNALS = {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP, "stopped": signal.SIGTERM}


def heal(listener: Listener, kind: str) -> None:
    assert listener.process is not None
    match kind:
        case "killed" | "stopped":
            code = listener.process.wait(90)
            assert code == (0 if kind == "stopped" else -signal.SIGKILL), listener.log()[-2000:]
            listener.start()
        case "frozen":
            listener.process.send_signal(signal.SIGCONT)
        case _:
            listener.lines[kind.removeprefix("no ")].mend()


def test_whoever_listens_every_call_is_told_whole(
    lab: Lab, tmp_path: Path, own_redis: RedisServer, postgres: str
) -> None:
    print(f"RINGBRIDGE_SEED={SEED}")
    dice = random.Random(SEED)
    database = new_database(postgres).partition("@/")[2].partition("?")[0]
    took: dict[str, list[float]] = {}
    with paired(lab, tmp_path / "pair", own_redis, postgres, database) as pair:
        people = People(pair, dice)
        pair.ready()
        for number in range(ROUNDS):
            kind = dice.choice(HARMS) if LONG else HARMS[number]
            took.setdefault(kind, []).append(play(pair, people, dice, kind, number))
        report(lab, took, pair)
        lab.hang_up_all()
        until(lambda: not pair.redis.hgetall(keys.live("lab")), 90, "the last call's end")
        settle(pair)
        check_calls(pair)
        check_pops(pair)
        check_witness(pair)


def play(pair: Pair, people: People, dice: random.Random, kind: str, number: int) -> float:
    """One round: people call, the holder is harmed at some instant, the other takes over, and the picture is right."""
    holder = pair.ready()
    steady = [talk(pair.lab, extension) for extension in ("102", "104")]
    people.begin()
    threading.Event().wait(dice.uniform(0.2, 2.5))
    if dice.random() < 0.5:
        pair.dial(f"+1{number + 300}5550203", "103", agent_first=dice.random() < 0.5)
        threading.Event().wait(dice.choice((0, 0.01, 0.03, 0.1)))
    since = uptime()
    harm(holder, kind)
    took = pair.until(lambda: pair.calls.since(since, "pbx.resynced"), PATIENCE, f"round {number}, {kind}: a takeover")
    assert pair.holder() is not holder, kind
    threading.Event().wait(dice.uniform(0, 2))
    heal(holder, kind)
    threading.Event().wait(dice.uniform(0, 1))
    people.rest()
    try:
        until(lambda: same_picture(pair), 90)
    except AssertionError:
        raise AssertionError(f"round {number}, {kind}: {unlike(pair)}") from None
    for call in steady:
        call.hang_up()
    print(f"round {number}: {kind}, {took:.2f} s", flush=True)
    return cast(float, took)


def on_the_pbx(lab: Lab) -> set[str]:
    """The legs that the PBX has, by its own ids. Halves of wires may optimise themselves away without a word."""
    if lab.pbx == "freeswitch":
        with lab.company_esl() as esl:
            rows = json.loads(esl.api("show channels as json")).get("rows", [])
        return {row["uuid"] for row in rows if not row["name"].startswith("loopback/")}
    with lab.company_ami() as ami:
        listing = ami.command("core show channels concise")
    return {line.split("!")[13] for line in listing.splitlines() if line.startswith("PJSIP/")}


def same_picture(pair: Pair) -> bool:
    """Whether what a successor would start from is what the PBX has."""
    before = on_the_pbx(pair.lab)
    shown = {uid for uids in live(pair).values() for uid in uids}
    return before == on_the_pbx(pair.lab) == shown


def unlike(pair: Pair) -> str:
    """What the PBX has and what was published, with the story of each call that differs."""
    there, told_of = on_the_pbx(pair.lab), told(pair)
    lines = [f"the PBX has {sorted(there)}"]
    for call, uids in live(pair).items():
        story = [f"{event['seq']} {event['type']}" for event in told_of[call]] if set(uids) - there else []
        lines.append(f"{call}: {uids} {story}")
    return "\n".join(lines)


def live(pair: Pair) -> dict[str, list[str]]:
    """The legs of each call, as published."""
    states: dict[str, str] = pair.redis.hgetall(keys.live("lab"))  # type: ignore[assignment]
    return {call: [channel.uid for channel in load(state)[1] if channel.real] for call, state in states.items()}


def settle(pair: Pair) -> None:
    """Wait until every consumer has read all there is."""
    last = until(lambda: pair.redis.xinfo_stream(keys.CALLS)["entries-added"])
    until(lambda: len(pair.calls.entries) >= last, what="the consumer")

    def read() -> bool:
        groups: Any = pair.redis.xinfo_groups(keys.CALLS)
        return all(group["pending"] == 0 and group["lag"] == 0 for group in groups)

    until(read, 90, "recorder and pops")


def told(pair: Pair) -> dict[str, list[dict[str, str]]]:
    """The events of each call, as they came."""
    found: dict[str, list[Any]] = {}
    for _came, fields in pair.calls.entries:
        if "call" in fields:
            found.setdefault(fields["call"], []).append(fields)
    return found


def check_calls(pair: Pair) -> None:
    """No event is missing, none comes twice, and each call begins and ends once."""
    wrong = []
    for call, events in told(pair).items():
        kinds = [event["type"] for event in events]
        if [int(event["seq"]) for event in events] != list(range(1, len(events) + 1)):
            wrong.append((call, "seq", [(event["seq"], event["type"]) for event in events]))
        ends = [kind for kind in kinds if kind in ("call.ended", "call.merged")]
        if kinds[0] != "call.started" or len(ends) != 1 or kinds[-1] != ends[0]:
            wrong.append((call, "begin or end", kinds))
    assert not wrong, wrong
    assert len(told(pair)) >= 3 * ROUNDS


def check_pops(pair: Pair) -> None:
    """Every agent whose phone rang had one pop of that conversation."""
    shown = Counter(fields["id"] for _, fields in pair.screens.entries if fields["event"] == "pop")
    offered = set()
    for call, events in told(pair).items():
        for event in events:
            party = json.loads(event["data"]).get("party") if event["type"] == "call.offered" else None
            if party and party["agent"]:
                offered.add(f"{call}:{party['agent']}")
    assert not {pop: count for pop, count in shown.items() if count > 1}
    assert offered - set(shown) == set()


def check_witness(pair: Pair) -> None:
    """Nothing rang twice for one attempt."""
    rang = Counter((row.attempt, row.number) for row in pair.lab.witness() if row.attempt in pair.attempts)
    assert rang
    assert max(rang.values()) == 1, [row for row, count in rang.items() if count > 1]


def report(lab: Lab, took: dict[str, list[float]], pair: Pair) -> None:
    """The figures."""
    for kind, seconds in sorted({**took, "all": [one for many in took.values() for one in many]}.items()):
        p99 = sorted(seconds)[max(0, round(0.99 * len(seconds)) - 1)]
        print(
            f"{lab.pbx}, {kind}: {len(seconds)} takeovers, median {statistics.median(seconds):.2f} s, "
            f"p99 {p99:.2f} s, max {max(seconds):.2f} s"
        )
    print(f"{len(told(pair))} calls, {len(pair.calls.entries)} events, {len(pair.attempts)} dials")
