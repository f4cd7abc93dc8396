"""What both kinds of PBX have in common: legs, who hears whom, and the stories that people make, step by step.

A flow is a generator that changes the model and yields the event that says so. Several flows run at once, and people
hang up at any instant in between. The order of events within a flow is that of the recordings in `traces/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bridge.domain.calls import Expected

Flow = Iterator[Any]
ZERO = 1_795_000_000.0
DID = "+15550001260"
ROOM = "800"


@dataclass(eq=False)
class Leg:
    """A channel. `busy` while a flow decides what becomes of it, `leaving` once its person has hung up."""

    uid: str
    name: str
    phone: str
    root: str
    trunk: bool = False
    outgoing: bool = False
    real: bool = True
    up: bool = False
    rings: bool = False
    held: bool = False
    parked: bool = False
    busy: bool = True
    leaving: bool = False
    gone: bool = False
    mate: Leg | None = None
    bridge: str = ""
    room: str = ""
    wire: Leg | None = None
    """The other half, where this is half of a wire."""
    near: Leg | None = None
    """The half of a wire that is in this leg's bridge, and leads to its mate."""
    attempt: str = ""
    side: str = ""
    """For our own dials, whose leg it is."""
    route: str = ""
    first: bool = False
    """FreeSWITCH: it is the A of its bridge."""


class World(ABC):
    """A PBX and the people around it. `pick(n)` decides: a number below n."""

    tells_pickups = True
    """A pickup has an event of its own; else it shows where the two meet."""

    def __init__(self, pick: Callable[[int], int], expect: Callable[[Expected], None]) -> None:
        """`expect` is told of each dial of ours before it leaves."""
        self.pick = pick
        self.expect = expect
        self.legs: list[Leg] = []
        self.halves: list[Leg] = []
        self.rang = self.holds = self.resumes = self.pickups = 0
        self.met: set[str] = set()
        """Callers from outside who were in a conference, where their calls may become one."""
        self.attempts: list[str] = []
        self.now = ZERO
        self._count = 0

    def number(self) -> int:
        self._count += 1
        return self._count

    # --- what is so now ---

    def hears(self) -> set[frozenset[str]]:
        """Groups of people who hear each other."""
        rooms: dict[str, set[Leg]] = {}
        for leg in (*self.legs, *self.halves):
            if leg.bridge and not (leg.gone or leg.parked):
                rooms.setdefault(leg.bridge, set()).add(leg)
        groups = list(rooms.values())
        for half in self.halves:
            # Two bridges that a wire joins are one.
            if half.gone or half.wire is None or half.wire.gone:
                continue
            joined = [group for group in groups if half in group or half.wire in group]
            if len(joined) > 1:
                groups = [group for group in groups if group not in joined] + [set().union(*joined)]
        people = (frozenset(leg.uid for leg in group if leg.real) for group in groups)
        return {group for group in people if len(group) > 1}

    def ringing(self) -> set[str]:
        """Legs of people whose phone rings."""
        return {leg.uid for leg in self.legs if leg.rings and not (leg.up or leg.gone)}

    def held(self) -> set[str]:
        """Legs whose person has put the other on hold."""
        return {leg.uid for leg in self.legs if leg.held and not leg.gone}

    def parked(self) -> set[str]:
        """Who waits in the parking lot."""
        return {leg.uid for leg in self.legs if leg.parked and not leg.gone}

    def talkers(self) -> list[Leg]:
        """Agents who talk with somebody by no wire, and may do something about it."""
        return [
            leg
            for leg in self.legs
            if leg.mate
            and leg.near is None
            and not (leg.trunk or leg.busy or leg.gone or leg.leaving or leg.mate.busy)
            and self.may_transfer(leg)
        ]

    def may_transfer(self, by: Leg) -> bool:
        """Whether it is known what the PBX says when this one transfers."""
        return True

    def may_replace(self, second: Leg) -> bool:
        """Whether it is known what the PBX says when this one's consultation becomes a transfer."""
        return True

    # --- flows ---

    def weave(self, *flows: Flow) -> Flow:
        """What several threads of a PBX say at once."""
        left = list(flows)
        while left:
            flow = left[self.pick(len(left))]
            event = next(flow, None)
            if event is None:
                left.remove(flow)
            else:
                yield event

    def caller(self) -> Leg:
        return self.leg(f"+1555300{self.number():04}", trunk=True)

    def calls_in(self, phones: list[str], queue: bool, then: list[str]) -> Flow:
        """Somebody outside calls the company; where nobody answers, the PBX sends them on to `then`."""
        caller = self.caller()
        yield from self.create(caller)
        yield from self.reach(caller, phones, queue, then)

    def calls_by_wire(self, phone: str, optimises: bool) -> Flow:
        """Somebody outside calls a queue whose member is reached over a wire."""
        caller = self.caller()
        yield from self.create(caller)
        yield from self.over_wire(caller, phone, optimises)

    def reach(self, caller: Leg, phones: list[str], queue: bool = False, then: list[str] | None = None) -> Flow:
        """Ring these phones; one answers, somebody else picks the call up, or nobody does either."""
        legs: list[Leg] = []
        if queue and not caller.leaving:
            yield from self.queue_in(caller)
        for phone in phones:
            if not caller.leaving:
                legs.append(self.leg(phone, caller=caller, trunk=phone.startswith("+")))
                yield from self.dial(caller, legs[-1])
        for leg in legs:
            if not (caller.leaving or leg.gone):
                self.rang += not any(other.phone == leg.phone and other.rings and not other.gone for other in legs)
                leg.rings = True
                yield from self.ring(caller, leg)
        if len(legs) == 1 and not queue and not legs[0].trunk and self.pick(6) == 5:
            took: list[Leg] = []
            yield from self.picks_up(caller, legs[0], took)
            if took:
                yield from self.settle(caller, took[0])
                return
        able = [leg for leg in legs if not (leg.leaving or leg.gone)]
        winner = able[self.pick(len(able))] if able and not caller.leaving and self.pick(4) else None
        if winner is not None:
            winner.up = True
            yield from self.answer(caller, winner)
        for leg in legs:
            if leg is not winner:
                why = "lost" if winner else "cancelled" if caller.leaving else "busy" if then else "unanswered"
                yield from self.end(leg, why)
        if queue:
            yield from self.queue_out(caller, winner)
        if winner is None and then and not caller.leaving:
            yield from self.reach(caller, then)
            return
        if winner is not None and not (caller.leaving or winner.leaving):
            yield from self.join(caller, winner)
        yield from self.settle(caller, *([winner] if winner else []))

    def picks_up(self, caller: Leg, rang: Leg, took: list[Leg]) -> Flow:
        """At another phone somebody dials the code that takes this call; who did is put into `took`."""
        picker = self.leg("105")
        yield from self.create(picker, f"*8{rang.phone}")
        yield from self.goes_up(picker)
        if caller.leaving or rang.leaving or picker.leaving:
            yield from self.settle(picker)
            return
        took.append(picker)
        self.pickups += self.tells_pickups
        yield from self.take(picker, caller, rang)
        if not (caller.leaving or picker.leaving):
            self.pickups += not self.tells_pickups
            yield from self.join(picker, caller)

    def settle(self, *legs: Leg) -> Flow:
        """The flow lets go of these legs; who hung up meanwhile, or has nobody, goes."""
        for leg in legs:
            leg.busy = False
        for leg in legs:
            if leg.leaving or not (leg.mate or leg.room or leg.parked):
                yield from self.leave(leg)

    def leave(self, leg: Leg) -> Flow:
        """A leg goes, and who was with it too."""
        mate = leg.mate
        if leg.gone or leg.busy or (mate is not None and mate.busy):
            return
        leg.busy = True
        if mate is not None:
            mate.busy = True
            yield from self.part(leg, mate)
        elif leg.room or leg.parked:
            yield from self.walk_out(leg)
        for one in (leg, mate):
            if one is not None:
                yield from self.end(one, "over")

    def hangs_up(self, leg: Leg) -> Flow:
        """A person hangs up; where a flow is at work, it will notice."""
        leg.leaving = True
        yield from self.wish(leg)
        if not leg.busy:
            yield from self.leave(leg)

    def holds_on(self, leg: Leg) -> Flow:
        """Who is connected puts the other on hold, or takes the hold back."""
        if leg.gone:
            return
        leg.held = not leg.held
        self.holds += leg.held
        self.resumes += not leg.held
        yield from self.hold(leg)

    def blind(self, by: Leg, phone: str) -> Flow:
        """Who is connected sends the other one elsewhere."""
        stays = by.mate
        if stays is None or by.busy or stays.busy:
            return
        by.busy = stays.busy = True
        yield from self.send_on(by, stays, phone)
        yield from self.reach(stays, [phone])

    def parks(self, by: Leg) -> Flow:
        """Who is connected parks the other."""
        stays = by.mate
        if stays is None or by.busy or stays.busy:
            return
        by.busy = stays.busy = True
        yield from self.park(by, stays)
        yield from self.settle(stays)

    def fetches(self, waits: Leg, phone: str) -> Flow:
        """Another agent dials the slot where somebody is parked."""
        if waits.busy or not waits.parked:
            return
        waits.busy = True
        fetcher = self.leg(phone)
        yield from self.create(fetcher, "701")
        yield from self.goes_up(fetcher)
        if not (waits.leaving or fetcher.leaving):
            yield from self.unpark(waits, fetcher)
        yield from self.settle(waits, fetcher)

    def meets(self, leg: Leg) -> Flow:
        """Somebody dials into the conference."""
        yield from self.create(leg, ROOM)
        yield from self.goes_up(leg)
        if not leg.leaving:
            if leg.trunk:
                self.met.add(leg.uid)
            leg.room = leg.bridge = ROOM
            yield from self.walk_in(leg)
        yield from self.settle(leg)

    def attended(self, by: Leg, phone: str) -> Flow:
        """Who is connected consults another on a second line, and joins the two or does not."""
        customer = by.mate
        if customer is None:
            return
        second = self.leg(by.phone)
        yield from self.create(second)
        yield from self.reach(second, [phone])
        third = second.mate
        ready = third is not None and not any(
            leg.leaving or leg.busy or leg.gone or leg.mate is None for leg in (by, customer, second, third)
        )
        if third is not None and ready and by.mate is customer and self.may_replace(second) and self.pick(3):
            for leg in (by, customer, second, third):
                leg.busy = True
            yield from self.replace(by, customer, second, third)
            yield from self.settle(customer, third)
        else:
            second.leaving = True
            yield from self.wish(second)
            yield from self.leave(second)

    def dials_out(self, phone: str, agent_first: bool, optimises: bool) -> Flow:
        """A dial of ours: agent and customer, one after the other."""
        count = self.number()
        attempt = f"{count:08x}-1111-4000-8000-000000000000"
        number = f"+1555400{count:04}"
        self.attempts.append(attempt)
        self.expect(
            Expected(
                attempt, agent="anna", agent_device=self.device(phone), number=number, callback="callback-1",
                client="acme", agent_first=agent_first,
            )
        )  # fmt: skip
        yield from self.originate(attempt, phone, number, agent_first, optimises)

    # --- what each PBX does in its own way ---

    @abstractmethod
    def device(self, phone: str) -> str: ...

    @abstractmethod
    def leg(self, phone: str, *, trunk: bool = False, caller: Leg | None = None) -> Leg: ...

    @abstractmethod
    def create(self, leg: Leg, dialled: str = "") -> Flow: ...

    @abstractmethod
    def goes_up(self, leg: Leg) -> Flow: ...

    @abstractmethod
    def dial(self, caller: Leg, leg: Leg) -> Flow: ...

    @abstractmethod
    def ring(self, caller: Leg, leg: Leg) -> Flow: ...

    @abstractmethod
    def answer(self, caller: Leg, leg: Leg) -> Flow: ...

    @abstractmethod
    def join(self, one: Leg, two: Leg) -> Flow: ...

    @abstractmethod
    def part(self, one: Leg, two: Leg) -> Flow: ...

    @abstractmethod
    def end(self, leg: Leg, why: str) -> Flow: ...

    @abstractmethod
    def wish(self, leg: Leg) -> Flow: ...

    @abstractmethod
    def queue_in(self, leg: Leg) -> Flow: ...

    @abstractmethod
    def queue_out(self, leg: Leg, winner: Leg | None) -> Flow: ...

    @abstractmethod
    def over_wire(self, caller: Leg, phone: str, optimises: bool) -> Flow: ...

    @abstractmethod
    def hold(self, leg: Leg) -> Flow: ...

    @abstractmethod
    def take(self, picker: Leg, caller: Leg, rang: Leg) -> Flow: ...

    @abstractmethod
    def send_on(self, by: Leg, stays: Leg, phone: str) -> Flow: ...

    @abstractmethod
    def park(self, by: Leg, stays: Leg) -> Flow: ...

    @abstractmethod
    def unpark(self, waits: Leg, fetcher: Leg) -> Flow: ...

    @abstractmethod
    def walk_in(self, leg: Leg) -> Flow: ...

    @abstractmethod
    def walk_out(self, leg: Leg) -> Flow: ...

    @abstractmethod
    def replace(self, by: Leg, customer: Leg, second: Leg, third: Leg) -> Flow: ...

    @abstractmethod
    def rename(self, leg: Leg) -> Flow: ...

    @abstractmethod
    def originate(self, attempt: str, phone: str, number: str, agent_first: bool, optimises: bool) -> Flow: ...
