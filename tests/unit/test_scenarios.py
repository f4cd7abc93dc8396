"""The scenarios as a whole: their table is the one that is printed, and each is recorded where it can be played."""

from __future__ import annotations

import pytest
from scenarios import every, matrix
from scenarios.results import read


def test_the_table_is_made_of_the_scenarios_and_their_results() -> None:
    text = matrix.README.read_text(encoding="utf-8")
    assert matrix.BEGIN in text and matrix.END in text
    assert matrix.written(text, read()) == text, "run `python -m scenarios.matrix` in tests/"


def test_a_failure_shows_in_the_table() -> None:
    results = read()
    name, ways = next(
        (name, ways) for name, ways in results.items() if name in every() and "asterisk-22-lab" in ways
    )
    row = {"result": "failed", "version": "22.0.0", "date": "2026-01-01"}
    assert "**live fails**" not in matrix.table(results)
    broken = {**results, name: {**ways, "asterisk-22-lab": {"live": row}}}
    assert "**live fails**" in matrix.table(broken)


@pytest.mark.parametrize("pbx", matrix.PBXS)
def test_every_scenario_is_recorded_on_every_pbx_that_can_play_it(pbx: str) -> None:
    able = {name for name, scenario in every().items() if scenario.why_not(pbx) is None}
    recorded = {path.parent.name for path in (matrix.TRACES / pbx).glob("*/expected.json")}
    assert recorded == able


def test_results_are_of_scenarios_that_there_are() -> None:
    assert set(read()) <= set(every())
