"""Tables that people bring as CSV: read line by line, and what is wrong is said of its line, never repeated."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bridge.domain.errors import Invalid

LONGEST_LINE = 4000
MOST_FAULTS = 100
"""So many are told one by one; all are counted."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, by column; a cell that is left out is ""."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line."""

    line: int
    code: str
    message: str


@dataclass(slots=True)
class Imported:
    """What became of an import."""

    taken: int = 0
    already: int = 0
    """Were there before, and are as they were."""
    bad: int = 0
    faults: list[Fault] = field(default_factory=list)

    def note(self, fault: Fault) -> None:
        """Count a line that cannot be taken."""
        self.bad += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)


def read(
    lines: Iterable[str], columns: Sequence[str], needed: Sequence[str], first_line: int = 1
) -> Iterator[Row | Fault]:
    """The rows and faults of a table. Its first line may name its columns; without, they come as in `columns`.

    Empty lines are passed over. A quoted cell ends on its own line, so that one stray quote spoils one line.
    Raises Invalid where the first line names a column that is none, one twice, or leaves a needed one out.
    """
    order: Sequence[str] | None = None
    for number, text in enumerate(lines, first_line):
        cells = _cells(text.removeprefix("\ufeff") if number == first_line else text)
        if cells is None:
            yield Fault(number, "csv_invalid", "this line is too long, or its quotes do not match")
            continue
        if not any(cells):
            continue
        if order is None:
            order = _header(cells, columns, needed)
            if order is not None:
                continue
            order = columns
        if len(cells) > len(order):
            yield Fault(number, "too_many_cells", f"there are more than {len(order)} cells")
            continue
        yield Row(number, dict.fromkeys(columns, "") | dict(zip(order, cells, strict=False)))


def said(line: int, error: Invalid) -> Fault:
    """What is wrong with a line, as its cell's own rule says it."""
    return Fault(line, error.code, error.message)


def _cells(text: str) -> list[str] | None:
    if len(text) > LONGEST_LINE:
        return None
    try:
        found = list(csv.reader([text], strict=True))
    except csv.Error:
        return None
    return [cell.strip() for cell in found[0]] if found else []


def _header(cells: Sequence[str], columns: Sequence[str], needed: Sequence[str]) -> list[str] | None:
    """The columns that this line names; None where it is a row already."""
    names = [cell.lower() for cell in cells]
    if not set(names) & set(columns):
        return None
    unknown = [name for name in names if name not in columns]
    if unknown or len(set(names)) < len(names) or not set(needed) <= set(names):
        raise Invalid(
            f"the first line names columns; known are {', '.join(columns)}, each once, and {', '.join(needed)} "
            "must be among them",
            field="columns",
        )
    return names
