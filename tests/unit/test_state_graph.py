"""The drawn graph of an attempt's states says what the transition table says: no arrow more, none less."""

from __future__ import annotations

from collections.abc import Mapping

from state_graph import BEGIN, END, README, graph, parts

from bridge.domain.attempts import TRANSITIONS


def read_back(table: Mapping[str, frozenset[str]]) -> dict[str, set[str]]:
    """The table, from what is drawn of it by the rules written beside it."""
    box, out, inner, rest = parts(table)
    said: dict[str, set[str]] = {str(state): set() for state in table}
    for state in reversed(box):
        said[state] |= set(out)
        for old, new in inner:
            if old == state:
                said[state] |= {new} | (said[new] & set(box))
    for old, new in rest:
        said[old].add(new)
    return said


def test_the_graph_in_the_readme_is_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    drawn = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert drawn == graph(), "cd tests && python -m state_graph"
    assert read_back(TRANSITIONS) == {str(state): set(map(str, targets)) for state, targets in TRANSITIONS.items()}


def test_another_table_is_another_graph() -> None:
    for old, targets in TRANSITIONS.items():
        for new in set(TRANSITIONS) - targets - {old}:
            assert graph({**TRANSITIONS, old: targets | {new}}) != graph(), (old, new)
        for new in targets:
            other = {**TRANSITIONS, old: targets - {new}}
            assert graph(other) != graph() or read_back(other) != {k: set(v) for k, v in other.items()}, (old, new)
