"""Random calls on a model of a PBX, their events interleaved as they may be: the tracker hears what the model knows.

`RINGBRIDGE_LONG=1` tries 10,000 examples of each PBX instead of 500; `RINGBRIDGE_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
import story
from gaps import cuts, faults, listen
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from invariants import Watch
from worlds import DID, Asterisk, Flow, FreeSwitch, Leg, World

from bridge.domain.calls import CallEventType

LONG = bool(os.environ.get("RINGBRIDGE_LONG"))
SEED = int(os.environ.get("RINGBRIDGE_SEED") or (random.randrange(10**9) if LONG else 1))
KINDS: dict[str, type[World]] = {"asterisk": Asterisk, "freeswitch": FreeSwitch}
PHONES = ("101", "102", "103", "104")


class Play:
    """Runs flows side by side, as a tape of decisions says, and looks on after every event."""

    def __init__(self, kind: str, tape: bytes) -> None:
        self.tape = iter(tape)
        self.world = KINDS[kind](self.pick)
        self.tracker = story.side(kind).tracker()
        self.watch = Watch(self.tracker)
        self.flows: list[Flow] = []
        self.over = False
        self.heard: list[tuple[float, Any]] = []

    def pick(self, below: int) -> int:
        decided = next(self.tape, None)
        self.over = self.over or decided is None
        return (decided or 0) % below

    def run(self) -> None:
        while not self.over:
            if not self.flows or self.pick(12) == 0:
                self.begin()
            elif self.flows:
                self.advance(self.flows[self.pick(len(self.flows))])
        for leg in self.world.legs:
            self.flows.append(self.world.hangs_up(leg))
        while self.flows:
            self.advance(self.flows[0])
        for leg in self.world.legs:
            assert leg.gone, leg

    def begin(self) -> None:
        world = self.world
        talks = [leg for leg in world.legs if leg.mate and not (leg.busy or leg.gone or leg.mate.busy)]
        agents = [leg for leg in talks if leg.outgoing and leg.mate and leg.mate.trunk]
        others = [phone for phone in PHONES if agents and phone != agents[0].phone]
        alive = [leg for leg in world.legs if not (leg.gone or leg.leaving)]
        match self.pick(8):
            case 0 if alive:
                self.flows.append(world.hangs_up(alive[self.pick(len(alive))]))
            case 1 | 2 if agents:
                self.flows.append(world.blind(agents[0], others[self.pick(3)]))
            case 3 | 4 | 5 if agents:
                self.flows.append(world.attended(agents[0], others[self.pick(3)]))
            case _ if len(alive) > 9:
                self.flows.append(world.hangs_up(alive[self.pick(len(alive))]))
            case 6:
                self.flows.append(world.calls_in(list(PHONES[: 2 + self.pick(3)]), True))
            case _:
                self.flows.append(world.calls_in([PHONES[self.pick(4)]], False))

    def advance(self, flow: Flow) -> None:
        event = next(flow, None)
        if event is None:
            self.flows.remove(flow)
            return
        self.heard.append((self.world.now, event))
        self.watch.saw(self.tracker.feed([event], self.world.now).events)
        self.compare(event)

    def compare(self, event: Any) -> None:
        book = self.tracker.book
        heard = {frozenset(leg.uid for leg in book.reach(channel) if leg.real) for channel in book.channels.values()}
        assert {group for group in heard if len(group) > 1} == self.world.hears(), event
        for group in self.world.hears():
            [call] = {book.side(book.channels[uid]) for uid in group}
            assert book.calls[call].talk_since is not None, event
        alive = {leg.uid for leg in self.world.legs if not leg.gone}
        assert set(book.channels) <= alive, event

    def check_story(self) -> None:
        """Each caller from outside had one call from beginning to end, and nobody's phone was said to ring in vain."""
        said = self.watch.said
        ends = {event.call: event for event in said if event.type in (CallEventType.ENDED, CallEventType.MERGED)}
        callers: list[Leg] = [leg for leg in self.world.legs if leg.trunk]
        for leg in callers:
            end = ends[f"lab-{leg.uid}"]
            assert end.type is CallEventType.ENDED, end
            assert end.data["from"]["number"] == leg.phone
            assert (end.data["direction"], end.data["to"]["number"]) == ("inbound", DID)
        started = [event for event in said if event.type is CallEventType.STARTED and event.data["client"]]
        assert {event.call for event in started} == {f"lab-{leg.uid}" for leg in callers}
        assert sum(event.type is CallEventType.OFFERED for event in said) == self.world.rang


@pytest.mark.parametrize("kind", KINDS)
def test_the_tracker_hears_who_hears_whom(kind: str) -> None:
    print(f"RINGBRIDGE_SEED={SEED}")

    @seed(SEED)
    @settings(
        max_examples=10_000 if LONG else 500,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(min_size=80, max_size=300))
    def examples(tape: bytes) -> None:
        play = Play(kind, tape)
        play.run()
        play.watch.over()
        play.check_story()

    examples()


@pytest.mark.parametrize("kind", KINDS)
def test_no_gap_in_random_calls_leaves_a_wrong_picture(kind: str) -> None:
    dice = random.Random(SEED)
    for number in range(1000 if LONG else 50):
        play = Play(kind, dice.randbytes(dice.randint(50, 200)))
        play.run()
        recording = listen(story.side(kind), play.heard)
        tried = list(cuts(recording, dice))
        for cut in dice.sample(tried, min(5, len(tried))):
            found = faults(recording, cut, same_process=dice.random() < 0.5)
            assert not found, f"RINGBRIDGE_SEED={SEED}, play {number}, {cut}: {found}"


@pytest.mark.parametrize(
    ("kind", "event"),
    [("asterisk", "BridgeLeave"), ("asterisk", "BridgeEnter"), ("freeswitch", "CHANNEL_BRIDGE")],
)
def test_a_tracker_that_is_deaf_to_an_event_is_seen(kind: str, event: str) -> None:
    dice = random.Random(1)
    for _ in range(20):
        play = Play(kind, dice.randbytes(300))
        del play.tracker._table[event]
        try:
            play.run()
            play.watch.over()
            play.check_story()
        except (AssertionError, ValueError, KeyError):
            return
    pytest.fail("nothing was noticed")
