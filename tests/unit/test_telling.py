"""What the tracker wrote down is handed on at once, and then in batches some milliseconds apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.domain.calls import CallEventType, Directory
from bridge.pbx.calls import telling
from bridge.pbx.calls.book import Batch, Book
from bridge.pbx.calls.model import Call
from bridge.pbx.calls.parties import Parties
from bridge.pbx.calls.telling import GATHER_SECONDS, Teller


class Stage:
    """A book with one call, a clock that stands still, and what was handed on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 100.0
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.batches: list[Batch] = []
        self.book = Book("pbx", Parties((), Directory()))
        self.call = Call("pbx-1", "1", 1.0)
        self.book.calls[self.call.id] = self.call
        self.teller = Teller(self.book, self.batches.append, lambda seconds, what: self.later.append((seconds, what)))
        monkeypatch.setattr(telling.time, "monotonic", lambda: self.at)

    def write(self) -> None:
        self.book.emit(self.call, CallEventType.HELD, 1.0, {})
        self.teller.soon()

    def seqs(self) -> list[list[int | None]]:
        return [[event.seq for event in batch.events] for batch in self.batches]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_the_first_word_waits_for_nothing_and_what_follows_comes_together(stage: Stage) -> None:
    stage.write()
    assert stage.seqs() == [[1]]
    stage.write()
    stage.write()
    assert stage.seqs() == [[1]]
    [(seconds, due)] = stage.later
    assert seconds == pytest.approx(GATHER_SECONDS)
    due()
    assert stage.seqs() == [[1], [2, 3]]
    assert '"seq":3' in str(stage.batches[-1].live["pbx-1"])
    stage.at += 2 * GATHER_SECONDS
    stage.write()
    assert stage.seqs() == [[1], [2, 3], [4]]


def test_before_something_else_is_said_nothing_stays_behind(stage: Stage) -> None:
    stage.write()
    stage.write()
    stage.teller.now()
    assert stage.seqs() == [[1], [2]]
    [(_, due)] = stage.later
    due()
    assert stage.seqs() == [[1], [2]]
