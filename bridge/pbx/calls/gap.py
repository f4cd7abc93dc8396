"""After a gap: what is said of calls that ended, went on or began while nobody listened, whatever the PBX."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from bridge.domain.calls import CallEventType, Cause
from bridge.pbx.calls.book import Batch, Book, moment
from bridge.pbx.calls.model import Call


@dataclass(frozen=True, slots=True)
class Resynced:
    """What came of a resync: events in order, and how many calls appeared and vanished."""

    batch: Batch
    appeared: int
    vanished: int


def orphans(book: Book, seen: Container[str], links: Mapping[str, str]) -> list[str]:
    """Channels not heard of before that alone keep a known call alive. `links`: to which channel each one belongs."""
    gone = {call.id for call in book.calls.values() if not any(uid in seen for uid in call.legs)}
    return [
        uid
        for uid, link in links.items()
        if uid not in book.channels and uid != link and book.links.get(link) in gone
    ]


def over_already(book: Book, births: Iterable[tuple[str, str]], ended: Container[str]) -> set[str]:
    """Legs that were born and ended before the snapshot's answers were read, and whose call ended unseen too.

    `births` are each channel and to which it belongs, in order. Heard now, such a leg would be a call of its own, and
    ring on somebody's screen when all is over.
    """
    known, over = set[str](), set[str]()
    for uid, link in births:
        # What is expected is a dial of ours: its end is to be told.
        heard_of = link in known or link in book.links or link in book.expected or uid in book.channels
        if uid in ended and link != uid and not heard_of:
            over.add(uid)
        else:
            known |= {uid, link}
    return over


def still_rings(book: Book, seen: Container[str]) -> None:
    """A phone at two places whose one leg went in the gap has rung at the other all the time: that is no new ring."""
    for leg in list(book.channels.values()):
        if leg.uid in seen or leg.trunk or leg.accepted or not leg.offered or leg.unoffered:
            continue
        for other in book.live_legs(book.calls[leg.call]):
            if other.uid in seen and other.outgoing and other.device == leg.device:
                other.offered = True


def close_gone(book: Book, seen: Container[str], since: float | None, now: float) -> int:
    """End as uncertain the calls of which no channel is left; say of the others that they were out of sight.

    `since` is when the link was lost; None where this process never had one: then each call's own last news counts.
    Returns how many calls ended.
    """
    gone = 0
    for call in list(book.calls.values()):
        if any(uid in seen for uid in call.legs):
            if call.started:
                _uncertain(book, call, since, now)
            continue
        gone += 1
        book.start(call, now)
        if call.started:
            _uncertain(book, call, since, now)
        call.ended_by = None
        for leg in call.legs:
            consultation = book.calls.get(book.channels[leg].guest_of or "")
            if consultation is not None:
                consultation.guest = None
        book.pause(call, since if since is not None else call.last)
        book.end(call, now, Cause.UNCERTAIN)
    return gone


def keep_all(book: Book, since: float | None, now: float) -> Batch:
    """Where the PBX does not say what it has: no call ends, and each was out of sight. `since` as for close_gone."""
    for call in book.calls.values():
        if call.started:
            _uncertain(book, call, since, now)
    return book.take()


def greet_new(book: Book, before: Mapping[str, bool], since: float | None, now: float) -> int:
    """Say of each call that was not known `before` that its beginning was not seen. Returns how many there are.

    `before` says of each call that was known whether it had been started.
    """
    appeared = 0
    for call in list(book.calls.values()):
        if before.get(call.id):
            continue
        last = book.recalled.last_news(call)
        appeared += last is None and call.id not in before
        # Of one that had not acted yet, the first act may have been missed.
        book.start(call, now)
        if call.started:
            _uncertain(book, call, max(call.born, since or last or call.born), now)
    for lost in book.recalled.forget():
        if lost.expected is not None:
            book.expected.pop(lost.expected.attempt, None)
    return appeared


def _uncertain(book: Book, call: Call, since: float | None, now: float) -> None:
    start = min(since if since is not None else call.last, now)
    data = {"since": moment(start).isoformat(), "until": moment(now).isoformat()}
    book.emit(call, CallEventType.UNCERTAIN, now, data)
