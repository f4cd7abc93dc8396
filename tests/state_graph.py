"""The graphs of an attempt's and of a callback's states in `bridge/README.md`, drawn from their transition tables.

    cd tests && python -m state_graph

writes them anew; `unit/test_state_graph.py` fails where one is not what its table says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.domain.attempts import TRANSITIONS
from bridge.domain.callback_states import CALLBACK_TRANSITIONS

README = Path(__file__).parents[1] / "bridge" / "README.md"

Table = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a table is drawn: the states from which each end can be reached are one box."""

    mark: str
    """What stands before and after it in the page."""
    box: str
    starts: tuple[str, ...]
    skips: bool
    """Whether an arrow within the box stands for all that skip states forwards too."""

    @property
    def begin(self) -> str:
        return f"<!-- {self.mark}: made by tests/state_graph.py -->"

    @property
    def end(self) -> str:
        return f"<!-- {self.mark}: end -->"


ATTEMPT = Drawing("states", "in work", ("due",), skips=True)
CALLBACK = Drawing("callback states", "waiting", ("scheduled", "queued"), skips=False)
DRAWN: tuple[tuple[Drawing, Table], ...] = ((ATTEMPT, TRANSITIONS), (CALLBACK, CALLBACK_TRANSITIONS))


def graph(how: Drawing, table: Table) -> str:
    """Mermaid. An arrow out of the box begins at each state in it."""
    _, out, inner, rest = parts(how, table)
    lines = ["```mermaid", "stateDiagram-v2", f'    state "{how.box}" as box {{']
    lines += [f"        [*] --> {state}" for state in how.starts]
    lines += [f"        {old} --> {new}" for old, new in inner]
    lines += ["    }", *(f"    box --> {new}" for new in out), *(f"    {old} --> {new}" for old, new in rest)]
    lines += [f"    {state} --> [*]" for state, targets in table.items() if not targets]
    return "\n".join([*lines, "```"])


def parts(how: Drawing, table: Table) -> tuple[list[str], list[str], list[tuple[str, str]], list[tuple[str, str]]]:
    """The states in the box, the arrows out of it, those inside, and all others."""
    ends = {state for state, targets in table.items() if not targets}
    box = [str(state) for state, targets in table.items() if ends <= targets]
    out = [str(state) for state in table if state not in box and all(state in table[old] for old in box)]
    inner = [
        (old, str(new))
        for old in box
        for new in table
        if new in table[old] and new in box
        if not (how.skips and any(new in table[by] for by in table[old] if by in box))
    ]
    rest = [(str(old), str(new)) for old in table if old not in box for new in table if new in table[old]]
    rest += [(old, str(new)) for old in box for new in table if new in table[old] and new not in (*box, *out)]
    return box, out, inner, rest


def write() -> None:
    """Put each graph between its marks."""
    for how, table in DRAWN:
        text = README.read_text(encoding="utf-8")
        before, _, rest = text.partition(how.begin)
        _, _, after = rest.partition(how.end)
        README.write_text(f"{before}{how.begin}\n\n{graph(how, table)}\n\n{how.end}{after}", encoding="utf-8")


if __name__ == "__main__":
    write()
