"""What the tracker says of Ringbridge's own dials, from traces of them and the witness's account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recorded import TRACES
from story import expected, play, side, told

from bridge.domain.calls import CallEvent, Expected

OURS = TRACES / "ours"
VERSIONS = ["asterisk-22", "asterisk-16", "freeswitch-1.11"]

# In every story N is the customer; started is the same for all.
STORIES: dict[str, list[str]] = {
    "agent_first_answered": [
        "offered 101",
        "offered N",
        "connected 101 N",
        "ended completed 16 outbound 101 > N person by 101",
    ],
    "agent_first_answered_customer_ends": [
        "offered 101",
        "offered N",
        "connected 101 N",
        "ended completed 16 outbound 101 > N person by N",
    ],
    "agent_first_agent_busy": ["unoffered 101 busy", "ended busy 17 outbound 101 > N - by -"],
    "agent_first_agent_rejects": ["unoffered 101 rejected", "ended rejected 21 outbound 101 > N - by -"],
    "agent_first_agent_noanswer": [
        "offered 101",
        "unoffered 101 no_answer",
        "ended no_answer 19 outbound 101 > N - by -",
    ],
    "agent_first_agent_gives_up": [
        "offered 101",
        "offered N",
        "unoffered N cancelled",
        "ended cancelled 16 outbound 101 > N - by 101",
    ],
    "agent_first_customer_busy": [
        "offered 101",
        "unoffered N busy",
        "ended busy 17 outbound 101 > N - by -",
    ],
    "agent_first_customer_rejects": [
        "offered 101",
        "unoffered N rejected",
        "ended rejected 21 outbound 101 > N - by -",
    ],
    "agent_first_customer_congested": [
        "offered 101",
        "unoffered N unreachable",
        "ended failed 34 outbound 101 > N - by -",
    ],
    "agent_first_customer_noanswer": [
        "offered 101",
        "offered N",
        "unoffered N no_answer",
        "ended no_answer 19 outbound 101 > N - by -",
    ],
    "customer_first_answered": [
        "offered N",
        "offered 101",
        "connected 101 N",
        "ended completed 16 outbound 101 > N person by 101",
    ],
    "customer_first_noanswer": [
        "offered N",
        "unoffered N no_answer",
        "ended no_answer 19 outbound 101 > N - by -",
    ],
    # The customer was reached live and no agent was there.
    "customer_first_agent_noanswer": [
        "offered N",
        "offered 101",
        "unoffered 101 no_answer",
        "ended abandoned 19 outbound 101 > N - by -",
    ],
}
# Where the PBX finds nothing to dial there is no channel; its command's reply or our dialplan says so.
FREESWITCH_STORIES: dict[str, list[str]] = {
    "agent_first_agent_unreachable": ["unoffered 109 unreachable", "ended failed 20 outbound 109 > N - by -"],
    "agent_first_trunk_gone": [
        "offered 101",
        "unoffered N unreachable",
        "ended failed 3 outbound 101 > N - by -",
    ],
    "customer_first_agent_unreachable": [
        "offered N",
        "unoffered 109 unreachable",
        "ended abandoned 20 outbound 109 > N - by -",
    ],
}


def recording(version: str, scenario: str) -> Path:
    [path] = (OURS / version).glob(f"{scenario}.jsonl*")
    return path


def run(scenario: str, version: str) -> tuple[Expected, list[CallEvent], Any]:
    path = recording(version, scenario)
    order = expected(path)
    tracker = side(version).tracker()
    tracker.expect(order)
    return order, play(path, tracker), tracker


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", STORIES)
def test_the_story_is_the_witnesss(scenario: str, version: str) -> None:
    order, events, tracker = run(scenario, version)
    assert order.number is not None
    [story] = told(events).values()
    short = [line.replace(order.number, "N") for line in story]
    assert short == ["started outbound 101 > N", *STORIES[scenario]]
    assert tracker.live_attempts() == frozenset()


@pytest.mark.parametrize("scenario", FREESWITCH_STORIES)
def test_where_there_never_was_a_leg_the_call_still_ends(scenario: str) -> None:
    order, events, _ = run(scenario, "freeswitch-1.11")
    assert order.number is not None
    [story] = told(events).values()
    [started, *rest] = [line.replace(order.number, "N") for line in story]
    assert started.startswith("started outbound 10")
    assert rest == FREESWITCH_STORIES[scenario]


@pytest.mark.parametrize(("version", "phone"), [("asterisk-22", "PJSIP/101"), ("freeswitch-1.11", "user/101")])
def test_the_start_carries_what_the_dial_is_for(version: str, phone: str) -> None:
    order, events, _ = run("agent_first_answered", version)
    data = events[0].data
    assert events[0].call == f"lab-{order.attempt}"
    assert data["attempt"] == order.attempt
    assert (data["callback"], data["campaign"], data["client"]) == ("callback-1", None, "acme")
    assert data["from"]["agent"] == "anna"
    assert data["from"]["device"] == phone
    assert data["to"]["number"] == order.number


@pytest.mark.parametrize("version", ["asterisk-22", "asterisk-16"])
def test_the_same_originate_again_is_another_call_that_is_refused(version: str) -> None:
    order, events, _ = run("agent_first_dialed_again", version)
    assert order.number is not None
    stories = told(events)
    [first, *others] = stories.values()
    assert [line.replace(order.number, "N") for line in first] == [
        "started outbound 101 > N",
        *STORIES["agent_first_answered"],
    ]
    assert len(others) == 2
    for story in others:
        assert story == ["started - - > -", "ended rejected 21 - - > - - by -"]
    assert [event.data.get("attempt") for event in events if event.seq == 1] == [order.attempt, None, None]


def test_the_same_originate_again_makes_no_channel_on_freeswitch() -> None:
    order, events, _ = run("agent_first_dialed_again", "freeswitch-1.11")
    assert order.number is not None
    [story] = told(events).values()
    assert [line.replace(order.number, "N") for line in story] == [
        "started outbound 101 > N",
        *STORIES["agent_first_answered"],
    ]


@pytest.mark.parametrize("version", ["asterisk-22", "freeswitch-1.11"])
def test_a_dial_of_which_only_the_id_is_known_still_tells_agent_from_customer(version: str) -> None:
    path = recording(version, "agent_first_customer_busy")
    order = expected(path)
    tracker = side(version).tracker()
    tracker.expect(Expected(order.attempt))
    [story] = told(play(path, tracker)).values()
    assert story == [
        "started outbound - > -",
        "offered 101",
        f"unoffered {order.number} busy",
        f"ended busy 17 outbound 101 > {order.number} - by -",
    ]


def test_freeswitchs_channels_carry_the_attempt_themselves() -> None:
    """A dial of a former process of which nothing was kept."""
    path = recording("freeswitch-1.11", "agent_first_customer_busy")
    order = expected(path)
    events = play(path)
    assert {event.call for event in events if order.attempt in str(event.call)} == {events[0].call}
    assert events[0].data["attempt"] == order.attempt
    assert events[0].data["direction"] == "outbound"
