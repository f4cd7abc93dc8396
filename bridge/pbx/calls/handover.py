"""Taking over the calls that another process left, from the state it kept of each."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.pbx.calls.book import Book
from bridge.pbx.calls.model import load


def restore(book: Book, live: Mapping[str, str]) -> int:
    """Fill an empty book with dumped calls. Returns how many could not be read."""
    unread = 0
    for text in live.values():
        try:
            call, channels, bridges = load(text)
        except ValueError:
            unread += 1
            continue
        book.calls[call.id] = call
        for link in call.links:
            book.links[link] = call.id
        for channel in channels:
            book.add_line(channel)
        for bridge in bridges:
            # Two calls may meet in one bridge; each dump holds its own members.
            known = book.bridges.setdefault(bridge.id, bridge)
            if known is not bridge:
                known.members.extend(bridge.members)
    return unread
