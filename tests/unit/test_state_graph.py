"""The drawn graphs of states say what the transition tables say: no arrow more, none less."""

from __future__ import annotations

import pytest
from state_graph import ATTEMPT, CALLBACK, DRAWN, README, Drawing, Table, graph, parts

both = pytest.mark.parametrize(("how", "table"), DRAWN, ids=[how.mark for how, _ in DRAWN])


def read_back(how: Drawing, table: Table) -> dict[str, set[str]]:
    """The table, from what is drawn of it by the rules written beside it."""
    box, out, inner, rest = parts(how, table)
    said: dict[str, set[str]] = {str(state): set() for state in table}
    for state in reversed(box):
        said[state] |= set(out)
        for old, new in inner:
            if old == state:
                said[state] |= {new} | ((said[new] & set(box)) if how.skips else set())
    for old, new in rest:
        said[old].add(new)
    return said


@both
def test_the_graph_in_the_readme_is_the_table(how: Drawing, table: Table) -> None:
    text = README.read_text(encoding="utf-8")
    drawn = text.partition(how.begin)[2].partition(how.end)[0].strip()
    assert drawn == graph(how, table), "cd tests && python -m state_graph"
    assert read_back(how, table) == {str(state): set(map(str, targets)) for state, targets in table.items()}


@both
def test_another_table_is_another_graph(how: Drawing, table: Table) -> None:
    for old, targets in table.items():
        for new in set(table) - targets - {old}:
            assert graph(how, {**table, old: targets | {new}}) != graph(how, table), (old, new)
        for new in targets:
            other = {**table, old: targets - {new}}
            same = {k: set(v) for k, v in other.items()}
            assert graph(how, other) != graph(how, table) or read_back(how, other) != same, (old, new)


def test_each_begins_where_it_is_made() -> None:
    assert (ATTEMPT.starts, CALLBACK.starts) == (("due",), ("scheduled", "queued"))
