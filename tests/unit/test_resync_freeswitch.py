"""The picture after a gap, from what a real FreeSWITCH answered to each question at that moment."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from recorded import TRACES, wire
from story import heard, side, told

from bridge.domain.calls import Expected
from bridge.pbx.connecting import NotAllowed
from bridge.pbx.esl.resync import Snapshot, resync, take_snapshot
from bridge.pbx.esl.tracker import Tracker

FOLDER = TRACES / "ours" / "freeswitch-1.11-snapshots"
CALLER, DID = "+16465550111", "+12125550101"
CUSTOMER = "+16465550101"
NOW = 1_795_400_000.0

# What each recording, which says in words what was going on, comes to for a process that knew nothing.
STORIES: dict[str, list[list[str | set[str]]]] = {
    "talk": [[f"started inbound {CALLER} > {DID}", "offered 101", f"connected {CALLER} 101", "uncertain"]],
    "ringing": [[f"started inbound {CALLER} > {DID}", "offered 101", "uncertain"]],
    "queued": [
        [
            f"started inbound {CALLER} > +12125550110",
            {f"offered 10{phone}" for phone in "12345"},
            "queued support 1",
            "uncertain",
        ]
    ],
    "sales": [
        [f"started inbound {CALLER} > +12125550120", "offered 101", f"connected {CALLER} 101", "uncertain"]
    ],
    "outbound": [
        [f"started outbound 101 > {CUSTOMER}", f"offered {CUSTOMER}", f"connected 101 {CUSTOMER}", "uncertain"]
    ],
    "after_blind": [
        [
            f"started outbound - > {CUSTOMER}",
            f"offered {CUSTOMER}",
            "offered 102",
            f"connected {CUSTOMER} 102",
            "uncertain",
        ]
    ],
    "consulting": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            "offered 102",
            "connected 101 102",
            "uncertain",
        ]
    ],
    "after_att": [
        [f"started inbound {CALLER} > {DID}", "offered 102", f"connected {CALLER} 102", "uncertain"]
    ],
    "conf": [
        [f"started inbound {CALLER} > +12125550180", f"connected {CALLER} 101", "uncertain"],
        ["started - 101 > 800", "merged"],
    ],
}


def answers(name: str) -> dict[str, str]:
    """By question."""
    with gzip.open(FOLDER / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        return dict(json.load(file)["asked"])


def fresh() -> Tracker:
    tracker = side("freeswitch").tracker()
    assert isinstance(tracker, Tracker)
    return tracker


def same(story: list[str], expected: list[str | set[str]]) -> bool:
    at = 0
    for item in expected:
        size = len(item) if isinstance(item, set) else 1
        if set(story[at : at + size]) != (item if isinstance(item, set) else {item}):
            return False
        at += size
    return at == len(story)


@pytest.mark.parametrize("name", STORIES)
def test_a_process_that_knew_nothing_sees_what_is_going_on(name: str) -> None:
    tracker = fresh()
    done = resync(tracker, take_snapshot(answers(name).__getitem__), None, NOW)
    stories = list(told(done.batch.events).values())
    assert len(stories) == len(STORIES[name]), stories
    for story, expected in zip(stories, STORIES[name], strict=True):
        assert same(story, expected), story
    assert tracker.faults == 0
    assert done.appeared == 1
    again = resync(tracker, take_snapshot(answers(name).__getitem__), NOW, NOW + 1)
    assert (again.appeared, again.vanished) == (0, 0)
    assert [line for story in told(again.batch.events).values() for line in story] == ["uncertain"]


@pytest.mark.parametrize("name", STORIES)
def test_when_all_is_over_nothing_is_left(name: str) -> None:
    tracker = fresh()
    resync(tracker, take_snapshot(answers(name).__getitem__), None, NOW)
    done = resync(tracker, Snapshot(()), NOW, NOW + 5)
    assert done.vanished >= 1
    assert all(story[-1].startswith("ended uncertain") for story in told(done.batch.events).values())
    book = tracker.book
    assert not (book.calls or book.channels or book.bridges or book.links or book.wires)


def test_whoever_knew_the_call_keeps_its_id() -> None:
    """The call's first channel is as old as the PBX says, whoever looks."""
    one, two = fresh(), fresh()
    for tracker in (one, two):
        resync(tracker, take_snapshot(answers("after_blind").__getitem__), None, NOW)
    assert set(one.book.calls) == set(two.book.calls)


def test_a_channel_that_has_just_ended_is_listed_and_has_no_dump() -> None:
    """FreeSWITCH's tables run a moment behind."""
    known = answers("talk")

    def api(question: str) -> str:
        return "-ERR No such channel!\n" if question.startswith("uuid_dump") else known[question]

    assert take_snapshot(api).channels == ()


def test_a_user_that_may_not_ask_for_queues_sees_the_calls() -> None:
    known = answers("queued")

    def api(question: str) -> str:
        if question.startswith("callcenter_config"):
            raise NotAllowed("no")
        return known[question]

    snapshot = take_snapshot(api)
    assert len(snapshot.channels) == 6
    assert snapshot.queued == ()


@pytest.mark.parametrize("text", ["", "-ERR no\n", "[]", '{"rows": 3}', '{"rows": [7, null, {"uuid": null}]}', "{"])
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    snapshot = take_snapshot(lambda _: text)
    assert (snapshot.channels, snapshot.dumps, snapshot.queued) == ((), {}, ())


def test_a_caller_who_left_the_queue_unseen_is_unqueued() -> None:
    tracker = fresh()
    resync(tracker, take_snapshot(answers("queued").__getitem__), None, NOW)
    empty = {**answers("queued"), "callcenter_config queue list members support@company": "+OK\n"}
    done = resync(tracker, take_snapshot(empty.__getitem__), NOW, NOW + 1)
    [story] = told(done.batch.events).values()
    assert story == ["uncertain", "unqueued support left"]


def test_our_own_dial_is_known_by_what_its_channels_carry() -> None:
    attempt = "092f023d-3121-4be4-a7a9-4b4662d2e327"
    known = answers("outbound")
    for question, text in known.items():
        if question.startswith("uuid_dump"):
            leg = "agent" if "sofia/internal" in json.loads(text)["Channel-Name"] else "customer"
            known[question] = json.dumps({**json.loads(text), "variable_rb_attempt": attempt, "variable_rb_leg": leg})
    tracker = fresh()
    resync(tracker, take_snapshot(known.__getitem__), None, NOW)
    assert tracker.live_attempts() == {attempt}
    tracker = fresh()
    tracker.expect(Expected(attempt, agent="anna", agent_device="user/101", number=CUSTOMER))
    done = resync(tracker, take_snapshot(known.__getitem__), None, NOW)
    assert done.batch.events[0].call == f"lab-{attempt}"


@pytest.mark.parametrize("scenario", ["simple", "queue_ringall", "attended_refer", "pickup", "queue_loopback"])
def test_what_began_unheard_is_taken_in_as_it_acts(scenario: str) -> None:
    """Neither the births nor a snapshot: each channel is known from the first thing it does."""
    events = heard(wire("freeswitch-1.11-json", scenario))
    tracker = fresh()
    batches = [tracker.feed([event], at) for at, event in events if event["Event-Name"] != "CHANNEL_CREATE"]
    stories = told(event for batch in batches for event in batch.events).values()
    assert tracker.faults == 0
    assert not tracker.book.calls and not tracker.book.channels
    assert all(story[0].startswith("started") for story in stories)
    assert any(line.startswith("connected") for story in stories for line in story)


def test_any_order_of_channels_gives_the_same_picture() -> None:
    dice = random.Random(7)
    for name in STORIES:
        snapshot = take_snapshot(answers(name).__getitem__)
        tracker = fresh()
        mixed = Snapshot(shuffled(dice, snapshot.channels), snapshot.calls, snapshot.dumps, snapshot.queued)
        done = resync(tracker, mixed, None, NOW)
        assert len(told(done.batch.events)) == len(STORIES[name])


def shuffled(dice: random.Random, items: Iterable[Any]) -> tuple[Any, ...]:
    mixed = list(items)
    dice.shuffle(mixed)
    return tuple(mixed)


