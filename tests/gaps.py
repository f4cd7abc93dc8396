"""Cuts a recording: a tracker is lost, another takes its calls over, some events pass unheard, a resync follows, and
the rest is heard. What comes of it is compared with what the uncut recording comes to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import snapshots
import story
from invariants import Broken, Watch, left
from recorded import story_of

from bridge.domain.calls import CallEvent, CallEventType, Expected
from bridge.pbx.ami import codec as ami_codec
from bridge.pbx.ami import resync as ami_resync
from bridge.pbx.ami import tracker as ami_tracker
from bridge.pbx.ami.hearing import HEARD as AMI_HEARD
from bridge.pbx.esl import resync as esl_resync
from bridge.pbx.esl import tracker as esl_tracker
from bridge.pbx.esl.hearing import HEARD as ESL_HEARD
from bridge.pbx.esl.hearing import HEARD_CUSTOM

LONGEST = 12
"""Events that are lost at most."""


@dataclass
class Moment:
    """Just after an event that the tracker hears: what was kept, what the PBX would say, and who hears whom."""

    at: float
    event: Any
    said: int
    live: dict[str, str]
    snapshot: Any
    alive: set[str]
    picture: Picture


@dataclass
class Picture:
    """What is going on, in channels: it says nothing of how the tracker came to know."""

    hears: set[frozenset[str]] = field(default_factory=set)
    queued: set[tuple[str, str]] = field(default_factory=set)
    calls: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tracker: Any, alive: set[str]) -> Picture:
        book = tracker.book
        hears = set()
        for channel in book.channels.values():
            group = frozenset(other.uid for other in book.reach(channel) if other.real and other.uid in alive)
            if len(group) > 1:
                hears.add(group)
        queued = {(call.first, call.queue) for call in book.calls.values() if call.queue and call.first in alive}
        return cls(hears, queued, {uid: channel.call for uid, channel in book.channels.items() if uid in alive})


@dataclass
class Recording:
    """A conversation heard once without a gap, with all that a gap at any place needs."""

    side: story.Side
    order: Expected | None
    said: list[CallEvent]
    moments: list[Moment]


def record(path: Path) -> Recording:
    """Hear a recording through."""
    order = story.expected(path) if "attempt " in story_of(path) else None
    return listen(story.side_of(path), whole(path), order)


def listen(side: story.Side, events: Iterable[tuple[float, Any]], order: Expected | None = None) -> Recording:
    """Hear events through."""
    model: Any = snapshots.FreeSwitch() if isinstance(side, story.FreeSwitch) else snapshots.Asterisk()
    tracker = side.tracker()
    at = 0.0
    if order is not None:
        tracker.expect(order)
    live: dict[str, str] = {}
    watch = Watch(tracker)
    moments: list[Moment] = []
    for at, event in events:
        model.hear(event, at)
        if not _is_heard(event):
            continue
        batch = tracker.feed([event], at)
        watch.saw(batch.events)
        for call, state in batch.live.items():
            live.pop(call, None)
            if state is not None:
                live[call] = state
        alive = model.alive()
        shot = model.snapshot(at, tuple(tracker.book.channels))
        picture = Picture.of(tracker, alive)
        moments.append(Moment(at, event, len(watch.said), dict(live), shot, alive, picture))
    at += 60
    watch.saw(side.left_alone(tracker, at, at).batch.events)
    return Recording(side, order, watch.said, moments)


@dataclass(frozen=True)
class Cut:
    """After `at` events the link is lost; it is back when `back` have been; the last `again` of them are heard then."""

    at: int
    back: int
    again: int = 0

    def __str__(self) -> str:
        return f"cut after {self.at}, back after {self.back}, {self.again} heard again"


def cuts(recording: Recording, dice: random.Random) -> Iterator[Cut]:
    """One at every event."""
    last = len(recording.moments)
    for at in range(last + 1):
        back = min(last, max(1, at + dice.randint(0, LONGEST)))
        yield Cut(at, back, dice.choice((0, 0, 1, 3)) if back > at else 0)


def faults(recording: Recording, cut: Cut, *, same_process: bool) -> list[str]:
    """What is wrong about the picture and the story after that cut; nothing, if it was survived.

    In the `same_process` only the link was lost; else a new one takes over what was kept of each call.
    """
    side, moments = recording.side, recording.moments
    before = moments[cut.at - 1] if cut.at else None
    now = moments[cut.back - 1]
    tracker = side.tracker()
    if recording.order is not None and (before is None or same_process):
        tracker.expect(recording.order)
    told = recording.said[: before.said] if before else []
    if same_process:
        for moment in moments[: cut.at]:
            tracker.feed([moment.event], moment.at)
    elif before is not None and tracker.restore(before.live):
        return ["what was kept cannot be read"]
    since = before.at if before else None
    watch = Watch(tracker, told)
    found: list[str] = []
    try:
        if same_process:
            watch.saw(())
        watch.saw(resynced(tracker, now.snapshot, since, now.at).batch.events)
        found += _unlike(Picture.of(tracker, now.alive), now.picture)
        for moment in moments[max(cut.at, cut.back - cut.again) :]:
            watch.saw(tracker.feed([moment.event], moment.at).events)
        if not moments[-1].alive and left(tracker.book):
            found += [f"left for ever: {what}" for what in left(tracker.book)]
        end = moments[-1].at + 60
        watch.saw(side.left_alone(tracker, end, end).batch.events)
        watch.over()
    except Broken as broken:
        return [*found, *str(broken).splitlines()]
    return [*found, *_other_story(recording.said, watch.said, moments, cut)]


def _unlike(got: Picture, want: Picture) -> Iterator[str]:
    if got.hears != want.hears:
        yield f"who hears whom: {_sets(got.hears)}, the PBX {_sets(want.hears)}"
    if got.queued != want.queued:
        yield f"queued are {got.queued}, on the PBX {want.queued}"
    # What the PBX names and the uncut tracker had let go of, such as legs of a queue whose caller left, may be known.
    # So may, after a gap, a queue's agent who is all that is left of a call: that leg is about to end.
    for uid in want.calls.keys() - got.calls.keys():
        if list(want.calls.values()).count(want.calls[uid]) > 1 or want.calls[uid] in got.calls.values():
            yield f"{uid} is unknown"


def _sets(groups: set[frozenset[str]]) -> list[list[str]]:
    return sorted(sorted(group) for group in groups)


def _other_story(whole: list[CallEvent], told: list[CallEvent], moments: list[Moment], cut: Cut) -> Iterator[str]:
    """A call that was known goes on under its id, with the same customer and client; nobody is offered it again."""
    known = moments[cut.at - 1].live if cut.at else {}
    after = _ends(told)
    for call, end in _ends(whole).items():
        if call not in known or CallEventType.MERGED in (end.type, after[call].type):
            continue
        first = next(event for event in told if event.call == call)
        yield from _other_people(first, after[call])
    offers = _offers(whole)
    for key, count in _offers(told).items():
        if count > max(1, offers[key]):
            yield f"offered {count} times, not {offers[key]}: {key}"


def _other_people(want: CallEvent, got: CallEvent) -> Iterator[str]:
    for side in ("from", "to"):
        before, after = want.data[side], got.data[side]
        for key in ("number", "device", "extension", "agent"):
            if before is not None and before[key] is not None and (after is None or after[key] != before[key]):
                yield f"{want.call}: {side} was {before[key]}, is {after and after[key]}"


def _ends(events: list[CallEvent]) -> dict[str, CallEvent]:
    return {str(event.call): event for event in events if event.type in (CallEventType.ENDED, CallEventType.MERGED)}


def _offers(events: list[CallEvent]) -> Counter[tuple[str, str]]:
    return Counter(
        (str(event.call), str(event.data["party"]["device"]))
        for event in events
        if event.type is CallEventType.OFFERED
    )


def resynced(tracker: Any, snapshot: Any, since: float | None, now: float) -> Any:
    """What a resync with that snapshot comes to, whichever PBX it is of."""
    if isinstance(tracker, ami_tracker.Tracker):
        return ami_resync.resync(tracker, snapshot, since, now)
    assert isinstance(tracker, esl_tracker.Tracker)
    return esl_resync.resync(tracker, snapshot, since, now)


def whole(path: Path) -> Iterator[tuple[float, Any]]:
    """Every event, those too that the tracker's decoder skips."""
    if isinstance(story.side_of(path), story.FreeSwitch):
        yield from story.heard(path)
        return
    decoder = ami_codec.Decoder()
    for at, chunk in story.wrote(path):
        for message in decoder.feed(chunk):
            yield at, message


def _is_heard(event: Any) -> bool:
    if event.get("Event-Name") == "CUSTOM":
        return event.get("Event-Subclass") in HEARD_CUSTOM
    return event.get("Event") in AMI_HEARD or event.get("Event-Name") in ESL_HEARD
