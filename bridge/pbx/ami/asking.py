"""Asking Asterisk for what an action needs, and hearing what it says of it: what every action shares."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bridge.pbx.ami.aides import Aide, Role
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.hearing import ACT_ACTION
from bridge.pbx.ami.orders import aide, dialled, phone
from bridge.pbx.ami.reports import Judge, Reports
from bridge.pbx.ami.session import Reply, Session, header
from bridge.pbx.ami.tracker import Tracker
from bridge.pbx.calls.acting import Legs, NotPossible
from bridge.pbx.calls.model import Channel
from bridge.pbx.connecting import told
from bridge.pbx.port import ActionOrder, Outcome, Reason
from bridge.uptime import uptime

_ANSWER_FIRST = 1.0
"""A phone stops ringing so long before the deadline, that the outcome can still be told."""
_NO_ANSWER = Outcome(False, Reason.FAILED, "nobody answered there; the call goes on as it was")
_NO_DIALPLAN = "the PBX's part of Ringbridge is missing or too old for this; an administrator runs `ringbridge check`"
_UNKNOWN = Outcome(False, Reason.TIMEOUT, "the PBX took it, and did not say in time what became of it")


class Asking:
    """One order, whom it concerns, and the connection over which it is carried out."""

    def __init__(
        self, session: Session, tracker: Tracker, reports: Reports, order: ActionOrder, legs: Legs, last: int
    ) -> None:
        """`last` is the last second of the PBX's own clock in which it may begin."""
        self.session = session
        self.tracker = tracker
        self.reports = reports
        self.order = order
        self.legs = legs
        self.last = last

    # --- channels of ours ---

    def aides(self, role: Role) -> list[Aide]:
        """Those that are there for a leg of this call."""
        call, book = self.legs.call, self.tracker.book
        legs = {*call.legs, *(leg.uid for leg in self.everybody()), call.guest}
        return [
            each
            for each in self.tracker.aides.values()
            if each.role is role and not each.far and each.leg in legs and each.leg in book.channels
        ]

    def aide(self, role: Role, leg: Channel) -> Aide | None:
        return next((each for each in self.aides(role) if each.leg == leg.uid), None)

    def everybody(self) -> tuple[Channel, ...]:
        legs = self.legs
        return tuple(leg for leg in (legs.own, legs.customer, *legs.others) if leg is not None)

    async def ring(
        self, role: Role, exten: str, leg: Channel, caller: Channel | None, done: Judge, **variables: str
    ) -> Outcome:
        """Ring the phone of who asks, and go on once it is answered."""
        device = phone(self.order.device or "")
        party = self.tracker.book.party(caller) if caller is not None else None
        shown = None if party is None or party.withheld else party.number or party.extension
        return await self.aid(role, device, exten, leg, done, shown=shown, **variables)

    async def aid(
        self,
        role: Role,
        channel: str,
        exten: str,
        leg: Channel,
        done: Judge,
        *,
        shown: str | None = None,
        **variables: str,
    ) -> Outcome:
        """Let the PBX make a channel of ours for a leg, and wait for what it says of it."""
        command = self.order.command
        ring = min(float(self.order.ring_seconds), self.left() - _ANSWER_FIRST)
        fields = aide(
            role,
            command,
            channel=channel,
            exten=exten,
            leg=leg.uid,
            until=self.last,
            ring_seconds=ring,
            shown=shown,
            **variables,
        )

        def judge(event: Message) -> Outcome | None:
            return done(event) or _came_to_nothing(event, command)

        with self.reports.watch(judge) as watch:
            reply = await self.session.ask(
                "Originate", fields, deadline=self.left(), action_id=f"{ACT_ACTION}{command}"
            )
            if "extension does not exist" in reply.text.lower():
                raise NotPossible(_NO_DIALPLAN)
            accepted(reply)
            return await watch.outcome(self.order.until) or _UNKNOWN

    async def end(self, each: Aide) -> None:
        """End a channel of ours; it does not matter who was quicker."""
        with self.reports.watch(heard("Hangup", "Uniqueid", each.uid, "")) as watch:
            reply = await self.session.ask("Hangup", {"Channel": each.name, "Cause": "16"}, deadline=self.left())
            if reply.ok:
                await watch.outcome(self.order.until)

    # --- asking ---

    async def until(self, judge: Judge, action: str, **fields: str) -> Outcome:
        """Send an action, and wait for the event that tells what became of it."""
        with self.reports.watch(judge) as watch:
            await self.ask(action, **fields)
            return await watch.outcome(self.order.until) or _UNKNOWN

    async def ask(self, action: str, **fields: str) -> Reply:
        """Send an action. Raises NotPossible where the PBX refuses it."""
        reply = await self.session.ask(action, fields, deadline=self.left())
        accepted(reply)
        return reply

    def left(self) -> float:
        return max(0.1, self.order.until - uptime())

    # --- whom it concerns ---

    def own(self) -> Channel:
        if self.legs.own is None:
            raise NotPossible("nobody of the company is in this call")
        return self.legs.own

    def customer(self) -> Channel:
        if self.legs.customer is None:
            raise NotPossible("nobody is on the other side of this call")
        return self.legs.customer

    def both(self) -> tuple[Channel, Channel]:
        return self.own(), self.customer()

    def free(self) -> tuple[Channel, Channel]:
        """The same, where they may be parted: who asks somebody would send on the wrong one."""
        if self.own().guest_of is not None:
            raise NotPossible("somebody is being asked; complete that first, or come back")
        return self.both()

    async def reachable(self, who: Channel, to: str) -> dict[str, str]:
        """The fields that say where to. Raises NotPossible for a number that the PBX does not have."""
        where = dialled(to, self.order.context)
        exists = "DIALPLAN_EXISTS({Context},{Exten},1)".format(**where)
        reply = await self.session.ask("Getvar", {"Channel": who.name, "Variable": exists}, deadline=self.left())
        # Without func_dialplan it does not know.
        if header(reply.headers or {}, "value") == "0":
            raise NotPossible("the PBX has nobody under that number")
        return where

    def to(self) -> str:
        return self.order.to or ""


def accepted(reply: Reply) -> None:
    if reply.ok:
        return
    text = reply.text.lower()
    if "no such channel" in text or "channel not found" in text:
        raise NotPossible("that leg has just ended", Reason.NOT_FOUND)
    raise NotPossible(f"the PBX refused: {told(reply.text)}")


def succeeded(detail: str) -> Outcome:
    return Outcome(True, Reason.DONE, detail)


def heard(event: str, key: str, value: str, detail: str, **more: str) -> Judge:
    """Done when that event comes with these headers."""
    wanted = {key: value, **more}

    def judge(message: Message) -> Outcome | None:
        if message["Event"] == event and all(message.get(name) == text for name, text in wanted.items()):
            return succeeded(detail)
        return None

    return judge


def begun(spyer: str, detail: str, data: Mapping[str, str] = MappingProxyType({})) -> Judge:
    """Done when that channel hears the leg it is there for."""

    def judge(message: Message) -> Outcome | None:
        if message["Event"] == "ChanSpyStart" and message.get("SpyerUniqueid") == spyer:
            return Outcome(True, Reason.DONE, detail, dict(data))
        return None

    return judge


def _came_to_nothing(event: Message, command: str) -> Outcome | None:
    """What our dialplan, or the PBX, says of a channel of ours that will not do what it is for."""
    if event["Event"] == "OriginateResponse":
        failed = event.get("ActionID") == f"{ACT_ACTION}{command}" and event.get("Response") == "Failure"
        return _NO_ANSWER if failed else None
    if event["Event"] != "UserEvent" or event.get("Command") != command:
        return None
    return {
        "stale": Outcome(False, Reason.STALE, "it came to the PBX too late; nothing was done"),
        "invalid": Outcome(False, Reason.REFUSED, "the PBX refused a value"),
        "over": Outcome(False, Reason.FAILED, "it was too late: what was to be done is not possible any more"),
    }.get(event.get("Result", ""))
