"""chan_pjsip, app_dial, app_queue, Local channels and bridges, as AMI tells of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.hearing import DIAL_ACTION
from worlds.model import DID, ROOM, ZERO, Flow, Leg, World

LOT = "parking-lot"


class Asterisk(World):
    def device(self, phone: str) -> str:
        return f"PJSIP/{phone}"

    def leg(self, phone: str, *, trunk: bool = False, caller: Leg | None = None) -> Leg:
        number = self.number()
        uid = f"world-{int(ZERO)}.{number}"
        name = f"PJSIP/{'trunk' if trunk else phone}-{number:08x}"
        leg = Leg(uid, name, phone, caller.root if caller else uid, trunk, caller is not None)
        self.legs.append(leg)
        return leg

    def _wire(self, name: str, root: str, uids: tuple[str, str] | None = None) -> tuple[Leg, Leg]:
        number = self.number()
        made = []
        for half in (1, 2):
            uid = uids[half - 1] if uids else f"world-{int(ZERO)}.{self.number()}"
            made.append(Leg(uid, f"Local/{name}-{number:08x};{half}", "", root or uid, real=False))
        one, two = made
        one.wire, two.wire, two.root = two, one, one.root
        self.halves += made
        return one, two

    def _say(self, event: str, leg: Leg | None = None, **more: str) -> Message:
        self.now += 0.01
        shown: dict[str, str] = {"Event": event, "Timestamp": f"{self.now:.6f}"}
        if leg is not None:
            shown |= {"Channel": leg.name, "Uniqueid": leg.uid, "Linkedid": leg.root, "CallerIDNum": leg.phone}
        return Message({**shown, **more}.items())

    def create(self, leg: Leg, dialled: str = "") -> Flow:
        yield self._say("Newchannel", leg, ChannelState="4", Exten=DID if leg.trunk else dialled or "102")

    def goes_up(self, leg: Leg) -> Flow:
        leg.up = True
        yield self._say("Newstate", leg, ChannelState="6")

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
        if not caller.up:
            yield from self.goes_up(caller)

    def _enter(self, leg: Leg, bridge: str, **more: str) -> Message:
        leg.bridge = bridge
        return self._say("BridgeEnter", leg, BridgeUniqueid=bridge, **{"BridgeType": "basic", **more})

    def _out(self, leg: Leg, kind: str = "basic") -> Message:
        bridge, leg.bridge, leg.mate = leg.bridge, "", None
        return self._say("BridgeLeave", leg, BridgeUniqueid=bridge, BridgeType=kind)

    def join(self, one: Leg, two: Leg) -> Flow:
        one.mate, two.mate = two, one
        bridge = f"bridge-{self.number()}"
        # Who was called comes first, and who picks up or fetches takes that part.
        early, late = (one, two) if two.trunk and not one.trunk else (two, one)
        yield self._enter(early, bridge)
        yield self._enter(late, bridge)
        early.root = late.root

    def part(self, one: Leg, two: Leg) -> Flow:
        near = one.near
        if near is None or near.wire is None:
            yield self._out(one)
            yield self._out(two)
            return
        far = near.wire
        one.near = two.near = None
        yield self._out(one)
        yield self._out(near)
        yield self._say("HangupRequest", far, Cause="16")
        yield from self.end(near, "over")
        yield from self.end(one, "over")
        yield self._out(far)
        yield from self.weave(self.end(far, "over"), self._goes(two))

    def _goes(self, leg: Leg) -> Flow:
        yield self._out(leg)
        yield from self.end(leg, "over")

    def end(self, leg: Leg, why: str) -> Flow:
        if leg.gone:
            return
        leg.gone = True
        cause = {"lost": "26", "unanswered": "19", "busy": "17"}.get(why, "16")
        yield self._say("Hangup", leg, Cause=cause)

    def wish(self, leg: Leg) -> Flow:
        if not leg.gone:
            yield self._say("HangupRequest", leg)

    def queue_in(self, leg: Leg) -> Flow:
        yield from self.goes_up(leg)
        yield self._say("QueueCallerJoin", leg, Queue="support", Position="1")

    def queue_out(self, leg: Leg, winner: Leg | None) -> Flow:
        if leg.leaving and winner is None:
            yield self._say("QueueCallerAbandon", leg, Queue="support")
        yield self._say("QueueCallerLeave", leg, Queue="support")

    # --- wires ---

    def over_wire(self, caller: Leg, phone: str, optimises: bool) -> Flow:
        yield self._say("QueueCallerJoin", caller, Queue="sales", Position="1")
        one, two = self._wire(f"{phone}@agents", caller.root)
        yield self._say("Newchannel", one, ChannelState="0", Exten=phone)
        yield self._say("Newchannel", two, ChannelState="4", Exten=phone)
        yield self._say("DialBegin", caller, **self._dest(one), DialString=f"Local/{phone}@agents")
        leg = self.leg(phone, caller=caller)
        yield from self.dial(two, leg)
        if not (caller.leaving or leg.leaving):
            self.rang += 1
            leg.rings = True
            yield from self._ring_over(caller, one, two, leg)
        if caller.leaving or leg.leaving or not self.pick(4):
            for channel in (leg, two, one):
                yield from self.end(channel, "cancelled" if caller.leaving else "unanswered")
            yield from self.queue_out(caller, None)
            yield from self.settle(caller)
            return
        leg.up = True
        yield self._say("Newstate", leg, ChannelState="6")
        yield self._say("DialEnd", two, **self._dest(leg), DialStatus="ANSWER")
        a, b = f"bridge-{self.number()}", f"bridge-{self.number()}"
        yield from self.weave(self._connect_far(leg, two, a), self._connect_near(caller, one, b))
        caller.mate, leg.mate, caller.near, leg.near = leg, caller, one, two
        if optimises and not (caller.leaving or leg.leaving):
            yield from self._optimise(caller, one, two, leg)
        yield from self.settle(caller, leg)

    def _ring_over(self, caller: Leg, one: Leg, two: Leg, leg: Leg) -> Flow:
        yield self._say("Newstate", leg, ChannelState="5")
        yield self._say("Newstate", one, ChannelState="5")
        yield self._say("DialState", two, **self._dest(leg), DialStatus="RINGING")
        yield self._say("DialState", caller, **self._dest(one), DialStatus="RINGING")

    def _connect_far(self, leg: Leg, two: Leg, bridge: str) -> Flow:
        yield self._say("Newstate", two, ChannelState="6")
        yield self._enter(leg, bridge)
        yield self._enter(two, bridge)

    def _connect_near(self, caller: Leg, one: Leg, bridge: str) -> Flow:
        yield self._say("Newstate", one, ChannelState="6")
        yield self._say("DialEnd", caller, **self._dest(one), DialStatus="ANSWER")
        yield self._say("QueueCallerLeave", caller, Queue="sales")
        caller.up = True
        yield self._say("Newstate", caller, ChannelState="6")
        yield self._enter(one, bridge)
        yield self._enter(caller, bridge)

    def _optimise(self, stays: Leg, one: Leg, two: Leg, moves: Leg) -> Flow:
        """The wire takes itself away: `moves` comes into the bridge where `one` and `stays` are."""
        bridge = one.bridge
        yield self._out(moves)
        moves.mate = stays
        yield self._out(one)
        yield self._enter(moves, bridge, SwapUniqueid=one.uid)
        stays.near = moves.near = None
        yield self._out(two)
        yield from self.weave(self.end(one, "over"), self.end(two, "over"))

    # --- what people do in a call ---

    def hold(self, leg: Leg) -> Flow:
        yield self._say("Hold" if leg.held else "Unhold", leg)

    def take(self, picker: Leg, caller: Leg, rang: Leg) -> Flow:
        yield self._say("Pickup", picker, TargetUniqueid=rang.uid)
        yield self._say("DialEnd", caller, **self._dest(picker), DialStatus="ANSWER")
        if not caller.up:
            yield from self.goes_up(caller)
        yield from self.end(rang, "lost")

    def _back_from_hold(self, leg: Leg) -> Flow:
        """A phone that transfers takes back a hold that may never have been."""
        if leg.held:
            leg.held = False
            self.resumes += 1
        yield self._say("Unhold", leg)

    def send_on(self, by: Leg, stays: Leg, phone: str) -> Flow:
        yield from self._back_from_hold(by)
        yield self._say("BlindTransfer", TransfererUniqueid=by.uid, Extension=phone, Result="Success")
        yield self._out(stays)
        yield self._out(by)
        yield from self.end(by, "over")

    def park(self, by: Leg, stays: Leg) -> Flow:
        yield from self._back_from_hold(by)
        yield self._say("BlindTransfer", TransfererUniqueid=by.uid, Extension="700", Result="Success")
        by.mate = None
        yield self._out(stays)
        stays.parked = True
        yield self._enter(stays, LOT, BridgeType="parking")
        # Whoever parked hangs up some time later.
        yield self._say("HangupRequest", by, Cause="16")
        yield self._out(by)
        yield from self.end(by, "over")

    def unpark(self, waits: Leg, fetcher: Leg) -> Flow:
        bridge = f"bridge-{self.number()}"
        yield self._out(waits, "parking")
        waits.parked = False
        yield self._enter(waits, bridge)
        if not fetcher.leaving:
            waits.mate, fetcher.mate = fetcher, waits
            fetcher.root = waits.root
            yield self._enter(fetcher, bridge)
        else:
            yield self._out(waits)

    def walk_in(self, leg: Leg) -> Flow:
        yield self._enter(leg, ROOM, BridgeType="base")

    def walk_out(self, leg: Leg) -> Flow:
        kind = "parking" if leg.parked else "base"
        leg.room, bridge = "", leg.bridge
        leg.bridge = ""
        yield self._say("BridgeLeave", leg, BridgeUniqueid=bridge, BridgeType=kind)

    def replace(self, by: Leg, customer: Leg, second: Leg, third: Leg) -> Flow:
        yield from self._back_from_hold(by)
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

    def rename(self, leg: Leg) -> Flow:
        if leg.gone:
            return
        name = f"{leg.name.rpartition('-')[0]}-{self.number():08x}"
        event = self._say("Rename", leg, Newname=name)
        leg.name = name
        yield event

    # --- our own dials ---

    def originate(self, attempt: str, phone: str, number: str, agent_first: bool, optimises: bool) -> Flow:
        one, two = self._wire("first@ringbridge-leg", attempt, (attempt, f"{attempt}-2"))
        yield self._say("Newchannel", one, ChannelState="0", Exten="first")
        yield self._say("Newchannel", two, ChannelState="4", Exten="first")
        yield self._say("DialBegin", **self._dest(one), DialString="first@ringbridge-leg")
        first = self._own(attempt, phone if agent_first else number, trunk=not agent_first)
        yield from self._receipt(two, attempt, first, "dialing")
        yield from self.dial(two, first)
        answered = yield from self._own_rings(two, first, one)
        if not answered:
            yield self._say("DialEnd", two, **self._dest(first), DialStatus="NOANSWER")
            failed = {"ActionID": f"{DIAL_ACTION}{attempt}", "Response": "Failure", "Reason": "0"}
            yield self._say("OriginateResponse", one, **failed)
            yield from self._receipt(two, attempt, first, "over", DialStatus="NOANSWER", Cause="19")
            ends = [self.end(channel, "unanswered") for channel in (two, first)]
            yield from self.weave(*ends, self._first_over(one))
            return
        bridge = f"bridge-{self.number()}"
        yield from self.weave(self._connect_far(first, two, bridge), self._first_up(one, attempt))
        second = self._own(attempt, number if agent_first else phone, trunk=agent_first)
        if not first.leaving:
            yield from self._receipt(one, attempt, second, "dialing")
        yield from self.dial(one, second)
        answered = not first.leaving and (yield from self._own_rings(one, second, None))
        if not answered or first.leaving:
            yield from self._no_second(attempt, one, two, first, second)
            return
        bridge = f"bridge-{self.number()}"
        yield self._enter(second, bridge)
        yield self._enter(one, bridge)
        first.mate, second.mate, first.near, second.near = second, first, two, one
        if optimises and not (first.leaving or second.leaving):
            yield from self._optimise(second, one, two, first)
        yield from self.settle(first, second)

    def _own(self, attempt: str, phone: str, *, trunk: bool) -> Leg:
        leg = self.leg(phone, trunk=trunk)
        leg.root, leg.outgoing, leg.attempt = attempt, True, attempt
        leg.side = "customer" if trunk else "agent"
        return leg

    def _receipt(self, half: Leg, attempt: str, leg: Leg, result: str, **more: str) -> Flow:
        said = {"UserEvent": "Ringbridge", "Attempt": attempt, "Leg": leg.side, "Result": result}
        yield self._say("UserEvent", half, **said, **more)

    def _own_rings(self, dialler: Leg, leg: Leg, one: Leg | None) -> Generator[Any, None, bool]:
        """It rings, and answers or does not."""
        if leg.leaving:
            return False
        self.rang += 1
        leg.rings = True
        yield from self.ring(dialler, leg)
        if one is not None:
            yield self._say("Newstate", one, ChannelState="5")
        if leg.leaving or not self.pick(4):
            return False
        leg.up = True
        yield self._say("Newstate", leg, ChannelState="6")
        yield self._say("DialEnd", dialler, **self._dest(leg), DialStatus="ANSWER")
        return True

    def _first_up(self, one: Leg, attempt: str) -> Flow:
        yield self._say("Newstate", one, ChannelState="6")
        yield self._say("DialEnd", **self._dest(one), DialStatus="ANSWER")
        done = {"ActionID": f"{DIAL_ACTION}{attempt}", "Response": "Success", "Reason": "4"}
        yield self._say("OriginateResponse", one, **done)

    def _first_over(self, one: Leg) -> Flow:
        yield self._say("DialEnd", **self._dest(one), DialStatus="NOANSWER")
        yield from self.end(one, "unanswered")

    def _no_second(self, attempt: str, one: Leg, two: Leg, first: Leg, second: Leg) -> Flow:
        if first.leaving:
            yield self._out(first)
            yield self._out(two)
            yield self._say("HangupRequest", one, Cause="16")
            yield from self.end(two, "over")
            if not second.up:
                yield self._say("DialEnd", one, **self._dest(second), DialStatus="CANCEL")
            yield from self.weave(*(self.end(channel, "over") for channel in (one, first, second)))
            return
        yield self._say("DialEnd", one, **self._dest(second), DialStatus="NOANSWER")
        yield from self._receipt(one, attempt, second, "over", DialStatus="NOANSWER", Cause="19")
        yield self._say("HangupRequest", two, Cause="19")
        yield from self.end(one, "unanswered")
        yield from self.end(second, "unanswered")
        yield self._out(two)
        yield from self.weave(self.end(two, "unanswered"), self._goes(first))
