"""From AMI events to call events: a reducer without I/O and without a clock.

`hearing.HEARD` says which events are heard and which method hears each; everything else is ignored. A fault in
one event is counted and does not keep the next from being heard.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

from bridge.domain.calls import CallEventType, Directory, Expected, Remembered
from bridge.pbx.ami import transfers
from bridge.pbx.ami.aides import JOINS, Aide, Aides, Role, is_inner
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.hearing import DIAL_ACTION, HEARD, event_time, number
from bridge.pbx.ami.names import facts
from bridge.pbx.calls.book import Batch, Book
from bridge.pbx.calls.causes import own_hangup
from bridge.pbx.calls.handover import remember, restore
from bridge.pbx.calls.joining import PARKING, join
from bridge.pbx.calls.model import Call, Channel, Line
from bridge.pbx.calls.parties import Parties, dialled_number, is_withheld, known, shown

log = logging.getLogger(__name__)

_BORN = re.compile(r"[0-9]{9,11}\.[0-9]+$")
"""How the ids end that Asterisk makes: time and number."""


class Tracker:
    """The state of one PBX, as far as its events tell."""

    def __init__(self, pbx: str, trunks: tuple[str, ...] = (), directory: Directory | None = None) -> None:
        self.parties = Parties(trunks, directory or Directory())
        self.book = Book(pbx, self.parties)
        self.aides = Aides()
        """The PBX's channels for actions of ours, by id. Only those that join a call are in the book."""
        self.faults = 0
        """Events whose hearing failed."""
        self._table = {name: getattr(self, method) for name, method in HEARD.items()}

    # --- what the link asks ---

    def feed(self, messages: Iterable[Message], now: float) -> Batch:
        """Hear events in order. `now` (seconds since the epoch) stands in where an event has no time."""
        self.hear_all(messages, now)
        return self.book.take()

    def hear_all(self, messages: Iterable[Message], now: float) -> None:
        """As `feed`, but what comes of it waits in the book."""
        for message in messages:
            self.hear(message, now)

    def hear(self, message: Message, now: float) -> None:
        """Hear one event; what comes of it waits in the book."""
        method = self._table.get(message.event)
        if method is None:
            return
        try:
            method(message, event_time(message, now))
        except Exception as error:  # noqa: BLE001 - whatever one event does, the next must be heard
            self.faults += 1
            # Neither the event nor the error's text: both may hold numbers.
            log.error("event %s was not understood (%s)", message.event, type(error).__name__)

    def set_directory(self, directory: Directory) -> None:
        """Devices and numbers as the company knows them from now on."""
        self.parties.directory = directory

    def expect(self, expected: Expected) -> None:
        """A dial of ours is about to leave; its first channel will carry the attempt's id."""
        self.book.expect(expected)

    def unexpect(self, attempt: str) -> None:
        """That dial was refused; no channel will come."""
        self.book.expected.pop(attempt, None)

    def live_attempts(self) -> frozenset[str]:
        """Attempts whose call is alive."""
        return self.book.live_attempts()

    def restore(self, live: Mapping[str, str]) -> int:
        """Take over calls as `Batch.live` gave them. Returns how many could not be read."""
        return restore(self.book, live)

    def remember(self, calls: Iterable[Remembered]) -> None:
        """Calls that are open in the call history and of which no state was left."""
        remember(self.book, calls)

    # --- channels ---

    def new_channel(self, event: Message, at: float) -> None:
        uid = event["Uniqueid"]
        if uid in self.book.channels:
            return
        state = int(event.get("ChannelState", "0"))
        name = event["Channel"]
        aide = self.aides.born(event)
        joins = aide is not None and aide.role in JOINS and aide.leg != ""
        if not joins and (aide is not None or is_inner(name)):
            return
        channel = Channel(
            uid=uid,
            name=name,
            born=at,
            link=aide.leg if aide is not None else event.get("Linkedid") or uid,
            chosen=not _BORN.search(uid),
            **facts(name),
            state=state,
            number=known(event.get("CallerIDNum")),
            caller_name=known(event.get("CallerIDName")),
            exten=known(event.get("Exten")),
            outgoing=state in (Line.DOWN, Line.RINGING),
        )
        channel.trunk = channel.real and self.parties.is_trunk(channel.device)
        self._withhold(channel)
        call = self.book.add_channel(channel)
        if joins or (channel.outgoing and channel.uid == call.first and not channel.wire):
            channel.dialled = True

    def new_caller_id(self, event: Message, at: float) -> None:
        found = self._channel(event)
        if found is None:
            return
        channel, call = found
        caller_id = known(event.get("CallerIDNum"))
        restricted = is_withheld(caller_id) or "rohibited" in event.get("CID-CallingPres", "")
        if channel.outgoing:
            channel.number = channel.number or caller_id
        elif not call.started or restricted:
            channel.number, channel.caller_name = caller_id, known(event.get("CallerIDName"))
        self._withhold(channel, restricted)
        if restricted and channel.uid == call.first and call.started and not call.originated:
            call.caller = self.parties.party(channel)
        if self._is_caller(call, channel):
            self.book.start(call, at)

    def new_state(self, event: Message, at: float) -> None:
        found = self._channel(event)
        if found is None:
            return
        channel, call = found
        state = int(event.get("ChannelState", "0"))
        if channel.state == Line.UP and state in (Line.RING, Line.RINGING):
            return
        channel.state = state
        if state == Line.RINGING:
            channel.ringing = True
            # Who dialled this leg, and so whose call it is, may be said a moment later.
            if channel.dialled:
                self._offer(channel, at)
        elif state == Line.UP:
            self._answered(channel, call, at)
        elif state == Line.BUSY and self._is_caller(call, channel):
            self.book.start(call, at)

    def _answered(self, channel: Channel, call: Call, at: float) -> None:
        if channel.real and channel.outgoing:
            self.book.offer(channel, at)
            if call.originated:
                channel.accepted = True
                if call.attempt is not None and not self.book.is_agent_leg(call, channel):
                    call.customer_answered = True
        elif channel.uid == call.first:
            call.caller_answered = True
        if self._is_caller(call, channel):
            self.book.start(call, at)
        if channel.bridge is not None and channel.outgoing:
            # Somebody's application has put it there while it rang, for its early media.
            for side in dict.fromkeys(self.book.side(other) for other in self.book.reach(channel)):
                self.book.update_talk(self.book.calls[side], at)

    def rename(self, event: Message, at: float) -> None:
        channel = self.book.channels.get(event.get("Uniqueid", ""))
        name = event.get("Newname", "")
        if channel is not None and name and not name.endswith("<ZOMBIE>") and not channel.wire:
            found = facts(name)
            channel.name, channel.device = name, found["device"]
            channel.real, channel.internal = found["real"], found["internal"]

    def hangup_request(self, event: Message, at: float) -> None:
        found = self._channel(event)
        if found is None:
            return
        channel, call = found
        self.leg_wants_end(channel, call, number(event.get("Cause")), at)

    def leg_wants_end(self, channel: Channel, call: Call, cause: int | None, at: float) -> None:
        """A person hangs up (not the PBX)."""
        channel.hung_up = True
        side = self.book.calls.get(self.book.side(channel), call)
        if side.talk_since is not None:
            # Who leaves a conference does not end it, nor who has left already: they sent the others on.
            people = self.book.people(side)
            if channel.real and side.ended_by is None and channel in people and len(people) < 3:
                side.ended_by = self.book.party(channel)
        elif call.attempt is not None:
            if channel.real and channel.state == Line.UP and call.ended_by is None:
                call.ended_by = self.book.party(channel)
                call.caller_left = call.caller_left or self.book.is_agent_leg(call, channel)
        elif channel.uid == call.first and own_hangup(channel.state, cause) and not channel.outgoing:
            call.caller_left = True
            self.book.start(call, at)
            call.ended_by = call.caller
        elif channel.uid == call.first and channel.outgoing and channel.state == Line.UP:
            call.caller_left = True
            call.ended_by = self.book.party(channel) if channel.real else None

    def hangup(self, event: Message, at: float) -> None:
        aide = self.aides.gone(event.get("Uniqueid", ""))
        if aide is not None and aide.role is Role.HOLD:
            self.held_no_more(aide, at)
        found = self._channel(event)
        if found is None:
            return
        channel, call = found
        cause = number(event.get("Cause"))
        guest_of = self.book.calls.get(channel.guest_of or "")
        self.book.leave(channel)
        if channel.uid == call.first and not channel.internal:
            call.caller_cause = cause
            self.book.start(call, at)
        if call.attempt is not None and call.connected_at is not None and channel.real:
            call.deciding_cause = cause
        self.book.give_up(channel, cause, at)
        self.book.update_talk(call, at)
        self.book.drop_channel(channel)
        transfers.has_parked(self.book, channel, call, at)
        if guest_of is not None:
            guest_of.guest = None
            self.book.update_talk(guest_of, at)
        if not call.legs:
            self.book.end(call, at)

    # --- dials ---

    def dial_begin(self, event: Message, at: float) -> None:
        dialled = event.get("DestUniqueid", "")
        for birth in self.aides.placed(dialled, event.get("DestAccountCode", "")):
            self.new_channel(birth, at)
        leg = self.book.channels.get(dialled)
        if leg is None:
            return
        dialler = self.book.channels.get(event.get("Uniqueid", ""))
        leg.dialled = True
        if dialler is not None:
            leg.dialler = dialler.uid
            call = self.book.calls[self.book.side(dialler)]
            self._move(leg, call, at)
        call = self.book.calls[leg.call]
        if leg.trunk:
            caller_id = known(event.get("DestCallerIDNum"))
            leg.dialled_number = dialled_number(event.get("DialString", ""), caller_id)
        if leg.real and leg.outgoing:
            self.book.direct(call, leg)
            self.book.note_tried(call, leg)
        acts = dialler is None or self._is_caller(call, dialler) or leg.real
        if acts and not transfers.awaits_agent(call):
            self.book.start(call, at)
        if leg.ringing or leg.state == Line.UP:
            self._offer(leg, at)
        if leg.wire:
            self._offer_waiting(call, at)

    def _offer(self, leg: Channel, at: float) -> None:
        """Say that it rings, unless whose call that is will only be known in a moment."""
        if leg.state == Line.UP or not transfers.may_be_consulted(self.book, leg):
            self.book.offer(leg, at)

    def _offer_waiting(self, call: Call, at: float) -> None:
        for leg in self.book.ringing(call):
            if leg.dialled:
                self._offer(leg, at)

    def _move(self, leg: Channel, call: Call, at: float) -> None:
        """A leg belongs to the call of who dialled it; the other half of a wire goes along."""
        old = self.book.calls[leg.call]
        if old is call or leg.uid == old.first:
            return
        self.book.attach(leg, call)
        # After a gap it may have been taken for another call's.
        leg.offered = leg.offered and leg.unoffered
        other = self.book.peer(leg)
        if other is not None:
            self.book.attach(other, call)
        if not old.legs:
            self.book.fold(old, call, at)

    def dial_state(self, event: Message, at: float) -> None:
        if event.get("DialStatus") != "RINGING":
            return
        leg = self.book.channels.get(event.get("DestUniqueid", ""))
        if leg is not None and leg.outgoing:
            leg.ringing = True
            leg.dialled = True
            self._offer(leg, at)

    def dial_end(self, event: Message, at: float) -> None:
        leg = self.book.channels.get(event.get("DestUniqueid", ""))
        if leg is None:
            return
        status = event.get("DialStatus", "")
        if not leg.dial_status:
            leg.dial_status = status
        if status == "ANSWER":
            leg.dialled = True
            call = self.book.calls[leg.call]
            call.answer_seen = True
            if leg.real and leg.outgoing:
                self.book.offer(leg, at)

    def originate_response(self, event: Message, at: float) -> None:
        """A dial of ours for which the PBX could not even make a channel, as without our dialplan."""
        action = event.get("ActionID", "")
        if event.get("Response") == "Failure" and action.startswith(DIAL_ACTION):
            self.book.refuse(action.removeprefix(DIAL_ACTION), at)

    def user_event(self, event: Message, at: float) -> None:
        """Our dialplan says that somebody is held, or that a leg came to nothing: where none was, nothing else does."""
        if event.get("UserEvent") != "Ringbridge":
            return
        aide = self.aides.get(event.get("Uniqueid", ""))
        if aide is not None and aide.role is Role.HOLD and event.get("Result") == "held":
            self.held_by(aide, at)
        if event.get("Result") != "over":
            return
        found = self._channel(event)
        if found is None or found[1].attempt is None or found[1].attempt != event.get("Attempt"):
            return
        status, cause = event.get("DialStatus", ""), number(event.get("Cause"))
        self.book.without_leg(found[1], event.get("Leg") == "agent", status, cause, at)

    # --- bridges ---

    def bridge_enter(self, event: Message, at: float) -> None:
        found = self._channel(event)
        if found is None:
            return
        channel, call = found
        book = self.book
        kind = event.get("BridgeType", "basic")
        if channel.bridge == event["BridgeUniqueid"]:
            return
        before = book.side(channel)
        swapped = book.channels.get(event.get("SwapUniqueid", ""))
        if swapped is not None:
            book.leave(swapped)
        transfers.begin_consultation(book, channel)
        book.enter(channel, event["BridgeUniqueid"], kind)
        if channel.parked and kind != "parking":
            # Someone fetches the parked caller: that needs no `transferred` of its own.
            call.transferred_by = PARKING
        channel.parked = kind == "parking"
        if channel.parked:
            transfers.sent_to_park(book, channel, at)
        else:
            channel.sent_on, channel.slot, channel.sent_by = False, "", ""
        join(book, channel, at)
        if call.transferred_by == PARKING and len(book.people(call)) > 1:
            # Fetched by a leg of its own call: nothing is merged.
            call.transferred_by = None
        touched = dict.fromkeys((before, channel.call, book.side(channel)))
        touched.update(dict.fromkeys(book.side(other) for other in book.reach(channel)))
        for call_id in touched:
            if call_id in book.calls:
                book.update_talk(book.calls[call_id], at)
                self._offer_waiting(book.calls[call_id], at)

    def parked_call(self, event: Message, at: float) -> None:
        """Who parked it, and where; it comes before or after the parked one enters its bridge."""
        channel = self.book.channels.get(event.get("ParkeeUniqueid", ""))
        if channel is None:
            return
        channel.slot, channel.sent_by = event.get("ParkingSpace", ""), event.get("ParkerDialString", "")
        if channel.parked:
            transfers.sent_to_park(self.book, channel, at)

    def bridge_leave(self, event: Message, at: float) -> None:
        found = self._channel(event)
        if found is None:
            return
        channel, call = found
        if channel.bridge != event.get("BridgeUniqueid"):
            return
        book = self.book
        sides = dict.fromkeys([call.id, book.side(channel), *(book.side(o) for o in book.reach(channel))])
        book.leave(channel)
        for call_id in sides:
            if call_id in book.calls:
                book.update_talk(book.calls[call_id], at)

    # --- queues and holds ---

    def queue_join(self, event: Message, at: float) -> None:
        found = self._channel(event)
        if found is None:
            return
        _, call = found
        if call.queue == event.get("Queue"):
            return
        self.book.start(call, at)
        call.queue = event.get("Queue", "")
        call.answer_seen = False
        position = number(event.get("Position"))
        self.book.emit(call, CallEventType.QUEUED, at, {"queue": call.queue, "position": position})

    def queue_abandon(self, event: Message, at: float) -> None:
        found = self._channel(event)
        # Asterisk says the same of a caller whose time in the queue is over.
        if found is not None and found[0].hung_up:
            found[1].abandoned = True

    def queue_leave(self, event: Message, at: float) -> None:
        found = self._channel(event)
        if found is None or found[1].queue is None:
            return
        _, call = found
        if call.abandoned:
            reason = "abandoned"
        elif call.answer_seen:
            reason = "answered"
        else:
            reason = "timeout"
        self.book.emit(call, CallEventType.UNQUEUED, at, {"queue": call.queue, "reason": reason})
        call.queue = None

    def hold(self, event: Message, at: float) -> None:
        found = self._channel(event)
        if found is None or found[0].held:
            return
        channel, call = found
        channel.held = True
        self.book.start(call, at)
        self.book.emit(call, CallEventType.HELD, at, {"by": shown(self.book.party(channel))})

    def unhold(self, event: Message, at: float) -> None:
        found = self._channel(event)
        # A transfer by the phone takes a hold back that never was.
        if found is None or not found[0].held or found[0].holder:
            return
        channel, call = found
        channel.held = False
        self.book.emit(call, CallEventType.RESUMED, at, {"by": shown(self.book.party(channel))})

    def held_by(self, aide: Aide, at: float) -> None:
        """A channel of ours holds whom this leg talks with."""
        own = self.book.channels.get(aide.leg)
        if own is None:
            return
        own.holder = aide.uid
        if not own.held:
            own.held = True
            call = self.book.calls[own.call]
            self.book.start(call, at)
            self.book.emit(call, CallEventType.HELD, at, {"by": shown(self.book.party(own))})

    def held_no_more(self, aide: Aide, at: float) -> None:
        """That channel is gone."""
        own = self.book.channels.get(aide.leg)
        if own is None or own.holder != aide.uid:
            return
        own.holder, own.held = "", False
        call = self.book.calls[own.call]
        self.book.emit(call, CallEventType.RESUMED, at, {"by": shown(self.book.party(own))})

    # --- transfers ---

    def blind_transfer(self, event: Message, at: float) -> None:
        if event.get("Result") == "Success":
            transfers.blind(self.book, event, at)

    def attended_transfer(self, event: Message, at: float) -> None:
        if event.get("Result") == "Success":
            transfers.attended(self.book, event, at)

    def pickup(self, event: Message, at: float) -> None:
        transfers.pickup(self.book, event, at)

    # --- small things ---

    def _channel(self, event: Message) -> tuple[Channel, Call] | None:
        channel = self.book.channels.get(event.get("Uniqueid", ""))
        if channel is None:
            return None
        return channel, self.book.calls[channel.call]

    def _is_caller(self, call: Call, channel: Channel) -> bool:
        if channel.uid == call.first:
            return True
        other = self.book.peer(channel)
        return other is not None and other.uid == call.first

    def _withhold(self, channel: Channel, restricted: bool = False) -> None:
        if restricted or is_withheld(channel.number):
            channel.withheld = True
        if channel.withheld and not channel.outgoing:
            channel.number = channel.caller_name = None
