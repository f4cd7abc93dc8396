"""mod_sofia, mod_callcenter, loopback endpoints, valet parking and conferences, as the event socket tells of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from bridge.pbx.esl.hearing import DIAL_JOB
from worlds.model import DID, ROOM, Flow, Leg, World


class FreeSwitch(World):
    tells_pickups = False

    def device(self, phone: str) -> str:
        return f"user/{phone}"

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
        if leg.wire is not None:
            shown["variable_other_loopback_leg_uuid"] = leg.wire.uid
        if leg.attempt:
            shown |= {"variable_rb_attempt": leg.attempt, "variable_rb_leg": leg.side}
        if leg.outgoing:
            shown["Caller-Destination-Number"] = leg.phone
            if leg.root != leg.uid:
                shown["variable_originating_leg_uuid"] = leg.root
            if not leg.trunk and leg.real:
                shown["variable_dialed_user"] = leg.phone
        elif not leg.trunk:
            shown["variable_user_name"] = leg.phone
        if leg.route:
            shown["Caller-Transfer-Source"] = leg.route
        if leg.gone:
            shown["Answer-State"] = "hangup"
        return {**shown, **{name.replace("_", "-"): value for name, value in more.items()}}

    def create(self, leg: Leg, dialled: str = "") -> Flow:
        # Who comes by the trunk has dialled a DID, whatever the dialplan makes of it.
        number = {} if leg.trunk or not dialled else {"Caller_Destination_Number": dialled}
        yield self._say("CHANNEL_CREATE", leg, **number)

    def goes_up(self, leg: Leg) -> Flow:
        yield self._say("CHANNEL_PROGRESS_MEDIA", leg)
        leg.up = True
        yield self._say("CHANNEL_ANSWER", leg)

    def dial(self, caller: Leg, leg: Leg) -> Flow:
        yield self._say("CHANNEL_CREATE", leg, Other_Type="originator", Other_Leg_Unique_ID=caller.uid)

    def ring(self, caller: Leg, leg: Leg) -> Flow:
        yield self._say("CHANNEL_PROGRESS", leg)
        if not caller.up:
            yield self._say("CHANNEL_PROGRESS_MEDIA", caller)

    def answer(self, caller: Leg, leg: Leg) -> Flow:
        yield self._say("CHANNEL_ANSWER", leg)
        yield from self._answers(caller)

    def _answers(self, leg: Leg) -> Flow:
        if not leg.up:
            leg.up = True
            yield self._say("CHANNEL_ANSWER", leg)

    def _pair(self, event: str, one: Leg, two: Leg) -> dict[str, str]:
        return self._say(event, one, Bridge_A_Unique_ID=one.uid, Bridge_B_Unique_ID=two.uid)

    def join(self, one: Leg, two: Leg) -> Flow:
        one.mate, two.mate = two, one
        one.first, two.first = True, False
        one.bridge = two.bridge = f"bridge-{self.number()}"
        yield self._pair("CHANNEL_BRIDGE", one, two)

    def part(self, one: Leg, two: Leg) -> Flow:
        """The A says that they part, before or after the other has gone."""
        a, b = (one, two) if one.first else (two, one)
        if self.pick(2):
            yield from self.end(b, "over")
            a.bridge, a.mate = "", None
            yield self._pair("CHANNEL_UNBRIDGE", a, b)
            return
        a.bridge, a.mate, b.bridge, b.mate = "", None, "", None
        yield self._pair("CHANNEL_UNBRIDGE", a, b)
        yield from self.end(b, "over")

    def _hung_up(self, leg: Leg, cause: str, **variables: str) -> dict[str, str]:
        leg.gone, leg.bridge, leg.mate = True, "", None
        left = "recv_bye" if leg.up else "recv_cancel"
        way = left if leg.leaving else "send_bye" if leg.up else "send_cancel"
        shown = {f"variable_{name}": value for name, value in variables.items()}
        said = self._say("CHANNEL_HANGUP_COMPLETE", leg, Hangup_Cause=cause)
        return {**said, **shown, **({"variable_sip_hangup_disposition": way} if leg.real else {})}

    def end(self, leg: Leg, why: str) -> Flow:
        if leg.gone:
            return
        causes = {
            "lost": "LOSE_RACE", "unanswered": "NO_ANSWER", "cancelled": "ORIGINATOR_CANCEL", "busy": "USER_BUSY",
            "picked": "PICKED_OFF",
        }  # fmt: skip
        yield self._hung_up(leg, causes.get(why, "NORMAL_CLEARING"))

    def wish(self, leg: Leg) -> Flow:
        yield from ()

    def _queue(self, action: str, leg: Leg, queue: str = "support", **more: str) -> dict[str, str]:
        said = self._say("CUSTOM", leg, CC_Action=action, CC_Member_Session_UUID=leg.uid, **more)
        return {**said, "Event-Subclass": "callcenter::info", "CC-Queue": f"{queue}@pbx"}

    def queue_in(self, leg: Leg) -> Flow:
        leg.up = True
        yield self._say("CHANNEL_ANSWER", leg)
        yield self._queue("member-queue-start", leg)

    def queue_out(self, leg: Leg, winner: Leg | None) -> Flow:
        if winner is not None:
            yield self._queue("bridge-agent-start", leg)
        else:
            yield self._queue("member-queue-end", leg, CC_Cause="Cancel", CC_Cancel_Reason="TIMEOUT")

    # --- wires ---

    def over_wire(self, caller: Leg, phone: str, optimises: bool) -> Flow:
        """A queue's member over a loopback endpoint, which mod_callcenter always takes out at the answer."""
        caller.up = True
        yield self._say("CHANNEL_ANSWER", caller)
        yield self._queue("member-queue-start", caller, "sales")
        a, b = self._wire(phone)
        yield self._say("CHANNEL_CREATE", a) | _member(caller)
        yield self._say("CHANNEL_CREATE", b)
        leg = self.leg(phone, caller=b)
        yield from self.dial(b, leg)
        if not (caller.leaving or leg.leaving):
            self.rang += 1
            leg.rings = True
            yield self._say("CHANNEL_PROGRESS", leg)
            yield self._say("CHANNEL_PROGRESS", a)
            yield self._say("CHANNEL_PROGRESS", b)
        if caller.leaving or leg.leaving or not self.pick(4):
            for channel in (leg, b, a):
                yield from self.end(channel, "cancelled" if caller.leaving else "unanswered")
            yield self._queue("member-queue-end", caller, "sales", CC_Cause="Cancel", CC_Cancel_Reason="TIMEOUT")
            yield from self.settle(caller)
            return
        leg.up = True
        yield self._say("CHANNEL_ANSWER", leg)
        yield self._say("CHANNEL_ANSWER", a)
        yield self._say("CHANNEL_ANSWER", b)
        b.bridge = leg.bridge = f"bridge-{self.number()}"
        yield self._pair("CHANNEL_BRIDGE", b, leg)
        yield self._queue("bridge-agent-start", caller, "sales")
        b.bridge = leg.bridge = ""
        yield self._pair("CHANNEL_UNBRIDGE", b, leg)
        yield from self.end(b, "over")
        yield from self.end(a, "over")
        leg.route = f"{int(self.now)}:{self.number()}:uuid_br:{caller.uid}"
        if not (caller.leaving or leg.leaving):
            yield from self.join(caller, leg)
        yield from self.settle(caller, leg)

    def _wire(self, phone: str) -> tuple[Leg, Leg]:
        made = []
        for half in "ab":
            uid = f"{self.number():08x}-0000-4000-8000-000000000000"
            made.append(Leg(uid, f"loopback/{phone}-{half}", phone, uid, real=False, outgoing=half == "a"))
        a, b = made
        a.wire, b.wire = b, a
        self.halves += made
        return a, b

    # --- what people do in a call ---

    def hold(self, leg: Leg) -> Flow:
        yield self._say("CHANNEL_HOLD" if leg.held else "CHANNEL_UNHOLD", leg)

    def take(self, picker: Leg, caller: Leg, rang: Leg) -> Flow:
        yield from self._answers(caller)
        yield from self.end(rang, "picked")
        picker.route = f"{int(self.now)}:{self.number()}:uuid_br:{caller.uid}"

    def _sent(self, by: Leg, stays: Leg, target: str) -> Flow:
        variables = {"transfer_to": f"blind:{stays.uid}", "transfer_destination": f"blind:{target}"}
        stays.bridge, stays.mate = "", None
        yield self._hung_up(by, "NORMAL_CLEARING", endpoint_disposition="BLIND_TRANSFER", **variables)
        stays.route = f"{int(self.now)}:{self.number()}:bl_xfer:{target}/default/XML"
        yield self._pair("CHANNEL_UNBRIDGE", stays, by)

    def send_on(self, by: Leg, stays: Leg, phone: str) -> Flow:
        yield from self._sent(by, stays, phone)

    def park(self, by: Leg, stays: Leg) -> Flow:
        yield from self._sent(by, stays, "700")
        stays.parked = True
        yield self._valet("hold", stays)

    def _valet(self, action: str, leg: Leg) -> dict[str, str]:
        return {**self._say("CUSTOM", leg, Action=action), "Event-Subclass": "valet_parking::info"}

    def unpark(self, waits: Leg, fetcher: Leg) -> Flow:
        yield self._valet("bridge", waits)
        waits.route = f"{int(self.now)}:{self.number()}:uuid_br:{fetcher.uid}"
        yield self._valet("exit", waits)
        waits.parked = False
        yield from self.join(waits, fetcher)

    def walk_in(self, leg: Leg) -> Flow:
        yield self._conference("add-member", leg)

    def _conference(self, action: str, leg: Leg) -> dict[str, str]:
        said = self._say("CUSTOM", leg, Action=action, Conference_Name=ROOM, Conference_Unique_ID="room-1")
        return {**said, "Event-Subclass": "conference::maintenance"}

    def walk_out(self, leg: Leg) -> Flow:
        room, leg.room, leg.bridge = leg.room, "", ""
        if room:
            # As recorded: whoever leaves by hanging up is on the way out already.
            yield {**self._conference("del-member", leg), "Answer-State": "hangup"}

    def may_transfer(self, by: Leg) -> bool:
        """Of an A that transfers there is no recording."""
        return not by.first

    def may_replace(self, second: Leg) -> bool:
        return second.first

    def replace(self, by: Leg, customer: Leg, second: Leg, third: Leg) -> Flow:
        third.bridge, second.bridge, second.mate, third.mate = "", "", None, None
        yield {
            **self._pair("CHANNEL_UNBRIDGE", second, third),
            "variable_endpoint_disposition": "ATTENDED_TRANSFER",
        }
        yield self._hung_up(second, "NORMAL_CLEARING", endpoint_disposition="ATTENDED_TRANSFER")
        customer.bridge, customer.mate = "", None
        a, b = (by, customer) if by.first else (customer, by)
        yield self._hung_up(by, "NORMAL_CLEARING", transfer_to=f"att:{third.uid}")
        yield self._pair("CHANNEL_UNBRIDGE", a, b)
        if customer.leaving or third.leaving:
            return
        yield from self.join(customer, third)

    def rename(self, leg: Leg) -> Flow:
        """FreeSWITCH renames nobody."""
        yield from ()

    # --- our own dials ---

    def originate(self, attempt: str, phone: str, number: str, agent_first: bool, optimises: bool) -> Flow:
        agent, customer = self._own(attempt, phone, trunk=False), self._own(attempt, number, trunk=True)
        customer.uid = attempt
        one, two = (agent, customer) if agent_first else (customer, agent)
        one.root = one.uid
        self.legs.append(one)
        yield self._say("CHANNEL_CREATE", one)
        answered = yield from self._own_rings(one)
        if not answered:
            yield from self.end(one, "unanswered")
            yield self._job(attempt, "-ERR NO_ANSWER")
            return
        yield self._job(attempt, f"+OK {one.uid}")
        one.route = f"{int(self.now)}:{self.number()}:bl_xfer:{number}/ringbridge-go/XML"
        yield self._own_dial(one, two, "dialing")
        if one.leaving:
            yield from self.settle(one)
            return
        two.root = one.uid
        self.legs.append(two)
        yield from self.dial(one, two)
        answered = not one.leaving and (yield from self._own_rings(two))
        if not answered or one.leaving:
            yield from self.end(two, "cancelled" if one.leaving else "unanswered")
            if not one.leaving:
                yield self._own_dial(one, two, "over", Ringbridge_Cause="NO_ANSWER")
            yield from self.settle(one)
            return
        if not two.leaving:
            yield from self.join(one, two)
        yield from self.settle(one, two)

    def _own(self, attempt: str, phone: str, *, trunk: bool) -> Leg:
        leg = self.leg(phone, trunk=trunk)
        self.legs.remove(leg)
        leg.outgoing, leg.attempt, leg.side = True, attempt, "customer" if trunk else "agent"
        return leg

    def _own_rings(self, leg: Leg) -> Generator[Any, None, bool]:
        """It rings, and answers or does not."""
        if leg.leaving:
            return False
        self.rang += 1
        leg.rings = True
        yield self._say("CHANNEL_PROGRESS", leg)
        if leg.leaving or not self.pick(4):
            return False
        leg.up = True
        yield self._say("CHANNEL_ANSWER", leg)
        return True

    def _job(self, attempt: str, body: str) -> dict[str, str]:
        self.now += 0.02
        when = str(round(self.now * 1e6))
        job = {"Job-UUID": f"{DIAL_JOB}{attempt}", "_body": f"{body}\n"}
        return {"Event-Name": "BACKGROUND_JOB", "Event-Date-Timestamp": when, **job}

    def _own_dial(self, one: Leg, two: Leg, result: str, **more: str) -> dict[str, str]:
        said = {"Ringbridge_Attempt": one.attempt, "Ringbridge_Leg": two.side, "Ringbridge_Result": result}
        return {**self._say("CUSTOM", one, **said, **more), "Event-Subclass": "ringbridge::dial"}


def _member(caller: Leg) -> dict[str, str]:
    return {"variable_cc_member_session_uuid": caller.uid}
