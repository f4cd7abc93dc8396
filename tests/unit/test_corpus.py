"""Every conversation of the corpus through the tracker of its PBX, compared with what its witness tells."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import corpus
import pytest
import story
from corpus import differences
from recorded import TRACES, name_of, scenario_of, story_of, wire, zero_of
from scenarios.replay import directory, expect_ours, hidden, published

from bridge.pbx.trace import rows

WIRES = sorted(path for pbx in ("asterisk-*", "freeswitch-*") for path in TRACES.glob(f"{pbx}/*/wire.jsonl*"))
LAB = [path for path in WIRES if path.parent.parent.name.endswith("-lab")]
"""Those that `scenarios.record` made."""
TWENTY = [path for path in WIRES if path not in LAB]
LINKS = {"asterisk-22", "asterisk-16", "freeswitch-1.11-json", "freeswitch-1.11-plain"}
HEARD_TWICE = sorted(
    {scenario_of(path) for path in TWENTY if "freeswitch" in str(path) and "originate" not in str(path)}
)
UNDETERMINED = {
    "simple": (),
    "busy": (),
    "hold_resume": (),
    "attended_refer": ("resumed lost", "resumed late", "swapped"),
    "queue_ringall": ("queued late", "swapped"),
    "queue_abandoned": ("queued late", "q850", "swapped"),
}
"""Of which conversations the checker is tried, and what their witnesses leave open."""
Steps = list[dict[str, Any]]


def expected_of(path: Path) -> dict[str, Any]:
    """What must come of a conversation."""
    text = path.with_name("expected.json").read_text(encoding="utf-8")
    expected: dict[str, Any] = json.loads(text)
    return expected


def said(path: Path) -> Iterator[Steps]:
    """What our tracker says: from the bytes; and, if asked on, with a resync that finds nothing."""
    side, expected = story.side_of(path), expected_of(path)
    tracker = side.tracker()
    tracker.set_directory(directory(expected))
    if path.parent.parent.name.endswith("-lab"):
        expect_ours(tracker, path)
    events = story.play(path, tracker, shown=lambda event: hidden(event, expected))
    yield published(events)
    end = zero_of(path).timestamp() + 30
    yield published(events + list(side.left_alone(tracker, end, end).batch.events))


@pytest.mark.parametrize("path", WIRES, ids=name_of)
def test_our_tracker_says_what_the_witness_saw(path: Path) -> None:
    expected, played = expected_of(path), said(path)
    found = differences(expected, next(played))
    assert not found, "\n".join(found)
    if any(call.get("open") for call in expected["calls"]):
        found = differences(expected, next(played), resynced=True)
        assert not found, "after the resync: " + "\n".join(found)


@pytest.mark.parametrize("scenario", HEARD_TWICE)
def test_both_encodings_of_one_call_say_the_same(scenario: str) -> None:
    json_said, plain_said = (next(said(wire(f"freeswitch-1.11-{form}", scenario))) for form in ("json", "plain"))
    assert json_said == plain_said


# --- the corpus itself ---


def every(steps: Any) -> Iterator[dict[str, Any]]:
    """Each expected event, however deep it stands."""
    if isinstance(steps, list):
        for step in steps:
            yield from every(step)
    elif "any_order" in steps:
        yield from every(steps["any_order"])
    else:
        yield steps


def told(expected: dict[str, Any]) -> list[dict[str, Any]]:
    """All events of all calls, those of the resync and those that were not heard too."""
    return [
        event
        for call in expected["calls"]
        for part in ("events", "unheard", "after_resync")
        for event in every(call.get(part, []))
    ]


def test_twenty_conversations_of_each_link_each_whole() -> None:
    assert len(TWENTY) == 80
    assert {path.parent.parent.name for path in TWENTY} == LINKS
    for path in WIRES:
        files = {file.name for file in path.parent.iterdir()}
        assert files - {"snapshots.jsonl.gz"} == {path.name, "story.md", "expected.json"}


@pytest.mark.parametrize("path", WIRES, ids=name_of)
def test_every_expectation_cites_its_line_of_evidence(path: Path) -> None:
    expected, story = expected_of(path), story_of(path)
    assert (expected["pbx"], expected["scenario"]) == (path.parent.parent.name, scenario_of(path))
    assert expected["what"] in story
    assert datetime.fromisoformat(expected["zero"]) == zero_of(path)
    for event in told(expected):
        assert event["evidence"], event
        assert all(quote in story for quote in event["evidence"]), event
        if "at" in event:
            seconds = [number for quote in event["evidence"] for number in re.findall(r"(?:^|from )(\d+\.\d\d)", quote)]
            assert f"{event['at']:.2f}" in seconds, event
        assert not event.get("optional") or event["why"]
    whole = b"".join(row.data for row in rows(path))
    for person in expected["people"].values():
        assert person["evidence"] in story
    for seen in [*expected["people"].values(), *told(expected)]:
        assert seen.get("wire", "").encode() in whole


@pytest.mark.parametrize("path", WIRES, ids=name_of)
def test_whatever_the_witness_saw_is_expected(path: Path) -> None:
    """Who was joined is connected, whose phone rang is offered, whose phone stopped ringing is unoffered."""
    expected, story = expected_of(path), story_of(path)
    cited: dict[str, set[str]] = {}
    for event in told(expected):
        cited.setdefault(event["type"], set()).update(event["evidence"])
    for never in expected["never"]:
        cited.setdefault(never["type"], set()).update(never.get("evidence", ()))
    joined = re.search(r"- Joined by [^:]*: (.*)\.\n", story)
    order = re.search(r"- Order, [^:]*: (.*)\.\n", story)
    assert joined and order
    if "from" in joined[1]:
        assert set(joined[1].split("; ")) <= cited["call.connected"]
    for item in order[1].split("; "):
        if re.search(r"\brings?$", item):
            assert item in cited["call.offered"]
        elif re.search(r"\b(answers [4-6]\d\d|stops? ringing)$", item):
            assert item in cited["call.unoffered"]


def shape(path: Path) -> dict[str, Any]:
    """What is expected of a conversation, without what only its recording or its link determines."""
    expected = expected_of(path)
    for event in told(expected):
        for key in ("at", "evidence", "late_ms", "why", "wire"):
            event.pop(key, None)
        if event["type"] == "call.queued":
            del event["data"]["position"]
        for key in ("wait_ms", "talk_ms"):
            event["data"].pop(key, None)
    people = {name: {k: v for k, v in who.items() if k != "evidence"} for name, who in expected["people"].items()}
    return {"calls": expected["calls"], "people": people}


@pytest.mark.parametrize("scenario", sorted({scenario_of(path) for path in TWENTY}))
def test_the_same_story_is_the_same_on_every_link(scenario: str) -> None:
    """But for a phone's 603, of which Asterisk tells the caller 480, FreeSWITCH 603."""
    shapes = {path.parent.parent.name: shape(path) for path in TWENTY if scenario_of(path) == scenario}
    first = shapes[min(shapes)]
    alike = {link for link, one in shapes.items() if one == first}
    assert alike == {link for link in shapes if scenario != "rejected" or link.startswith("asterisk")}


# --- the checker itself ---


def doctored(events: Steps) -> Iterator[tuple[str, Steps]]:
    """The same events with one fault each: one lost, twice, late, too early in the order, or with a wrong field."""
    for place, event in enumerate(events):
        name = f"{place} {event['type']}"
        yield f"{name} lost", renumbered(events[:place] + events[place + 1 :])
        yield f"{name} twice", renumbered(events[: place + 1] + events[place:])
        late = datetime.fromisoformat(event["at"]) + timedelta(seconds=0.7)
        yield f"{name} late", [*events[:place], {**event, "at": late.isoformat()}, *events[place + 1 :]]
        if following := events[place + 1 : place + 2]:
            yield f"{name} swapped", renumbered([*events[:place], *following, event, *events[place + 2 :]])
        yield f"{name} numbered wrongly", [*events[:place], {**event, "seq": 99}, *events[place + 1 :]]
        for key, value in event["data"].items():
            wrong = 123456 if isinstance(value, int) else "wrong" if isinstance(value, str | None) else None
            for other in (wrong, spoilt(value)):
                fault = {**event, "data": {**event["data"], key: other}}
                yield f"{name} {key} {other}", [*events[:place], fault, *events[place + 1 :]]
    yield "a call more", [*events, *({**event, "call": "another"} for event in events)]
    yield "nothing at all", []


def spoilt(value: Any) -> Any:
    """A party with a wrong number and extension; the two of a conversation the wrong way round."""
    if isinstance(value, list):
        return value[::-1]
    if isinstance(value, dict):
        return {**value, "extension": "999", "number": "+15559999999"}
    return "another"


def renumbered(events: Steps) -> Steps:
    count: dict[str, int] = {}
    for event in (events := copy.deepcopy(events)):
        count[event["call"]] = event["seq"] = count.get(event["call"], 0) + 1
    return events


@pytest.mark.parametrize("scenario", UNDETERMINED)
def test_the_checker_sees_every_fault(scenario: str) -> None:
    path = wire("asterisk-22", scenario)
    expected, events = expected_of(path), next(said(path))
    assert not differences(expected, events)
    unseen = [name for name, spoiled in doctored(events) if not differences(expected, spoiled)]
    assert [name for name in unseen if not any(words in name for words in UNDETERMINED[scenario])] == []


def test_anybody_can_run_the_checker() -> None:
    path = wire("asterisk-22", "simple")
    events = next(said(path))
    raw = [{**event, "seq": str(event["seq"]), "data": json.dumps(event["data"])} for event in events]
    link = {"v": "1", "type": "pbx.connected", "pbx": "lab", "at": events[0]["at"], "data": "{}"}
    for told_of, code, says in ((events, 0, ""), (events[:-1], 1, "it must end once"), ([link, *raw], 0, "")):
        done = checked(str(path.parent), "".join(json.dumps(event) + "\n" for event in told_of))
        assert (done.returncode, done.stderr) == (code, "")
        assert says in done.stdout


@pytest.mark.parametrize("line", ["what", "[]", '{"type": "call.started"}', '{"type": "call.started", "data": "x"}'])
def test_what_cannot_be_compared_is_no_difference_and_no_traceback(line: str) -> None:
    folder = str(wire("asterisk-22", "simple").parent)
    for arguments, given, says in (([folder], line, "line 1"), ([folder + "x"], "", "No such file"), ([], "", "usage")):
        done = checked(*arguments, given)
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def checked(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The checker run alone; the last argument is what it is given to read."""
    command = [sys.executable, "-I", corpus.__file__, *arguments[:-1]]
    return subprocess.run(command, input=arguments[-1], capture_output=True, text=True, check=False)
