"""Races on a real PBX, again and again: however each comes out, what is told obeys the rulings, and nothing is left.

`RINGBRIDGE_RACES` says how often each is played.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from corpus import differences, phone_device
from links import Link, Sink, link_to
from rig import until
from scenarios import Scenario, every
from scenarios.expected import AGENTS, CLIENTS
from scenarios.replay import published
from scenarios.stage import Stage

from bridge.domain.calls import Directory
from ringbridge_lab.lab import Lab

pytestmark = pytest.mark.pbx

ROUNDS = int(os.environ.get("RINGBRIDGE_RACES", "2"))
RACES = [scenario for scenario in every().values() if scenario.family == "races"]


@pytest.fixture(scope="module")
def heard(lab: Lab) -> Iterator[tuple[Link, Sink]]:
    """A link that hears all of them."""
    sink = Sink()
    link = link_to(lab, sink)
    link.set_directory(
        Directory(agents={phone_device(lab.pbx, e): a for e, a in AGENTS.items()}, clients=CLIENTS)
    )
    link.start()
    until(lambda: sink.facts, what="the resync")
    yield link, sink
    link.stop()


@pytest.mark.parametrize("scenario", RACES, ids=lambda scenario: scenario.name)
def test_each_outcome_obeys_the_rulings(lab: Lab, heard: tuple[Link, Sink], scenario: Scenario) -> None:
    link, sink = heard
    ways: dict[str, int] = {}
    for round_ in range(ROUNDS):
        before = len(sink.heard)
        stage = Stage(lab, scenario, tolerance_ms=10_000)
        try:
            expected = stage.play()

            def agrees(expected: dict[str, object] = expected, before: int = before) -> bool:
                return not sink.live and not differences(expected, published(sink.heard[before:]))

            try:
                until(agrees, 10)
            except AssertionError:
                found = differences(expected, published(sink.heard[before:]))
                pytest.fail(f"round {round_}: {found or sorted(sink.live)}\n\n{stage.story()}")
        finally:
            stage.close()
        way = " ".join(event.type.value.removeprefix("call.") for event in sink.heard[before:])
        ways[way] = ways.get(way, 0) + 1
    assert link.tracker.faults == 0
    print(f"{lab.pbx} {scenario.name}: {ways}")
