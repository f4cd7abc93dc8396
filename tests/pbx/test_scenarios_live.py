"""Every scenario, played before a link to a real PBX: what it tells is what the witness saw.

`RINGBRIDGE_LAB_ASTERISK_OLD` names an older Asterisk, on which all of them are played too.
`RINGBRIDGE_SCENARIO_RESULTS` names the file that takes how each came out (`tests/scenarios/results.json`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus import differences, phone_device
from labs import KINDS, raised
from links import Sink, link_to
from rig import until
from scenarios import Scenario, every
from scenarios.expected import AGENTS, CLIENTS
from scenarios.replay import published
from scenarios.results import Results
from scenarios.stage import Stage

from bridge.domain.calls import Directory
from ringbridge_lab.lab import Lab

pytestmark = pytest.mark.pbx

TOLERANCE_MS = 10_000
"""Whether the seconds are right is for the recordings: here other work may hold anybody up."""
OLD = "asterisk-old"


@pytest.fixture(scope="module", params=[*KINDS, OLD])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The session's lab of each kind, and one with an older Asterisk where there is any."""
    place = tmp_path_factory.mktemp("scenarios")
    if request.param != OLD:
        with raised(request.param, place) as made:
            yield made
        return
    old = os.environ.get("RINGBRIDGE_LAB_ASTERISK_OLD")
    if not old:
        pytest.skip("RINGBRIDGE_LAB_ASTERISK_OLD names no older Asterisk")
    made = Lab(place, pbx="asterisk")
    made.up(asterisk=Path(old), progress=print)
    yield made
    made.down()


@pytest.fixture(scope="module")
def heard(lab: Lab) -> Iterator[Sink]:
    """What a link tells of everything that is played here."""
    sink = Sink()
    link = link_to(lab, sink)
    link.set_directory(
        Directory(agents={phone_device(lab.pbx, e): a for e, a in AGENTS.items()}, clients=CLIENTS)
    )
    sink.link = link
    link.start()
    until(lambda: sink.facts, what="the resync")
    yield sink
    link.stop()
    assert link.tracker.faults == 0


@pytest.mark.parametrize("scenario", every().values(), ids=every())
def test_the_link_tells_what_the_witness_saw(lab: Lab, heard: Sink, scenario: Scenario) -> None:
    results = Results.of(lab)
    if why := scenario.why_not(results.pbx):
        pytest.skip(f"{lab.company.name}: {why}")
    before = len(heard.heard)
    stage = Stage(lab, scenario, tolerance_ms=TOLERANCE_MS)
    stage.link = heard.link
    passed = False
    try:
        expected = stage.play()

        def agrees() -> bool:
            return not heard.live and not differences(expected, published(heard.heard[before:]))

        try:
            until(agrees, 10)
        except AssertionError:
            found = differences(expected, published(heard.heard[before:]))
            pytest.fail(
                "\n".join(found or [f"still alive: {len(heard.live)} calls"]) + "\n\n" + stage.story()
            )
        passed = True
    finally:
        stage.close()
        if file := os.environ.get("RINGBRIDGE_SCENARIO_RESULTS"):
            Results(results.pbx, results.version, Path(file)).write(scenario.name, "live", passed)
