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
from bridge.pbx.connecting import NoReply, NotAllowed
from bridge.pbx.esl.resync import Snapshot, resync, still_news, take_snapshot
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
        [f"started inbound {CALLER} > {DID}", "offered 101", "uncertain"],
        ["started internal 101 > 102", "offered 102", "connected 101 102", "uncertain"],
    ],
    "after_att": [
        [f"started inbound {CALLER} > {DID}", "offered 102", f"connected {CALLER} 102", "uncertain"]
    ],
    "conf": [
        [f"started inbound {CALLER} > +12125550180", f"connected {CALLER} 101", "uncertain"],
        ["started - 101 > 800", "merged"],
    ],
}


class Answers(dict[str, str]):
    """By question; of a channel that was not asked after, that there is none: it had ended."""

    def __missing__(self, question: str) -> str:
        if question.startswith("uuid_dump "):
            return "-ERR No such channel!\n"
        raise KeyError(question)


def answers(name: str) -> dict[str, str]:
    with gzip.open(FOLDER / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        return Answers(json.load(file)["asked"])


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
    assert done.appeared == (2 if name == "consulting" else 1)
    again = resync(tracker, take_snapshot(answers(name).__getitem__), NOW, NOW + 1)
    assert (again.appeared, again.vanished) == (0, 0)
    assert {line for story in told(again.batch.events).values() for line in story} == {"uncertain"}


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


@pytest.mark.parametrize("text", ["", "-ERR Database error!\n", "-ERR SQL disabled, no data available!\n", "[]", "{"])
def test_a_list_that_did_not_come_is_no_empty_list(text: str) -> None:
    """Else every call would end, and every dial of ours be over, because the core's database was busy."""
    with pytest.raises(NoReply):
        take_snapshot(lambda _: text)


@pytest.mark.parametrize("rows", ["", ', "rows": 3', ', "rows": [7, null, {"uuid": null}]'])
def test_what_cannot_be_read_of_a_list_is_nothing(rows: str) -> None:
    snapshot = take_snapshot(lambda _: '{"row_count": 1' + rows + "}")
    assert (snapshot.channels, snapshot.dumps, snapshot.queued) == ((), {}, ())


@pytest.mark.parametrize("name", STORIES)
def test_a_channel_that_was_heard_of_and_is_not_listed_yet_is_asked_for(name: str) -> None:
    """FreeSWITCH's tables run a moment behind, and a link may be back sooner."""
    tracker = fresh()
    resync(tracker, take_snapshot(answers(name).__getitem__), None, NOW)
    nothing = '{"row_count": 0}'
    unlisted = Answers({**answers(name), "show channels as json": nothing, "show calls as json": nothing})
    done = resync(tracker, take_snapshot(unlisted.__getitem__, list(tracker.book.channels)), NOW, NOW + 1)
    assert done.vanished == 0
    assert {line for story in told(done.batch.events).values() for line in story} == {"uncertain"}


def test_only_an_id_that_can_be_sent_is_asked_for() -> None:
    asked: list[str] = []

    def api(question: str) -> str:
        asked.append(question)
        return '{"row_count": 0}'

    take_snapshot(api, ["a b", "a\nb", "a" * 1000, "good"])
    assert [line for line in asked if line.startswith("uuid_dump")] == ["uuid_dump good json"]


def test_a_dump_is_newer_than_the_list() -> None:
    known = {
        question: text.replace('"callstate":"ACTIVE"', '"callstate":"RINGING"') if question.startswith("show") else text
        for question, text in answers("talk").items()
    }
    assert {row["callstate"] for row in take_snapshot(known.__getitem__).channels} == {"ACTIVE"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [("_undef_", None), ("half \ud800", "half ?"), ("a\x01b", "a b"), (["a", "b"], "ARRAY::a|:b"), ("Ann", "Ann")],
)
def test_a_name_is_read_from_a_dump_as_from_an_event(name: object, shown: str | None) -> None:
    known = Answers(answers("talk"))
    for question, text in known.items():
        if question.startswith("uuid_dump"):
            dump = {**json.loads(text), "Caller-Orig-Caller-ID-Name": name, "Caller-Caller-ID-Name": name}
            known[question] = json.dumps(dump).replace("\\u0001", "\x01")
    tracker = fresh()
    done = resync(tracker, take_snapshot(known.__getitem__), None, NOW)
    [started] = [event for event in done.batch.events if event.type.value == "call.started"]
    assert started.data["from"]["name"] == shown
    json.dumps([event.data for event in done.batch.events], ensure_ascii=False).encode()


def test_a_caller_who_left_the_queue_unseen_is_unqueued() -> None:
    tracker = fresh()
    resync(tracker, take_snapshot(answers("queued").__getitem__), None, NOW)
    empty = Answers({**answers("queued"), "callcenter_config queue list members support@company": "+OK\n"})
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




def channel(uid: str, number: int, **headers: str) -> dict[str, str]:
    """A channel's birth, or its dump."""
    born = f"{round(NOW * 1e6) + number}"
    return {"Event-Name": "CHANNEL_CREATE", "Unique-ID": uid, "Caller-Channel-Created-Time": born, **headers}


def phone(uid: str, number: int, extension: str, originator: str) -> dict[str, str]:
    return channel(
        uid,
        number,
        **{
            "Call-Direction": "outbound",
            "Channel-Name": f"sofia/internal/{extension}@company",
            "variable_dialed_user": extension,
            "Other-Type": "originator",
            "Other-Leg-Unique-ID": originator,
        },
    )


@pytest.mark.parametrize("answered", [True, False])
def test_a_consultation_that_became_a_transfer_unseen_is_one_call(answered: bool) -> None:
    """The transferer is gone: who talks to the one consulted now is the customer, and no transferer."""
    customer = channel(
        "customer",
        1,
        **{
            "Call-Direction": "inbound",
            "Channel-Name": "sofia/external/x",
            "variable_sip_gateway": "trunk",
            "Caller-Caller-ID-Number": CALLER,
            "Caller-Destination-Number": DID,
        },
    )
    first, second = phone("first", 2, "101", "customer"), phone("second", 3, "102", "first")
    bridge = {"Event-Name": "CHANNEL_BRIDGE"}
    events = [
        customer,
        first,
        {"Event-Name": "CHANNEL_ANSWER", "Unique-ID": "first"},
        {**bridge, "Bridge-A-Unique-ID": "customer", "Bridge-B-Unique-ID": "first"},
        second,
        {"Event-Name": "CHANNEL_PROGRESS", "Unique-ID": "second"},
    ]
    if answered:
        events.append({"Event-Name": "CHANNEL_ANSWER", "Unique-ID": "second"})
        events.append({**bridge, "Bridge-A-Unique-ID": "first", "Bridge-B-Unique-ID": "second"})
    tracker = fresh()
    before = tracker.feed(events, NOW)
    assert len(told(before.events)) == 2
    up = {"Channel-Call-State": "ACTIVE"}
    dumps = {
        "customer": {**customer, **up, "variable_bridge_to": "second"},
        "second": {**second, **up, "variable_bridge_to": "customer"},
    }
    rows = tuple({"uuid": uid, "callstate": "ACTIVE"} for uid in dumps)
    done = resync(tracker, Snapshot(rows, (), dumps), NOW, NOW + 9)
    [call] = tracker.book.calls.values()
    assert call.id == before.events[0].call
    assert sorted(call.legs) == ["customer", "second"]
    stories = told(done.batch.events)
    assert [line.split()[0] for line in stories[call.id]] == ["uncertain", "transferred", "connected"]
    assert any(story[-1].startswith("merged") for story in stories.values())


END = {"Event-Name": "CHANNEL_HANGUP_COMPLETE", "Hangup-Cause": "NORMAL_CLEARING"}


def left_behind() -> tuple[list[dict[str, str]], dict[str, dict[str, str]]]:
    """A caller with one agent, while another answered in the same moment; and what is left as the caller goes."""
    outside = {"Call-Direction": "inbound", "Channel-Name": "sofia/external/x", "variable_sip_gateway": "trunk"}
    caller = channel("caller", 1, **outside)
    agents = {
        uid: {
            **phone(uid, number, extension, ""),
            "Other-Type": "",
            "variable_cc_side": "agent",
            "variable_cc_member_session_uuid": "caller",
        }
        for uid, number, extension in (("won", 2, "101"), ("lost", 3, "102"))
    }
    answered = [{"Event-Name": "CHANNEL_ANSWER", "Unique-ID": uid} for uid in agents]
    met = {"Event-Name": "CHANNEL_BRIDGE", "Bridge-A-Unique-ID": "won", "Bridge-B-Unique-ID": "caller"}
    ends = [{**END, "Unique-ID": "caller"}, {**END, "Unique-ID": "won"}]
    lost = {**agents["lost"], "Channel-Call-State": "ACTIVE"}
    return [caller, *agents.values(), *answered, met, *ends], {"lost": lost}


def test_an_agent_left_behind_does_not_keep_the_customers_call_alive() -> None:
    events, alone = left_behind()
    tracker = fresh()
    [story] = told(tracker.feed(events, NOW).events).values()
    assert story[-2].startswith("unoffered 102 answered_elsewhere")
    assert story[-1].startswith("ended completed")
    book = tracker.book
    assert not (book.calls or book.channels or book.bridges or book.links)
    hold = {"Event-Name": "CHANNEL_HOLD", "Call-Direction": "outbound"}
    assert not tracker.feed([{**hold, "Unique-ID": "lost"}, {**END, "Unique-ID": "lost"}], NOW + 60).events
    for process in (tracker, fresh()):
        done = resync(process, Snapshot(({"uuid": "lost", "callstate": "ACTIVE"},), (), alone), NOW, NOW + 9)
        assert (done.appeared, done.batch.events) == (0, [])


def test_an_agent_left_behind_is_let_go_where_the_caller_left_unseen() -> None:
    events, alone = left_behind()
    tracker = fresh()
    tracker.feed(events[:-2], NOW)
    done = resync(tracker, Snapshot(({"uuid": "lost", "callstate": "ACTIVE"},), (), alone), NOW, NOW + 9)
    [story] = told(done.batch.events).values()
    assert story[-1].startswith("ended")
    assert not tracker.book.calls
    assert not tracker.book.channels


@pytest.mark.parametrize(
    "name",
    [
        "Ann|Bob",
        "|" * 17,
        "Ann\nBob",
        "a\r\nb|c",
        "Ann\n+OK",
        "x|Abandoned|0\nsupport|1|2|3|4|5",
        "a\nsupport@company|single_box|1|2|3",
        "\u2028|\x85",
    ],
)
def test_a_callers_name_with_a_bar_or_a_line_keeps_the_place_in_the_queue(name: str) -> None:
    known = answers("queued")
    question = "callcenter_config queue list members support@company"
    head, row, *rest = known[question].split("\n")
    cells = row.split("|")
    cells[head.split("|").index("cid_name")] = name
    tracker = fresh()
    resync(tracker, take_snapshot(known.__getitem__), None, NOW)
    hostile = {**known, question: "\n".join([head, "|".join(cells), *rest])}
    done = resync(tracker, take_snapshot(hostile.__getitem__), NOW, NOW + 1)
    assert [line for story in told(done.batch.events).values() for line in story] == ["uncertain"]


def test_a_leg_that_came_and_went_while_the_pbx_was_asked_is_no_call_of_its_own() -> None:
    """Its caller was gone before, and was nowhere in the answers; one that is alive is heard as ever."""
    tracker = fresh()
    made = {
        "Event-Name": "CHANNEL_CREATE",
        "Channel-Name": "sofia/internal/102@10.0.0.1",
        "Call-Direction": "outbound",
        "variable_dialed_user": "102",
        "Other-Type": "originator",
        "Other-Leg-Unique-ID": "aaaaaaaa-0000-4000-8000-000000000000",
    }
    gone, lives = "bbbbbbbb-0000-4000-8000-000000000000", "cccccccc-0000-4000-8000-000000000000"
    rings = {"Event-Name": "CHANNEL_PROGRESS", "Unique-ID": gone}
    over = {"Event-Name": "CHANNEL_HANGUP_COMPLETE", "Unique-ID": gone, "Hangup-Cause": "ORIGINATOR_CANCEL"}
    gathered = [{**made, "Unique-ID": gone}, rings, {**made, "Unique-ID": lives}, over]
    resync(tracker, Snapshot(()), None, NOW)
    assert still_news(tracker, gathered) == [gathered[2]]
    assert not tracker.feed([{**made, **rings}], NOW).events
