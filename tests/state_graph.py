"""The graph of an attempt's states in `bridge/README.md`, drawn from the transition table.

    cd tests && python -m state_graph

writes it anew; `unit/test_attempts.py` fails where it is not what the table says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bridge.domain.attempts import TRANSITIONS

README = Path(__file__).parents[1] / "bridge" / "README.md"
BEGIN, END = "<!-- states: made by tests/state_graph.py -->", "<!-- states: end -->"

Table = Mapping[str, frozenset[str]]


def graph(table: Table = TRANSITIONS) -> str:
    """Mermaid. The states from which each end can be reached are one box: an arrow out of it begins at each of them."""
    box, out, inner, rest = parts(table)
    lines = ["```mermaid", "stateDiagram-v2", '    state "in work" as work {', f"        [*] --> {box[0]}"]
    lines += [f"        {old} --> {new}" for old, new in inner]
    lines += ["    }", *(f"    work --> {new}" for new in out), *(f"    {old} --> {new}" for old, new in rest)]
    lines += [f"    {state} --> [*]" for state, targets in table.items() if not targets]
    return "\n".join([*lines, "```"])


def parts(table: Table) -> tuple[list[str], list[str], list[tuple[str, str]], list[tuple[str, str]]]:
    """The states in the box, the arrows out of it, those inside without skips, and all others."""
    ends = {state for state, targets in table.items() if not targets}
    box = [str(state) for state, targets in table.items() if ends <= targets]
    out = [str(state) for state in table if state not in box and all(state in table[old] for old in box)]
    inner = [
        (old, str(new))
        for old in box
        for new in table
        if new in table[old] and new in box and not any(new in table[by] for by in table[old] if by in box)
    ]
    rest = [(str(old), str(new)) for old in table if old not in box for new in table if new in table[old]]
    return box, out, inner, rest


def write() -> None:
    """Put the graph between the marks."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n\n{graph()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write()
