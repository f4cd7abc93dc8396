"""Cuts a recording whose replies to a resync were recorded too: what the PBX itself said then, and no model of ours.

The link is lost after any event; what comes then is not heard, until the first question of a snapshot goes out; the
answers are those that the PBX gave; and all that came since that question is heard behind them, as a link gathers it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import story
from gaps import Picture, _ends, _is_heard, _other_people, resynced, whole
from invariants import Broken, Watch, left
from recorded import story_of, zero_of
from said import Said, pairs
from scenarios.looking import Shot, read

from bridge.domain.calls import CallEvent, CallEventType, Directory, Expected
from bridge.pbx.ami import resync as ami_resync
from bridge.pbx.ami.resync import CHANNELS
from bridge.pbx.esl import resync as esl_resync
from bridge.pbx.esl import tracker as esl_tracker

QUIET_SECONDS = 0.6
"""Longer than any event is late: after such a silence the tracker's picture is the PBX's."""
_AFTER = 60.0


@dataclass
class Heard:
    """One event that the tracker hears, and what an uncut tracker knew after it."""

    at: float
    event: Any
    said: int
    live: dict[str, str]
    picture: Picture
    quiet: bool
    """Nothing came for a while after it."""


@dataclass
class Recording:
    """A scenario heard without a gap, and what the PBX answered meanwhile."""

    side: story.Side
    order: Expected | None
    heard: list[Heard]
    said: list[CallEvent]
    shots: list[tuple[float, float, Shot]]
    """With the seconds since the epoch at which the first question went out and the last answer was there."""
    over: bool
    """No call is left at the end."""
    offers: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Gap:
    """After so many events the link is lost; that snapshot is the first thing heard again."""

    cut: int
    shot: int
    same_process: bool

    def __str__(self) -> str:
        return f"cut after {self.cut}, snapshot {self.shot}, {'same' if self.same_process else 'another'} process"


def record(path: Path, agents: Directory | None = None) -> Recording:
    """Hear a recording through, whose snapshots stand beside it."""
    side = story.side_of(path)
    side.agents = agents or side.agents
    order = story.expected(path) if "attempt " in story_of(path) else None
    tracker = side.tracker()
    if order is not None:
        tracker.expect(order)
    watch = Watch(tracker)
    live: dict[str, str] = {}
    heard: list[Heard] = []
    for at, event in whole(path):
        if not _is_heard(event):
            continue
        batch = tracker.feed([event], at)
        watch.saw(batch.events)
        for call, state in batch.live.items():
            live.pop(call, None)
            if state is not None:
                live[call] = state
        heard.append(Heard(at, event, len(watch.said), dict(live), picture(tracker), False))
    for one, two in zip(heard, [*heard[1:], None], strict=True):
        one.quiet = two is None or two.at - one.at > QUIET_SECONDS
    over = not tracker.book.channels
    if heard:
        watch.saw(side.left_alone(tracker, heard[-1].at, heard[-1].at + _AFTER).batch.events)
    zero = zero_of(path).timestamp()
    shots = [(zero + shot.asked, zero + shot.answered, shot) for shot in read(path.with_name("snapshots.jsonl.gz"))]
    return Recording(side, order, heard, watch.said, shots, over, _offers(watch.said))


def gaps(recording: Recording) -> Iterator[Gap]:
    """Every event, with each snapshot that follows, for the same process and for another."""
    for cut in range(len(recording.heard) + 1):
        lost = recording.heard[cut - 1].at if cut else 0.0
        for number, (asked, _, _) in enumerate(recording.shots):
            if asked > lost and _asked_all(recording, cut, number):
                yield Gap(cut, number, True)
                yield Gap(cut, number, False)


def _asked_all(recording: Recording, cut: int, number: int) -> bool:
    """Whether that FreeSWITCH was asked after each channel of which the link had heard: the one that looked is another
    connection, which hears of a birth some milliseconds sooner or later."""
    asked, _, shot = recording.shots[number]
    questions = {reply.question for reply in shot.replies}
    if CHANNELS in questions:
        return True
    born = {one.event.get("Unique-ID") for one in recording.heard[:cut] if one.event["Event-Name"] == "CHANNEL_CREATE"}
    for one in recording.heard:
        if one.at < asked and one.event["Event-Name"] == "CHANNEL_HANGUP_COMPLETE":
            born.discard(one.event["Unique-ID"])
    return all(f"uuid_dump {uid} json" in questions for uid in born)


def some(recording: Recording, dice: random.Random) -> Iterator[Gap]:
    """One at every event."""
    by_cut: dict[int, list[Gap]] = {}
    for gap in gaps(recording):
        by_cut.setdefault(gap.cut, []).append(gap)
    return (dice.choice(found) for found in by_cut.values())


def faults(recording: Recording, gap: Gap) -> list[str]:
    """What is wrong about picture and story after that gap; nothing, if it was survived."""
    return survive(recording, gap)[0]


def survive(recording: Recording, gap: Gap) -> tuple[list[str], list[CallEvent]]:
    """What is wrong, and all that was published, before that gap and after it."""
    side, heard = recording.side, recording.heard
    asked, answered, shot = recording.shots[gap.shot]
    before = heard[gap.cut - 1] if gap.cut else None
    tracker = side.tracker()
    if recording.order is not None and (before is None or gap.same_process):
        tracker.expect(recording.order)
    told = recording.said[: before.said] if before else []
    if gap.same_process:
        for one in heard[: gap.cut]:
            tracker.feed([one.event], one.at)
    elif before is not None and tracker.restore(before.live):
        return ["what was kept cannot be read"], told
    known = set(tracker.book.calls)
    snapshot = shot.snapshot(list(tracker.book.channels))
    watch = Watch(tracker, told)
    found: list[str] = []
    try:
        if gap.same_process:
            watch.saw(())
        since = before.at if before is not None and gap.same_process else None
        watch.saw(resynced(tracker, snapshot, since, answered).batch.events)
        found += unlike_the_pbx(tracker, shot)
        found += _untold(watch.said[len(told) :], known, tracker)
        looks = _looks_again(recording, gap) if isinstance(tracker, esl_tracker.Tracker) else []
        since_asked = [one for one in heard[gap.cut :] if one.at >= asked]
        gathered = [one.event for one in since_asked if one.at < answered]
        over = {id(event) for event in gathered} - {id(event) for event in still_news(tracker, gathered)}
        for one in since_asked:
            if id(one.event) in over:
                continue
            while looks and looks[0][1] < one.at:
                watch.saw(_look_again(tracker, looks.pop(0)))
            watch.saw(tracker.feed([one.event], one.at).events)
            if one.quiet and one.at > answered and not looks:
                found += _unlike(picture(tracker), one.picture)
        if recording.over and left(tracker.book):
            found += [f"left for ever: {what}" for what in left(tracker.book)]
        end = max(answered, heard[-1].at) + _AFTER
        watch.saw(side.left_alone(tracker, end, end).batch.events)
        watch.over()
    except Broken as broken:
        return [*found, *str(broken).splitlines()], watch.said
    return list(dict.fromkeys([*found, *_other_story(recording, watch.said, known)])), watch.said


def _looks_again(recording: Recording, gap: Gap) -> list[tuple[float, float, Shot]]:
    """A link to a FreeSWITCH looks once more after a second, and after four; the next snapshots that were taken."""
    found: list[tuple[float, float, Shot]] = []
    first = recording.shots[gap.shot][1]
    for seconds in (1.0, 4.0):
        later = [shot for shot in recording.shots[gap.shot + 1 :] if shot[0] >= first + seconds * 0.9]
        found += [shot for shot in later[:1] if shot not in found]
    return found


def still_news(tracker: Any, gathered: list[Any]) -> list[Any]:
    """What a link hands on of what it gathered, whichever PBX it is of."""
    if isinstance(tracker, esl_tracker.Tracker):
        return esl_resync.still_news(tracker, gathered)
    return ami_resync.still_news(tracker, gathered)


def _look_again(tracker: esl_tracker.Tracker, shot: tuple[float, float, Shot]) -> list[CallEvent]:
    snapshot = shot[2].snapshot()
    return list(esl_resync.look_again(tracker, snapshot, shot[1]).batch.events)


# --- the picture, in channels ---


def picture(tracker: Any) -> Picture:
    """Of people alone: who hears whom, who belongs together, who waits where."""
    book = tracker.book
    real = {channel.uid for channel in book.channels.values() if channel.real}
    hears = {frozenset(other.uid for other in book.reach(book.channels[uid]) if other.uid in real) for uid in real}
    queued = {(call.first, call.queue) for call in book.calls.values() if call.queue}
    calls = {uid: book.side(book.channels[uid]) for uid in real}
    return Picture({group for group in hears if len(group) > 1}, queued, calls)


def _together(calls: dict[str, str]) -> set[frozenset[str]]:
    groups: dict[str, set[str]] = {}
    for uid, call in calls.items():
        groups.setdefault(call, set()).add(uid)
    return {frozenset(group) for group in groups.values()}


def _unlike(got: Picture, want: Picture) -> Iterator[str]:
    """What differs from the picture of a tracker that heard all."""
    if got.hears != want.hears:
        yield f"who hears whom: {_sets(got.hears)}, should be {_sets(want.hears)}"
    if got.queued != want.queued:
        yield f"queued are {sorted(got.queued)}, should be {sorted(want.queued)}"
    if _together(got.calls) != _together(want.calls):
        yield f"calls are {_sets(_together(got.calls))}, should be {_sets(_together(want.calls))}"


def _sets(groups: Iterable[frozenset[str]]) -> list[list[str]]:
    return sorted(sorted(group) for group in groups)


def unlike_the_pbx(tracker: Any, shot: Shot) -> Iterator[str]:
    """What differs from what the PBX had just said."""
    got, said = picture(tracker), Said.by(shot)
    for uid in said.people - got.calls.keys():
        yield f"{uid} is alive and unknown"
    for uid in got.calls.keys() - said.people - said.doubtful:
        yield f"{uid} is known and gone"
    hears = {pair for group in got.hears for pair in pairs(group)}
    for pair in said.pairs - hears:
        if pair <= got.calls.keys():
            yield f"{sorted(pair)} hear each other, the PBX says"
    for pair in hears - said.pairs:
        if pair <= said.people and not pair & said.doubtful:
            yield f"{sorted(pair)} do not hear each other, the PBX says"
    for uid in said.ringing & got.calls.keys():
        if not tracker.book.channels[uid].offered:
            yield f"{uid} rings and was offered to nobody"
    waits = {queue for uid, queue in said.queued if uid in tracker.book.channels}
    if waits != {queue for _, queue in got.queued}:
        yield f"queued are {sorted(got.queued)}, on the PBX {sorted(said.queued)}"


# --- the story ---


def _untold(said: list[CallEvent], known: set[str], tracker: Any) -> Iterator[str]:
    """Each call that spanned the gap says so, and one that ended in it ends as uncertain."""
    for call in known:
        mine = [event for event in said if event.call == call]
        kinds = [event.type for event in mine]
        if CallEventType.MERGED in kinds or not (mine or tracker.book.calls[call].started):
            continue
        if CallEventType.UNCERTAIN not in kinds:
            yield f"{call} says nothing of the gap"
        for event in mine:
            if event.type is CallEventType.ENDED and event.data["cause"] != "uncertain":
                yield f"{call} ended unseen as {event.data['cause']}"


def _other_story(recording: Recording, told: list[CallEvent], known: set[str]) -> Iterator[str]:
    """A call that was known goes on with the same customer and client, and nobody is offered one ring twice."""
    after, first = _ends(told), {event.call: event for event in reversed(told)}
    for call, end in _ends(recording.said).items():
        if call in known and call in after and CallEventType.MERGED not in (end.type, after[call].type):
            yield from _other_people(first[call], after[call])
    for device, count in _offers(told).items():
        if count > max(1, recording.offers[device]):
            yield f"{device} was offered {count} times, and rang {recording.offers[device]} times"
    if _sent_on(told) > _sent_on(recording.said):
        yield f"sent on {_sent_on(told)} times, and that happened {_sent_on(recording.said)} times"


def _sent_on(events: Iterable[CallEvent]) -> int:
    """How many blind transfers; an attended one may be all that shows of a parked caller who was fetched in the gap."""
    return sum(event.type is CallEventType.TRANSFERRED and event.data["kind"] == "blind" for event in events)


def _offers(events: Iterable[CallEvent]) -> Counter[str]:
    return Counter(
        str(event.data["party"]["device"] + (event.data["party"]["number"] or ""))
        for event in events
        if event.type is CallEventType.OFFERED
    )
