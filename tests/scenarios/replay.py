"""A recorded scenario through our tracker, as `rb:calls` would show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import corpus
import story
from recorded import story_of

from bridge.domain.calls import CallEvent, Directory
from bridge.pbx.ami.presentation import withhold


def directory(expected: dict[str, Any]) -> Directory:
    """The company's people and numbers, as that PBX calls them."""
    agents = {
        corpus.phone_device(expected["pbx"], ext): agent
        for ext, agent in expected["directory"]["agents"].items()
    }
    return Directory(agents=agents, clients=expected["directory"]["clients"])


def published(events: list[CallEvent]) -> list[dict[str, Any]]:
    """As they stand on `rb:calls`."""
    return [
        {"type": e.type.value, "call": e.call, "seq": e.seq, "at": e.at.isoformat(), "data": dict(e.data)}
        for e in events
    ]


def said(path: Path, expected: dict[str, Any]) -> list[dict[str, Any]]:
    """What our tracker says of those bytes, and of what the PBX answered to whether callers may be shown."""
    tracker = story.side_of(path).tracker()
    tracker.set_directory(directory(expected))
    expect_ours(tracker, path)
    return published(story.play(path, tracker, shown=lambda event: hidden(event, expected)))


def expect_ours(tracker: Any, path: Path) -> None:
    """Tell a tracker of the dial of ours that a recording is of, if any."""
    if "attempt " in story_of(path):
        tracker.expect(story.expected(path))


def hidden(event: Any, expected: dict[str, Any]) -> Any:
    """An Asterisk's birth of a restricted caller as a link hands it on; all else as it came."""
    restricted = expected.get("presentation", {}).get(event.get("Channel", ""), "").startswith("prohib")
    return withhold(event) if restricted and event.get("Event") == "Newchannel" else event
