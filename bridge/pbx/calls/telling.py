"""When what the tracker wrote down is handed on: at once, but not again within some milliseconds.

Every batch brings the whole state of each call that it speaks of. Under load most calls are spoken of again in the
next moment, so what is gathered for a moment is written once. Events and states are always taken in the same step.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge.pbx.calls.book import Batch, Book

GATHER_SECONDS = 0.01


class Teller:
    """Takes from the book and hands on. Lives in the link's own thread, like the book."""

    def __init__(
        self, book: Book, hand_on: Callable[[Batch], None], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        """`later` calls something back after so many seconds, in the same thread."""
        self._book = book
        self._hand_on = hand_on
        self._later = later
        self._last = 0.0
        self._waits = False

    def soon(self) -> None:
        """Something may have been written down."""
        if self._waits or not self._book.has_news:
            return
        left = self._last + GATHER_SECONDS - time.monotonic()
        if left <= 0:
            self.now()
        else:
            self._waits = True
            self._later(left, self._due)

    def now(self) -> None:
        """Hand on all that is there: something else is about to be said that comes after it."""
        if self._book.has_news:
            self._last = time.monotonic()
            self._hand_on(self._book.take())

    def _due(self) -> None:
        self._waits = False
        self.now()
