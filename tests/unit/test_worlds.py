"""Random calls on a model of a PBX, their events interleaved as they may be: the tracker hears what the model knows.

`RINGBRIDGE_LONG=1` tries 10,000 examples of each PBX instead of 500; `RINGBRIDGE_SEED` repeats a run.

Each example is a tape of bytes, each byte a decision: which flow goes on, who does what. Hypothesis shrinks a tape to
few and small bytes, and the failure's note says in words what the people did. A RuleBasedStateMachine would shrink by
leaving out whole steps, but its rules would have to be the single events of flows that are half done (a phone that
rings while another call is parked): the same choices as here. And the gap test below plays the same tapes.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest
import story
from gaps import cuts, faults, listen
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from invariants import Watch
from worlds import DID, Asterisk, Flow, FreeSwitch, Leg, World

from bridge.domain.calls import CallEventType
from bridge.pbx.calls.model import Line

LONG = bool(os.environ.get("RINGBRIDGE_LONG"))
SEED = int(os.environ.get("RINGBRIDGE_SEED") or (random.randrange(10**9) if LONG else 1))
KINDS: dict[str, type[World]] = {"asterisk": Asterisk, "freeswitch": FreeSwitch}
PHONES = ("101", "102", "103", "104")


class Play:
    """Runs flows side by side, as a tape of decisions says, and looks on after every event."""

    def __init__(self, kind: str, tape: bytes, *, dials: bool = True) -> None:
        self.tape = iter(tape)
        self.tracker = story.side(kind).tracker()
        self.world = KINDS[kind](self.pick, self.tracker.expect)
        self.watch = Watch(self.tracker)
        self.flows: list[Flow] = []
        self.dials = dials
        self.over = False
        self.heard: list[tuple[float, Any]] = []
        self.steps: list[str] = []
        """What people did, in words, and how many events had been told before."""

    def pick(self, below: int) -> int:
        decided = next(self.tape, None)
        self.over = self.over or decided is None
        return (decided or 0) % below

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            error.add_note("\n".join(self.steps))
            raise

    def _run(self) -> None:
        while not self.over:
            if not self.flows or self.pick(12) == 0:
                self.begin()
            elif self.flows:
                self.advance(self.flows[self.pick(len(self.flows))])
        for leg in self.world.legs:
            self.flows.append(self.world.hangs_up(leg))
        while self.flows:
            self.advance(self.flows[0])
        for leg in (*self.world.legs, *self.world.halves):
            assert leg.gone, leg

    def begin(self) -> None:
        """Somebody does something."""
        world = self.world
        alive = [leg for leg in world.legs if not (leg.gone or leg.leaving)]
        talkers = world.talkers()
        agents = [leg for leg in talkers if leg.outgoing and leg.mate and leg.mate.trunk]
        waiting = [leg for leg in alive if leg.parked and not leg.busy]
        holders = [leg for leg in alive if leg.up and leg.mate and not (leg.trunk or leg.busy)]
        choice = self.pick(20)
        if len(alive) > 9 and choice > 8:
            choice = 0
        match choice:
            case 0 if alive:
                self.do("hangs_up", alive[self.pick(len(alive))])
            case 1 | 2 if agents:
                self.do("blind", agents[0], self.another(agents[0]))
            case 3 | 4 if agents:
                self.do("attended", agents[0], self.another(agents[0]))
            case 5 | 6 if holders:
                self.do("holds_on", holders[self.pick(len(holders))])
            case 7 if agents:
                self.do("parks", agents[self.pick(len(agents))])
            case 8 if waiting:
                self.do("fetches", waiting[0], PHONES[self.pick(4)])
            case 7 | 8 if talkers:
                self.do("rename", talkers[self.pick(len(talkers))])
            case 9:
                self.do("meets", world.caller() if self.pick(2) else world.leg(PHONES[self.pick(4)]))
            case 10 | 11 if self.dials:
                self.do("dials_out", PHONES[self.pick(4)], bool(self.pick(2)), bool(self.pick(2)))
            case 12 | 13:
                self.do("calls_by_wire", PHONES[self.pick(4)], bool(self.pick(2)))
            case 14:
                self.do("calls_in", list(PHONES[: 2 + self.pick(3)]), True, [])
            case 15:
                # One agent, two devices.
                self.do("calls_in", [PHONES[0], PHONES[0], PHONES[1]], bool(self.pick(2)), [])
            case 16:
                self.do("calls_in", [PHONES[self.pick(4)]], False, ["+15556660001" if self.pick(2) else "104"])
            case _:
                self.do("calls_in", [PHONES[self.pick(4)]], False, [])

    def another(self, agent: Leg) -> str:
        others = [phone for phone in PHONES if phone != agent.phone]
        return others[self.pick(len(others))]

    def do(self, what: str, *given: Any) -> None:
        told = ", ".join(one.name if isinstance(one, Leg) else repr(one) for one in given)
        self.steps.append(f"{len(self.heard)}: {what} {told}")
        self.flows.append(getattr(self.world, what)(*given))

    def advance(self, flow: Flow) -> None:
        event = next(flow, None)
        if event is None:
            self.flows.remove(flow)
            return
        self.heard.append((self.world.now, event))
        self.watch.saw(self.tracker.feed([event], self.world.now).events)
        self.compare(event)

    def compare(self, event: Any) -> None:
        book, world = self.tracker.book, self.world
        channels = book.channels.values()
        heard = {frozenset(leg.uid for leg in book.reach(channel) if leg.real) for channel in channels}
        assert {group for group in heard if len(group) > 1} == world.hears(), event
        for group in world.hears():
            [call] = {book.side(book.channels[uid]) for uid in group}
            assert book.calls[call].talk_since is not None, event
        assert {leg.uid for leg in channels if leg.offered and leg.state != Line.UP} == world.ringing(), event
        assert {leg.uid for leg in channels if leg.held} == world.held(), event
        assert {leg.uid for leg in channels if leg.parked} == world.parked(), event
        alive = {leg.uid for leg in (*world.legs, *world.halves) if not leg.gone}
        assert set(book.channels) <= alive, event

    def check_story(self) -> None:
        """Each caller from outside had one call from beginning to end, and nobody's phone was said to ring in vain."""
        world, said = self.world, self.watch.said
        kinds = Counter(event.type for event in said)
        ends = {event.call: event for event in said if event.type in (CallEventType.ENDED, CallEventType.MERGED)}
        callers: list[Leg] = [leg for leg in world.legs if leg.trunk and not leg.outgoing]
        for leg in callers:
            end = ends[f"lab-{leg.uid}"]
            if end.type is CallEventType.MERGED and leg.uid in world.met:
                continue
            assert end.type is CallEventType.ENDED, end
            assert end.data["from"]["number"] == leg.phone
            assert (end.data["direction"], end.data["to"]["number"]) == ("inbound", DID)
        for attempt in world.attempts:
            end = ends[f"lab-{attempt}"]
            assert end.type is CallEventType.ENDED, end
            assert (end.data["direction"], end.data["from"]["agent"]) == ("outbound", "anna")
        started = {event.call for event in said if event.type is CallEventType.STARTED and event.data["client"]}
        assert started == {f"lab-{uid}" for uid in (*(leg.uid for leg in callers), *world.attempts)}
        assert kinds[CallEventType.OFFERED] == world.rang
        assert (kinds[CallEventType.HELD], kinds[CallEventType.RESUMED]) == (world.holds, world.resumes)
        pickups = [event for event in said if event.data.get("kind") == "pickup"]
        assert len(pickups) == world.pickups


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
        play = Play(kind, dice.randbytes(dice.randint(50, 200)), dials=False)
        play.run()
        recording = listen(story.side(kind), play.heard)
        tried = list(cuts(recording, dice))
        for cut in dice.sample(tried, min(5, len(tried))):
            found = faults(recording, cut, same_process=dice.random() < 0.5)
            assert not found, f"RINGBRIDGE_SEED={SEED}, play {number}, {cut}: {found}"


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("asterisk", "BridgeLeave"),
        ("asterisk", "BridgeEnter"),
        ("asterisk", "Hold"),
        ("asterisk", "Pickup"),
        ("freeswitch", "CHANNEL_BRIDGE"),
        ("freeswitch", "CHANNEL_UNHOLD"),
    ],
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
