"""What a resync says pops on nobody's screen a second time: the PBX's own answers, and the builder of pops."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_gaps import Gap, Recording, record, some, survive
from recorded import name_of
from test_real_gaps import EVERY, SEED

from bridge.domain.calls import CallEvent, Directory
from bridge.services.pop_building import CallStory, PopBook

PHONES = [str(extension) for extension in range(101, 111)]
AGENTS = Directory(agents={f"{kind}/{phone}": phone for kind in ("PJSIP", "user") for phone in PHONES})
"""An agent for every phone, called as it is."""


class Everybody:
    """All are signed in, and nothing more is known."""

    def signed_in(self, agent: str) -> bool:
        return True

    def content(self, story: CallStory, agent: str) -> dict[str, Any]:
        return {}


def pops(events: Iterable[CallEvent]) -> Counter[str]:
    """How often something came up on each agent's screen, as a new pop or as one that is back."""
    book, stories = PopBook(Everybody()), {}
    shown: Counter[str] = Counter()
    for event in events:
        assert event.call is not None
        story = stories.setdefault(event.call, CallStory(call=event.call))
        for one in book.apply(story, event.type, event.at, event.data):
            shown[one.agent] += one.event == "pop"
    assert all(pop["state"] == "ended" for pop in book.pops.values()), "a pop is left for ever"
    return shown


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_nothing_pops_twice(path: Path) -> None:
    recording = record(path, AGENTS)
    uncut = pops(recording.said)
    for gap in some(recording, random.Random(f"{SEED} {name_of(path)}")):
        if _just_born(recording, gap):
            # A phone that rings before its caller is listed pops for a call of its own, until they meet: a known limit.
            continue
        found, said = survive(recording, gap)
        assert not found
        for agent, count in pops(said).items():
            assert count <= max(1, uncut[agent]), f"{gap}: {count} pops for {agent}, not {uncut[agent]}"


def _just_born(recording: Recording, gap: Gap) -> bool:
    """Whether FreeSWITCH made a channel so shortly before it was asked that it need not list it."""
    asked = recording.shots[gap.shot][0]
    born = (one.at for one in recording.heard if one.event.get("Event-Name") == "CHANNEL_CREATE")
    return any(asked - 0.8 < at < asked for at in born)


def test_a_second_pop_would_be_seen() -> None:
    """The same call under another id, as of a tracker that does not recognise it, is one more pop."""
    if not EVERY:
        pytest.skip("no recording has snapshots")
    recording = next(found for path in EVERY if pops((found := record(path, AGENTS)).said))
    again = [replace(event, call=f"{event.call}-2") for event in recording.said]
    assert pops([*recording.said, *again]) == pops(recording.said) + pops(again)
