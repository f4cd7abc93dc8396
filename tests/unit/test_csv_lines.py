"""Tables brought as CSV: what is wrong is told by its line, and never repeated."""

from __future__ import annotations

import pytest

from bridge.domain import csv_lines
from bridge.domain.csv_lines import Fault, Imported, Row
from bridge.domain.errors import Invalid

COLUMNS, NEEDED = ("number", "note"), ("number",)


def read(*lines: str, first_line: int = 1) -> list[Row | Fault]:
    return list(csv_lines.read(lines, COLUMNS, NEEDED, first_line))


def rows(*lines: str) -> list[tuple[int, str, str]]:
    return [(row.line, row.cells["number"], row.cells["note"]) for row in read(*lines) if isinstance(row, Row)]


def test_columns_in_the_order_that_the_first_line_names() -> None:
    assert rows("\ufeffNote, Number", 'said so," 123 "', "", "x,456") == [(2, "123", "said so"), (4, "456", "x")]
    assert rows("123,said so", "456") == [(1, "123", "said so"), (2, "456", "")]


@pytest.mark.parametrize("header", ["number,colour", "number,number", "note"])
def test_columns_that_are_none(header: str) -> None:
    with pytest.raises(Invalid):
        read(header, "1,2")


def test_one_bad_line_spoils_no_other() -> None:
    found = read("1", '"2', "3,a,b", "4" * 5000, "5", first_line=100)
    assert [(each.line, each.code) for each in found if isinstance(each, Fault)] == [
        (101, "csv_invalid"), (102, "too_many_cells"), (103, "csv_invalid"),
    ]  # fmt: skip
    assert [each.line for each in found if isinstance(each, Row)] == [100, 104]


def test_all_faults_are_counted_and_some_are_told() -> None:
    done = Imported()
    for line in range(500):
        done.note(Fault(line, "x", "y"))
    assert (done.bad, len(done.faults), done.faults[-1].line) == (500, 100, 99)
