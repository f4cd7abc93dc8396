"""Small models of a PBX: legs, who hears whom, and the events that such a PBX sends, step by step.

A flow is a generator that changes the model and yields the event that says so. Several flows run at once, and people
hang up at any instant in between. The order of events within a flow is that of the recordings in `traces/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bridge.pbx.ami.codec import Message

Flow = Iterator[Any]
ZERO = 1_795_000_000.0
DID = "+15550001260"


@dataclass(eq=False)
class Leg:
    """A channel. `busy` while a flow decides what becomes of it, `leaving` once its person has hung up."""

    uid: str
    name: str
    phone: str
    root: str
    trunk: bool = False
    outgoing: bool = False
    up: bool = False
    busy: bool = True
    leaving: bool = False
    gone: bool = False
    mate: Leg | None = None
    bridge: str = ""


class World(ABC):
    """What both kinds of PBX have in common. `pick(n)` decides: a number below n."""

    def __init__(self, pick: Callable[[int], int]) -> None:
        self.pick = pick
        self.legs: list[Leg] = []
        self.rang = 0
        self.now = ZERO
        self._count = 0

    def number(self) -> int:
        self._count += 1
        return self._count

    def hears(self) -> set[frozenset[str]]:
        """Groups of people who hear each other."""
        rooms: dict[str, set[str]] = {}
        for leg in self.legs:
            if leg.bridge and not leg.gone:
                rooms.setdefault(leg.bridge, set()).add(leg.uid)
        return {frozenset(room) for room in rooms.values() if len(room) > 1}

    # --- flows ---

    def calls_in(self, phones: list[str], queue: bool) -> Flow:
        """Somebody outside calls the company."""
        number = self.number()
        caller = self.leg(f"+1555300{number:04}", trunk=True)
        yield from self.create(caller)
        yield from self.reach(caller, phones, queue)

    def reach(self, caller: Leg, phones: list[str], queue: bool = False) -> Flow:
        """Ring these phones; one answers, or none does."""
        legs: list[Leg] = []
        if queue and not caller.leaving:
            yield from self.queue_in(caller)
        for phone in phones:
            if not caller.leaving:
                legs.append(self.leg(phone, caller=caller))
                yield from self.dial(caller, legs[-1])
        for leg in legs:
            if not (caller.leaving or leg.gone):
                self.rang += 1
                yield from self.ring(caller, leg)
        able = [leg for leg in legs if not (leg.leaving or leg.gone)]
        winner = able[self.pick(len(able))] if able and not caller.leaving and self.pick(4) else None
        if winner is not None:
            winner.up = caller.up = True
            yield from self.answer(caller, winner)
        for leg in legs:
            if leg is not winner:
                yield from self.end(leg, "lost" if winner else "cancelled" if caller.leaving else "unanswered")
        if queue:
            yield from self.queue_out(caller, winner)
        if winner is not None and not (caller.leaving or winner.leaving):
            yield from self.join(caller, winner)
        yield from self.settle(caller, *([winner] if winner else []))

    def settle(self, *legs: Leg) -> Flow:
        """The flow lets go of these legs; who hung up meanwhile, or has nobody, goes."""
        for leg in legs:
            leg.busy = False
        for leg in legs:
            if leg.leaving or leg.mate is None:
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
        for one in (leg, mate):
            if one is not None:
                yield from self.end(one, "over")

    def hangs_up(self, leg: Leg) -> Flow:
        """A person hangs up; where a flow is at work, it will notice."""
        leg.leaving = True
        yield from self.wish(leg)
        if not leg.busy:
            yield from self.leave(leg)

    def blind(self, by: Leg, phone: str) -> Flow:
        """Who is connected sends the other one elsewhere."""
        stays = by.mate
        if stays is None or by.busy or stays.busy:
            return
        by.busy = stays.busy = True
        yield from self.send_on(by, stays, phone)
        yield from self.reach(stays, [phone])

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
        if third is not None and ready and by.mate is customer and self.pick(3):
            for leg in (by, customer, second, third):
                leg.busy = True
            yield from self.replace(by, customer, second, third)
            yield from self.settle(customer, third)
        else:
            second.leaving = True
            yield from self.wish(second)
            yield from self.leave(second)

    # --- what each PBX does in its own way ---

    @abstractmethod
    def leg(self, phone: str, *, trunk: bool = False, caller: Leg | None = None) -> Leg: ...

    @abstractmethod
    def create(self, leg: Leg) -> Flow: ...

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
    def send_on(self, by: Leg, stays: Leg, phone: str) -> Flow: ...

    @abstractmethod
    def replace(self, by: Leg, customer: Leg, second: Leg, third: Leg) -> Flow: ...


class Asterisk(World):
    """chan_pjsip, app_dial, app_queue and bridges."""

    def leg(self, phone: str, *, trunk: bool = False, caller: Leg | None = None) -> Leg:
        number = self.number()
        uid = f"world-{int(ZERO)}.{number}"
        name = f"PJSIP/{'trunk' if trunk else phone}-{number:08x}"
        leg = Leg(uid, name, phone, caller.root if caller else uid, trunk, caller is not None)
        self.legs.append(leg)
        return leg

    def _say(self, event: str, leg: Leg | None = None, **more: str) -> Message:
        self.now += 0.01
        shown: dict[str, str] = {"Event": event, "Timestamp": f"{self.now:.6f}"}
        if leg is not None:
            shown |= {"Channel": leg.name, "Uniqueid": leg.uid, "Linkedid": leg.root, "CallerIDNum": leg.phone}
        return Message({**shown, **more}.items())

    def create(self, leg: Leg) -> Flow:
        exten = DID if leg.trunk else "102"
        yield self._say("Newchannel", leg, ChannelState="4", Exten=exten)

    def _dest(self, leg: Leg) -> dict[str, str]:
        return {"DestChannel": leg.name, "DestUniqueid": leg.uid, "DestLinkedid": leg.root}

    def dial(self, caller: Leg, leg: Leg) -> Flow:
        yield self._say("Newchannel", leg, ChannelState="0", Exten="")
        yield self._say("DialBegin", caller, **self._dest(leg), DialString=leg.phone)

    def ring(self, caller: Leg, leg: Leg) -> Flow:
        yield self._say("Newstate", leg, ChannelState="5")
        if not leg.gone:
            yield self._say("DialState", caller, **self._dest(leg), DialStatus="RINGING")

    def answer(self, caller: Leg, leg: Leg) -> Flow:
        yield self._say("Newstate", leg, ChannelState="6")
        yield self._say("DialEnd", caller, **self._dest(leg), DialStatus="ANSWER")
        yield self._say("Newstate", caller, ChannelState="6")

    def _enter(self, leg: Leg, bridge: str) -> Message:
        leg.bridge = bridge
        return self._say("BridgeEnter", leg, BridgeUniqueid=bridge, BridgeType="basic")

    def _out(self, leg: Leg) -> Message:
        bridge, leg.bridge, leg.mate = leg.bridge, "", None
        return self._say("BridgeLeave", leg, BridgeUniqueid=bridge, BridgeType="basic")

    def join(self, one: Leg, two: Leg) -> Flow:
        one.mate, two.mate = two, one
        bridge = f"bridge-{self.number()}"
        yield self._enter(two, bridge)
        yield self._enter(one, bridge)

    def part(self, one: Leg, two: Leg) -> Flow:
        yield self._out(one)
        yield self._out(two)

    def end(self, leg: Leg, why: str) -> Flow:
        if leg.gone:
            return
        leg.gone = True
        cause = {"lost": "26", "unanswered": "19"}.get(why, "16")
        yield self._say("Hangup", leg, Cause=cause)

    def wish(self, leg: Leg) -> Flow:
        if not leg.gone:
            yield self._say("HangupRequest", leg)

    def queue_in(self, leg: Leg) -> Flow:
        leg.up = True
        yield self._say("Newstate", leg, ChannelState="6")
        yield self._say("QueueCallerJoin", leg, Queue="support", Position="1")

    def queue_out(self, leg: Leg, winner: Leg | None) -> Flow:
        if leg.leaving and winner is None:
            yield self._say("QueueCallerAbandon", leg, Queue="support")
        yield self._say("QueueCallerLeave", leg, Queue="support")

    def send_on(self, by: Leg, stays: Leg, phone: str) -> Flow:
        yield self._say("BlindTransfer", TransfererUniqueid=by.uid, Extension=phone, Result="Success")
        yield self._out(stays)
        yield self._out(by)
        yield from self.end(by, "over")

    def replace(self, by: Leg, customer: Leg, second: Leg, third: Leg) -> Flow:
        yield self._out(customer)
        bridge = third.bridge
        yield self._out(second)
        customer.mate, third.mate, by.mate = third, customer, None
        third.root = customer.root
        yield self._enter(customer, bridge)
        ids = {"OrigTransfererUniqueid": by.uid, "SecondTransfererUniqueid": second.uid}
        yield self._say("AttendedTransfer", Result="Success", **ids)
        yield self._out(by)
        yield from self.end(by, "over")
        yield from self.end(second, "over")


class FreeSwitch(World):
    """mod_sofia, bridge and mod_callcenter."""

    def leg(self, phone: str, *, trunk: bool = False, caller: Leg | None = None) -> Leg:
        uid = f"{self.number():08x}-0000-4000-8000-000000000000"
        profile = "external" if trunk else "internal"
        leg = Leg(uid, f"sofia/{profile}/{phone}@pbx", phone, caller.uid if caller else uid, trunk, caller is not None)
        self.legs.append(leg)
        return leg

    def _say(self, event: str, leg: Leg, **more: str) -> dict[str, str]:
        self.now += 0.02
        shown = {
            "Event-Name": event,
            "Event-Date-Timestamp": str(round(self.now * 1e6)),
            "Unique-ID": leg.uid,
            "Channel-Name": leg.name,
            "Call-Direction": "outbound" if leg.outgoing else "inbound",
            "Caller-Caller-ID-Number": leg.phone,
            "Caller-Destination-Number": DID if leg.trunk else leg.phone if leg.outgoing else "102",
            "variable_sofia_profile_name": leg.name.split("/")[1],
        }
        if leg.outgoing:
            shown |= {"variable_dialed_user": leg.phone, "variable_originating_leg_uuid": leg.root}
        elif not leg.trunk:
            shown["variable_user_name"] = leg.phone
        return {**shown, **{name.replace("_", "-"): value for name, value in more.items()}}

    def create(self, leg: Leg) -> Flow:
        yield self._say("CHANNEL_CREATE", leg)

    def dial(self, caller: Leg, leg: Leg) -> Flow:
        yield self._say("CHANNEL_CREATE", leg, Other_Type="originator", Other_Leg_Unique_ID=caller.uid)

    def ring(self, caller: Leg, leg: Leg) -> Flow:
        yield self._say("CHANNEL_PROGRESS", leg)
        if not caller.up:
            yield self._say("CHANNEL_PROGRESS_MEDIA", caller)

    def answer(self, caller: Leg, leg: Leg) -> Flow:
        yield self._say("CHANNEL_ANSWER", leg)
        yield self._say("CHANNEL_ANSWER", caller)

    def _pair(self, event: str, one: Leg, two: Leg) -> dict[str, str]:
        return self._say(event, one, Bridge_A_Unique_ID=one.uid, Bridge_B_Unique_ID=two.uid)

    def join(self, one: Leg, two: Leg) -> Flow:
        one.mate, two.mate = two, one
        one.bridge = two.bridge = f"bridge-{self.number()}"
        yield self._pair("CHANNEL_BRIDGE", one, two)

    def part(self, one: Leg, two: Leg) -> Flow:
        caller, called = (two, one) if one.outgoing else (one, two)
        yield from self.end(called, "over")
        caller.bridge, caller.mate = "", None
        yield self._pair("CHANNEL_UNBRIDGE", caller, called)

    def _hung_up(self, leg: Leg, cause: str, **variables: str) -> dict[str, str]:
        leg.gone, leg.bridge, leg.mate = True, "", None
        left = "recv_bye" if leg.up else "recv_cancel"
        way = left if leg.leaving else "send_bye" if leg.up else "send_cancel"
        shown = {f"variable_{name}": value for name, value in variables.items()}
        said = self._say("CHANNEL_HANGUP_COMPLETE", leg, Hangup_Cause=cause)
        return {**said, **shown, "variable_sip_hangup_disposition": way}

    def end(self, leg: Leg, why: str) -> Flow:
        if leg.gone:
            return
        causes = {"lost": "LOSE_RACE", "unanswered": "NO_ANSWER", "cancelled": "ORIGINATOR_CANCEL"}
        yield self._hung_up(leg, causes.get(why, "NORMAL_CLEARING"))

    def wish(self, leg: Leg) -> Flow:
        yield from ()

    def _queue(self, action: str, leg: Leg, **more: str) -> dict[str, str]:
        said = self._say("CUSTOM", leg, CC_Action=action, CC_Member_Session_UUID=leg.uid, **more)
        return {**said, "Event-Subclass": "callcenter::info", "CC-Queue": "support@pbx"}

    def queue_in(self, leg: Leg) -> Flow:
        leg.up = True
        yield self._say("CHANNEL_ANSWER", leg)
        yield self._queue("member-queue-start", leg)

    def queue_out(self, leg: Leg, winner: Leg | None) -> Flow:
        if winner is not None:
            yield self._queue("bridge-agent-start", leg)
        else:
            yield self._queue("member-queue-end", leg, CC_Cause="Cancel", CC_Cancel_Reason="TIMEOUT")

    def send_on(self, by: Leg, stays: Leg, phone: str) -> Flow:
        variables = {"transfer_to": f"blind:{stays.uid}", "transfer_destination": f"blind:{phone}"}
        stays.bridge, stays.mate = "", None
        yield self._hung_up(by, "NORMAL_CLEARING", endpoint_disposition="BLIND_TRANSFER", **variables)
        source = f"{int(self.now)}:{self.number()}:bl_xfer:{phone}/default/XML"
        yield {**self._pair("CHANNEL_UNBRIDGE", stays, by), "Caller-Transfer-Source": source}

    def replace(self, by: Leg, customer: Leg, second: Leg, third: Leg) -> Flow:
        third.bridge, second.bridge, second.mate, third.mate = "", "", None, None
        yield {
            **self._pair("CHANNEL_UNBRIDGE", second, third),
            "variable_endpoint_disposition": "ATTENDED_TRANSFER",
        }
        yield self._hung_up(second, "NORMAL_CLEARING", endpoint_disposition="ATTENDED_TRANSFER")
        yield self._hung_up(by, "NORMAL_CLEARING", transfer_to=f"att:{third.uid}")
        customer.bridge, customer.mate = "", None
        yield self._pair("CHANNEL_UNBRIDGE", customer, by)
        if customer.leaving or third.leaving:
            return
        yield from self.join(customer, third)
