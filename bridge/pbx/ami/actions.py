"""What is done to a call that is under way, in Asterisk's words, and how each outcome is told.

Nothing here guesses: an action is done when an event, or the reply to that very action, says so. What an action
needs of the PBX beside (music, a recording, a phone that rings) is a channel of ours in our own context, an `Aide`;
the dialplan's manual says what each does.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from bridge.domain.actions import WATCHING, Action, Side
from bridge.domain.errors import Invalid
from bridge.pbx.ami.aides import CONTEXT, Aide, Role, aide_id
from bridge.pbx.ami.asking import Asking, begun, heard, succeeded
from bridge.pbx.ami.codec import LocalError, Message
from bridge.pbx.ami.orders import inner, way_to
from bridge.pbx.ami.reports import Reports
from bridge.pbx.ami.session import Session, header
from bridge.pbx.ami.tracker import Tracker
from bridge.pbx.calls.acting import NotPossible, choose
from bridge.pbx.calls.model import Channel
from bridge.pbx.connecting import LinkDown, NoReply
from bridge.pbx.port import ActionOrder, Outcome, Reason
from bridge.uptime import uptime

_SILENT, _NORMAL = "-32767", "0"
"""What VOLUME makes of a leg that holds. Not MUTEAUDIO: it sends nothing at all, so nothing to mix music into."""
_BETWEEN_DIGITS = 0.3
_MISSING_SOUND_SECONDS = 1.0
"""A sound that the PBX does not have fails within some ms."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


class Doing(Asking):
    """One action from its order to its outcome."""

    # --- hold, in place: the bridge, and a queue behind it, notice nothing ---

    async def hold(self) -> Outcome:
        own, customer = self.both()
        if self.aide(Role.HOLD, own):
            return succeeded("the caller is held already")
        await self._volume(own, _SILENT)
        outcome = Outcome(False, Reason.FAILED, "the PBX did not begin to hold the call")
        try:
            done = heard("UserEvent", "Command", self.order.command, "the caller is held", Result="held")
            outcome = await self.aid(Role.HOLD, inner("hold"), "held", own, done, RB_LEG=customer.uid)
        finally:
            if not outcome.ok:
                await self._volume(own, _NORMAL)
        music = self.aide(Role.HOLD, own)
        if music is not None:
            # Should we be gone when the agent's leg ends, music must not go on over what follows.
            over = f"ringbridge-act,unhold,1({music.name})"
            await self.ask("Setvar", Channel=own.name, Variable="CHANNEL(hangup_handler_push)", Value=over)
        return outcome

    async def resume(self) -> Outcome:
        own = self.own()
        if await self._release(own):
            return succeeded("the caller is back")
        # Whoever began to hold may have died in the middle of it.
        await self._volume(own, _NORMAL)
        raise NotPossible("it was held at the phone; take it back there" if own.held else "nobody is held in this call")

    async def _release(self, own: Channel) -> bool:
        """End our own hold; False where there was none."""
        music = self.aide(Role.HOLD, own)
        if music is None:
            return False
        await self._volume(own, _NORMAL)
        await self.end(music)
        return True

    async def _volume(self, own: Channel, value: str) -> None:
        for direction in ("VOLUME(RX)", "VOLUME(TX)"):
            await self.ask("Setvar", Channel=own.name, Variable=direction, Value=value)

    # --- sending on ---

    async def transfer(self) -> Outcome:
        own, _ = self.free()
        where = await self.reachable(own, self.to())
        await self._release(own)
        await self.ask("BlindTransfer", Channel=own.name, **where)
        return succeeded("the PBX sends the caller on")

    async def consult(self) -> Outcome:
        own, _ = self.free()
        # It is pressed as keys, and there is none for a plus.
        where = await self.reachable(own, self.to().lstrip("+"))
        await self._release(own)
        home = own.bridge

        def judge(event: Message) -> Outcome | None:
            if event.get("Uniqueid") != own.uid:
                return None
            if event["Event"] == "BridgeEnter" and event.get("BridgeUniqueid") != home:
                return succeeded("the caller waits, and the other one rings")
            if event["Event"] == "Unhold":
                return Outcome(False, Reason.FAILED, "the PBX did not put this through; the caller is back")
            return None

        return await self.until(judge, "Atxfer", Channel=own.name, **where)

    async def complete(self) -> Outcome:
        own = self.own()

        def judge(event: Message) -> Outcome | None:
            transferers = (event.get("OrigTransfererUniqueid"), event.get("SecondTransfererUniqueid"))
            if event["Event"] != "AttendedTransfer" or own.uid not in transferers:
                return None
            if event.get("Result") == "Success":
                return succeeded("both go on together")
            return Outcome(False, Reason.FAILED, "the PBX could not bring the two together")

        return await self.until(judge, "Hangup", Channel=own.name, Cause="16")

    async def back(self) -> Outcome:
        own, customer = self.both()
        done = heard("BridgeEnter", "Uniqueid", own.uid, "back with the caller", BridgeUniqueid=customer.bridge or "")
        return await self.until(done, "CancelAtxfer", Channel=own.name)

    async def redirect(self) -> Outcome:
        customer = self.customer()
        where = await self.reachable(customer, self.to())
        await self.ask("Redirect", Channel=customer.name, Priority="1", **where)
        return succeeded("the PBX sends the caller there")

    async def conference(self) -> Outcome:
        own, customer = self.free()
        await self.reachable(own, self.to())
        way = way_to(self.to(), self.order.context)
        await self._release(own)
        uid = aide_id(Role.THIRD, self.order.command)
        done = heard("BridgeEnter", "Uniqueid", uid, "all hear each other", BridgeUniqueid=customer.bridge or "")
        shown = self.tracker.book.party(own).extension
        return await self.aid(Role.THIRD, way, "third", customer, done, shown=shown, RB_CHANNEL=customer.name)

    # --- parked, fetched ---

    async def park(self) -> Outcome:
        own, customer = self.free()
        if len(self.legs.others) > 1:
            # One of several would go and the others talk on, in a call that counts as parked.
            raise NotPossible("more than two talk in this call; it can be parked when two are left")
        await self._release(own)

        def judge(event: Message) -> Outcome | None:
            if event["Event"] != "ParkedCall" or event.get("ParkeeUniqueid") != customer.uid:
                return None
            slot = event.get("ParkingSpace", "")
            return Outcome(True, Reason.DONE, "the caller is parked", {"slot": slot})

        return await self.until(judge, "Park", Channel=customer.name, TimeoutChannel=own.name)

    async def retrieve(self) -> Outcome:
        parked = self.customer()
        listed = await self.session.ask("ParkedCalls", deadline=self.left(), listed=None)
        here = next((item for item in listed.items if header(item, "parkeeuniqueid") == parked.uid), None)
        if here is None:
            raise NotPossible("this call is not parked any more")
        done = heard("BridgeEnter", "Uniqueid", aide_id(Role.RETRIEVE, self.order.command), "the call is here")
        place = {"RB_LOT": header(here, "parkinglot"), "RB_SLOT": header(here, "parkingspace")}
        return await self.ring(Role.RETRIEVE, "retrieve", parked, parked, done, **place)

    async def pickup(self) -> Outcome:
        order = self.order
        rings = next(leg for leg in self.legs.others if leg.device != order.device)
        done = heard("Pickup", "Uniqueid", aide_id(Role.PICKUP, order.command), "the call is here")
        return await self.ring(Role.PICKUP, "pickup", rings, self.legs.customer, done, RB_CHANNEL=rings.name)

    # --- heard by others ---

    async def play(self) -> Outcome:
        own, customer = self.both()
        order = self.order
        leg = customer if order.side is Side.CUSTOMER else own
        near = "tell-both" if order.side is Side.BOTH else "tell-one"
        begun = heard("UserEvent", "Command", order.command, "it is being played", Result="playing")

        def over(event: Message) -> Outcome | None:
            if event["Event"] != "UserEvent" or event.get("Command") != order.command or "Status" not in event:
                return None
            if event["Status"] == "SUCCESS":
                return succeeded("it was played")
            return Outcome(False, Reason.FAILED, "the PBX has no such sound, or could not play it")

        with self.reports.watch(over) as whole:
            sound = order.sound or ""
            outcome = await self.aid(Role.PLAY, inner("play"), near, leg, begun, RB_LEG=leg.uid, RB_SOUND=sound)
            ended = await whole.outcome(uptime() + _MISSING_SOUND_SECONDS) if outcome.ok else None
        return ended or outcome

    async def stop(self) -> Outcome:
        plays = self.aides(Role.PLAY)
        if not plays:
            raise NotPossible("nothing is being played in this call")
        for each in plays:
            await self.end(each)
        return succeeded("it is silent again")

    async def dtmf(self) -> Outcome:
        customer = self.customer()
        for place, digit in enumerate(self.order.digits or ""):
            if place:
                await asyncio.sleep(_BETWEEN_DIGITS)
            await self.ask("PlayDTMF", Channel=customer.name, Digit=digit.upper(), Duration="150")
        return succeeded("the PBX sends the digits")

    # --- recording: of the customer's leg, so that it goes on through a transfer ---

    async def record(self) -> Outcome:
        customer = self.customer()
        running = self.aides(Role.RECORD)
        if running:
            return await self._mute("0", "it is recorded")
        name = _UNSAFE.sub("_", self.legs.call.id)[:96]
        file = f"ringbridge/{name}-{round(time.time())}.wav"
        done = begun(aide_id(Role.RECORD, self.order.command), "it is being recorded", {"file": file})
        return await self.aid(
            Role.RECORD, inner("rest"), "record", customer, done, RB_LEG=customer.uid, RB_FILE=file
        )

    async def pause(self) -> Outcome:
        return await self._mute("1", "the recording holds silence from here on")

    async def unpause(self) -> Outcome:
        return await self._mute("0", "it is recorded again")

    async def _mute(self, state: str, detail: str) -> Outcome:
        running = self._recording()
        await self.ask("MixMonitorMute", Channel=running.name, Direction="both", State=state)
        return await self._of_recording(running, detail)

    async def unrecord(self) -> Outcome:
        running = self._recording()
        outcome = await self._of_recording(running, "the recording has ended")
        await self.end(running)
        return outcome

    def _recording(self) -> Aide:
        running = self.aides(Role.RECORD)
        if not running:
            raise NotPossible("this call is not being recorded")
        return running[0]

    async def _of_recording(self, running: Aide, detail: str) -> Outcome:
        reply = await self.ask("Getvar", Channel=running.name, Variable="RB_FILE")
        return Outcome(True, Reason.DONE, detail, {"file": header(reply.headers or {}, "value")})

    # --- a supervisor ---

    async def watching(self) -> Outcome:
        own = self.own()
        order = self.order
        details = {
            Action.LISTEN: "you hear the call",
            Action.WHISPER: "the agent alone hears you",
            Action.BARGE: "both hear you",
        }
        detail = details[order.action]
        there = next((each for each in self.aides(Role.WATCH) if each.device == order.device), None)
        if there is None:
            done = begun(aide_id(Role.WATCH, order.command), detail)
            return await self.ring(Role.WATCH, order.action, own, None, done, RB_LEG=own.uid)
        await self.ask("Setvar", Channel=there.name, Variable="RB_UNTIL", Value=str(self.last))
        where = {"Context": CONTEXT, "Exten": str(order.action), "Priority": "1"}
        return await self.until(begun(there.uid, detail), "Redirect", Channel=there.name, **where)


_WAYS: Mapping[Action, Callable[[Doing], Awaitable[Outcome]]] = MappingProxyType(
    {
        Action.HOLD: Doing.hold,
        Action.RESUME: Doing.resume,
        Action.TRANSFER: Doing.transfer,
        Action.CONSULT: Doing.consult,
        Action.COMPLETE: Doing.complete,
        Action.RETURN: Doing.back,
        Action.CONFERENCE: Doing.conference,
        Action.PARK: Doing.park,
        Action.RETRIEVE: Doing.retrieve,
        Action.PICKUP: Doing.pickup,
        Action.REDIRECT: Doing.redirect,
        Action.PLAY: Doing.play,
        Action.STOP: Doing.stop,
        Action.DTMF: Doing.dtmf,
        Action.RECORD: Doing.record,
        Action.PAUSE: Doing.pause,
        Action.UNPAUSE: Doing.unpause,
        Action.UNRECORD: Doing.unrecord,
        Action.LISTEN: Doing.watching,
        Action.WHISPER: Doing.watching,
        Action.BARGE: Doing.watching,
    }
)


class Actions:
    """Carries out orders over the command user's connection, and hears of their outcomes by the other one."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.reports = Reports()
        self._under_way: set[tuple[str, Action, str | None]] = set()

    async def act(self, session: Session, order: ActionOrder) -> Outcome:
        """One action, never twice. It is over by the order's deadline."""
        last = session.pbx_time(order.until)
        if last is None:
            return Outcome(False, Reason.LINK_DOWN, "the PBX does not say its time; nothing was done")
        key = (order.call, order.action, order.device if order.action in WATCHING else None)
        if key in self._under_way:
            return Outcome(False, Reason.REFUSED, "that is being done already")
        self._under_way.add(key)
        try:
            order.check()
            legs = choose(self._tracker.book, order)
            doing = Doing(session, self._tracker, self.reports, order, legs, int(last))
            return await _WAYS[order.action](doing)
        except NotPossible as no:
            return Outcome(False, no.reason, no.detail)
        except (Invalid, LocalError) as error:
            return Outcome(False, Reason.REFUSED, error.message)
        except LinkDown as error:
            return Outcome(False, Reason.LINK_DOWN, error.message)
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)
        finally:
            self._under_way.discard(key)
