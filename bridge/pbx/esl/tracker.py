"""From FreeSWITCH's events to call events: a reducer without I/O and without a clock.

`hearing.HEARD` and `hearing.HEARD_CUSTOM` say which events are heard and which method hears each; everything else is
ignored. A fault in one event is counted and does not keep the next from being heard.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

from bridge.domain.calls import CallEventType, Directory, Expected, Remembered
from bridge.pbx.calls.book import Batch, Book
from bridge.pbx.calls.handover import remember, restore
from bridge.pbx.calls.joining import join
from bridge.pbx.calls.model import CONFERENCE, Call, Channel, Line
from bridge.pbx.calls.parties import Parties, shown
from bridge.pbx.esl import queues, transfers
from bridge.pbx.esl.causes import CANCELLED, NORMAL, PATIENCE, PICKED_OFF, TAKEN, hangup_cause, q850
from bridge.pbx.esl.channels import born, new_channel
from bridge.pbx.esl.hearing import CUSTOM, DIAL_JOB, HEARD, HEARD_CUSTOM, Event, event_time, resumes

log = logging.getLogger(__name__)

ATTEMPT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TWICE = "LOSE_RACE"
"""What our fence answers to a command that came before: it dialled nothing now, and the first one may be ringing."""
_LEFT = frozenset({"recv_bye", "recv_cancel"})
"""What a leg's end is called where the phone itself brought it about."""
_MAX_GONE = 10_000


class Tracker:
    """The state of one PBX, as far as its events tell."""

    def __init__(self, pbx: str, trunks: tuple[str, ...] = (), directory: Directory | None = None) -> None:
        self.parties = Parties(trunks, directory or Directory())
        self.book = Book(pbx, self.parties)
        self.faults = 0
        """Events whose hearing failed."""
        self._gone: dict[str, float | None] = {}
        """Channels that have ended lately, and when they were born: whatever is still said of them is an echo."""
        self._table = {name: getattr(self, method) for name, method in HEARD.items()}
        self._custom = {name: getattr(self, method) for name, method in HEARD_CUSTOM.items()}

    # --- what the link asks ---

    def feed(self, events: Iterable[Event], now: float) -> Batch:
        """Hear events in order. `now` (seconds since the epoch) stands in where an event has no time."""
        self.hear_all(events, now)
        return self.book.take()

    def hear_all(self, events: Iterable[Event], now: float) -> None:
        """As `feed`, but what comes of it waits in the book."""
        for event in events:
            self.hear(event, now)

    def hear(self, event: Event, now: float) -> None:
        """Hear one event; what comes of it waits in the book."""
        name = event.get("Event-Name", "")
        if name == CUSTOM:
            name = event.get("Event-Subclass", "")
            method = self._custom.get(name)
        else:
            method = self._table.get(name)
        if method is None:
            return
        try:
            method(event, event_time(event, now))
        except Exception as error:  # noqa: BLE001 - whatever one event does, the next must be heard
            self.faults += 1
            # Neither the event nor the error's text: both may hold numbers.
            log.error("event %s was not understood (%s)", name, type(error).__name__)

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

    def new_channel(self, event: Event, at: float) -> None:
        if event["Unique-ID"] in self.book.channels:
            return
        channel = new_channel(event, self.parties, at)
        if self._gone.get(channel.uid) == channel.born:
            # FreeSWITCH's event threads overtake each other. Born at another time it is a Call-ID that came again.
            return
        if channel.link in self._gone and "Hangup-Cause" in event:
            # Ended before its birth was told, and its caller with it: each channel has a thread of its own to tell.
            return
        self._own(event, channel)
        transfers.comes_back(self.book, channel, event)
        originator = self.book.channels.get(channel.link)
        asked_in = bool(channel.role)
        consults = originator is not None and channel.outgoing and not asked_in and self._talks(originator)
        if originator is not None and consults and transfers.moved(originator, event):
            # The end of its talk is still on its way.
            for other in [*self.book.reach(originator)[1:], originator]:
                self.part(other, at)
            consults = False
        call = self.book.add_channel(channel)
        far = self.book.peer(channel)
        if originator is not None and far is not None and call.first == far.uid and call.id != originator.call:
            # A wire's far half may be told first, and seems to begin a call then.
            self.book.fold(call, self.book.calls[originator.call], at)
            call = self.book.calls[originator.call]
        if originator is None:
            if channel.uid == call.first and call.attempt is not None:
                self.book.start(call, at)
        elif consults:
            transfers.consult(self.book, originator, channel, at)
        elif not asked_in:
            if originator.guest_of is not None:
                self.book.attach(channel, self.book.calls[self.book.side(originator)])
            transfers.dials_on(self.book, originator, event, at)
        channel.dialled = channel.outgoing
        if channel.link != channel.uid and channel.real and channel.outgoing:
            call = self.book.calls[channel.call]
            channel.dialler = channel.link
            self.book.direct(call, channel)
            self.book.note_tried(call, channel)
            self.book.start(call, at)

    def _own(self, event: Event, channel: Channel) -> None:
        """A dial of ours of which this process knows nothing more, as after a restart: its first channel's id is it."""
        attempt = event.get("variable_rb_attempt", "")
        known = attempt in self.book.expected or attempt in self.book.links
        if channel.link in (attempt, channel.uid) and not known and ATTEMPT.fullmatch(attempt):
            self.book.expect(Expected(attempt=attempt))

    def _talks(self, channel: Channel) -> bool:
        """Whether this leg is connected with somebody; who dials then consults."""
        return channel.real and any(
            other.real and other is not channel for other in self.book.reach(channel, conferences=False)
        )

    def progress(self, event: Event, at: float) -> None:
        found = self._channel(event, at)
        if found is None:
            return
        channel, call = found
        if channel.outgoing:
            # Early media alone may as well be an announcement.
            if event.get("Event-Name") == "CHANNEL_PROGRESS" and channel.state != Line.UP:
                channel.state = Line.RINGING
                channel.ringing = True
                self.book.offer(channel, at)
        elif self._is_caller(call, channel):
            self.book.start(call, at)

    def answer(self, event: Event, at: float) -> None:
        found = self._channel(event, at)
        if found is None:
            return
        channel, call = found
        channel.state = Line.UP
        if channel.real and channel.outgoing:
            self.book.offer(channel, at)
            if channel.uid != call.first:
                call.answer_seen = True
            transfers.picks_up(self.book, channel)
            if call.originated:
                channel.accepted = True
                if call.attempt is not None and not self.book.is_agent_leg(call, channel):
                    call.customer_answered = True
        elif channel.uid == call.first:
            call.caller_answered = True
        if self._is_caller(call, channel):
            self.book.start(call, at)
        if channel.bridge is not None and channel.outgoing:
            # Early media has joined it with its caller before.
            self._update(self._sides(channel), at)

    def hangup(self, event: Event, at: float) -> None:
        found = self._channel(event, at)
        if found is None:
            if not self.has_ended(uid := event.get("Unique-ID", "")):
                self.heard_last(uid, born(event, at))
            return
        channel, call = found
        name = event.get("Hangup-Cause", "")
        cause = hangup_cause(event)
        disposition = event.get("variable_sip_hangup_disposition")
        if name in CANCELLED or (disposition == "send_cancel" and name not in PATIENCE):
            channel.dial_status = "CANCEL"
            cause = NORMAL
        channel.picked_up = channel.picked_up or name in TAKEN
        if name == PICKED_OFF and call.picked_off is None and channel.real:
            call.picked_off = self.book.party(channel)
        transfers.on_hangup(self.book, channel, event, at)
        if disposition in _LEFT:
            self.leg_wants_end(channel, call, cause, at)
        self.gone(channel, cause, at)

    def leg_wants_end(self, channel: Channel, call: Call, cause: int | None, at: float) -> None:
        """A person hangs up (not the PBX)."""
        channel.hung_up = True
        book = self.book
        consultation = book.calls.get(channel.consults)
        if consultation is not None and consultation.connected_at is None:
            consultation.caller_left, consultation.caller_cause = True, cause
            consultation.ended_by = book.party(channel)
        for other in book.reach(channel):
            other.deserted = other is not channel
        side = book.calls.get(book.side(channel), call)
        if side.connected_at is not None:
            # Who leaves while others go on talking does not end the call.
            people = book.people(side)
            ends = side.talk_since is None or (channel in people and len(people) < 3)
            # A caller who is left alone and then hangs up has ended it: in a menu, or sent on and unanswered.
            last = side.talk_since is None and channel.uid == side.first
            if channel.real and ends and (side.ended_by is None or last):
                side.ended_by = book.party(channel)
        elif call.attempt is not None:
            if channel.real and channel.state == Line.UP and call.ended_by is None:
                call.ended_by = book.party(channel)
                call.caller_left = call.caller_left or book.is_agent_leg(call, channel)
        elif channel.uid == call.first and (not channel.outgoing or channel.state == Line.UP):
            call.caller_left = True
            book.start(call, at)
            call.ended_by = book.party(channel) if channel.outgoing else call.caller

    def gone(self, channel: Channel, cause: int | None, at: float) -> None:
        """A channel is no more."""
        book = self.book
        self.heard_last(channel.uid, channel.born)
        call = book.calls[channel.call]
        if channel.internal:
            book.forget(call)
            return
        guest_of = book.calls.get(channel.guest_of or "")
        sides = self._sides(channel)
        self._note_gone(channel)
        book.leave(channel)
        if channel.uid == call.first and not (call.consultation and call.caller_left):
            call.caller_cause = cause
            book.start(call, at)
        if call.attempt is not None and call.connected_at is not None and channel.real:
            call.deciding_cause = cause
        book.give_up(channel, cause, at)
        book.drop_channel(channel)
        if guest_of is not None:
            guest_of.guest = None
        self._update(sides, at)
        for leg in queues.left_behind(book, call):
            self.heard_last(leg.uid, leg.born)
            book.give_up(leg, None, at)
            book.drop_channel(leg)
        if not call.legs and call.id in book.calls:
            book.end(call, at)

    def heard_last(self, uid: str, birth: float | None = None) -> None:
        """Whatever is still said of that channel does not bring it back."""
        self._gone[uid] = birth
        if len(self._gone) > _MAX_GONE:
            del self._gone[next(iter(self._gone))]

    def lives(self, uid: str) -> None:
        """The PBX says so, whatever was heard before."""
        self._gone.pop(uid, None)

    def has_ended(self, uid: str) -> bool:
        """Whether that channel was heard to end lately."""
        return uid in self._gone

    # --- bridges ---

    def bridge(self, event: Event, at: float) -> None:
        self._channel(event, at)
        first = event.get("Bridge-A-Unique-ID") or event.get("Unique-ID", "")
        second = event.get("Bridge-B-Unique-ID") or event.get("Other-Leg-Unique-ID", "")
        transfers.rerouted(self.book, event, at)
        pair = [self.book.channels[uid] for uid in (first, second) if uid in self.book.channels]
        self.meet(pair, f"{first}/{second}", "basic", at)

    def meet(self, members: list[Channel], bridge_id: str, kind: str, at: float) -> None:
        """Channels come together in a bridge."""
        book = self.book
        fresh = [channel for channel in members if channel.bridge != bridge_id]
        if not fresh:
            return
        sides = dict.fromkeys(side for channel in fresh for side in self._sides(channel))
        for channel in fresh:
            book.enter(channel, bridge_id, kind)
            channel.deserted = channel.sent_on = False
        transfers.before_join(book, members, at)
        for channel in members:
            join(book, channel, at)
        for channel in members:
            sides.update(dict.fromkeys(self._sides(channel)))
        self._update(sides, at)
        for call_id in sides:
            call = book.calls.get(call_id)
            if call is not None:
                call.consulted_by = call.picked_off = None

    def unbridge(self, event: Event, at: float) -> None:
        first, second = event.get("Bridge-A-Unique-ID", ""), event.get("Bridge-B-Unique-ID", "")
        transfers.on_unbridge(self.book, event, at)
        for uid in (first, second):
            channel = self.book.channels.get(uid)
            if channel is not None and channel.bridge == f"{first}/{second}":
                self.part(channel, at)

    def part(self, channel: Channel, at: float) -> None:
        """A channel leaves its bridge and lives on."""
        sides = self._sides(channel)
        self._note_gone(channel)
        self.book.leave(channel)
        self._update(sides, at)

    def _note_gone(self, channel: Channel) -> None:
        side = self.book.calls[self.book.side(channel)]
        people = self.book.people(side)
        if channel in people and len(people) > 1:
            side.last_gone = self.book.party(channel)

    def _sides(self, channel: Channel) -> list[str]:
        """The calls that a change at this channel may concern."""
        book = self.book
        return list(dict.fromkeys([channel.call, *(book.side(other) for other in book.reach(channel))]))

    def _update(self, sides: Iterable[str], at: float) -> None:
        for call_id in sides:
            call = self.book.calls.get(call_id)
            if call is not None:
                self.book.update_talk(call, at)

    # --- queues, conferences, holds ---

    def callcenter(self, event: Event, at: float) -> None:
        transfers.rerouted(self.book, event, at)
        queues.hear(self.book, event, at)

    def conference(self, event: Event, at: float) -> None:
        channel = self.book.channels.get(event.get("Unique-ID", ""))
        if channel is None:
            return
        transfers.rerouted(self.book, event, at)
        room = f"conference/{event.get('Conference-Unique-ID') or event.get('Conference-Name', '')}"
        match event.get("Action"):
            case "add-member":
                self.book.start(self.book.calls[channel.call], at)
                self.meet([channel], room, CONFERENCE, at)
            case "del-member" if channel.bridge == room:
                self.part(channel, at)

    def hold(self, event: Event, at: float) -> None:
        found = self._channel(event, at)
        if found is None or found[0].held:
            return
        channel, call = found
        channel.held = True
        self.book.start(call, at)
        self.book.emit(call, CallEventType.HELD, at, {"by": shown(self.book.party(channel))})

    def unhold(self, event: Event, at: float) -> None:
        found = self._channel(event, at)
        if found is None or not found[0].held:
            return
        channel, call = found
        channel.held = False
        if not resumes(event):
            return
        self.book.emit(call, CallEventType.RESUMED, at, {"by": shown(self.book.party(channel))})

    # --- transfers ---

    def transferor(self, event: Event, at: float) -> None:
        transfers.transferor(self.book, event, at)

    def transferee(self, event: Event, at: float) -> None:
        transfers.rerouted(self.book, event, at)

    def replaced(self, event: Event, at: float) -> None:
        transfers.replaced(self.book, event)

    def intercepted(self, event: Event, at: float) -> None:
        transfers.intercepted(self.book, event)

    def valet_parking(self, event: Event, at: float) -> None:
        transfers.rerouted(self.book, event, at)
        transfers.parked(self.book, event, at)

    # --- our own dials ---

    def background_job(self, event: Event, at: float) -> None:
        """A dial of ours that came to nothing; where there never was a channel, nothing else says so."""
        result, _, cause = event.get("_body", "").strip().partition(" ")
        attempt = event.get("Job-UUID", "").removeprefix(DIAL_JOB)
        if result == "-ERR" and cause != TWICE:
            self.book.refuse(attempt, at, q850(cause))
        elif result == "-USAGE:":
            # Without its expansion or its hash the PBX finds nothing to dial.
            self.book.refuse(attempt, at)

    def own_dial(self, event: Event, at: float) -> None:
        """Our dialplan says that a leg came to nothing; where there never was one, nothing else does."""
        if event.get("Ringbridge-Result") != "over":
            return
        attempt = event.get("Ringbridge-Attempt", "")
        call = self.book.calls.get(self.book.links.get(attempt, ""))
        if call is None or call.attempt is None or call.attempt != attempt:
            return
        agent = event.get("Ringbridge-Leg") == "agent"
        self.book.without_leg(call, agent, "", q850(event.get("Ringbridge-Cause", "")), at)

    # --- small things ---

    def _channel(self, event: Event, at: float) -> tuple[Channel, Call] | None:
        uid = event.get("Unique-ID", "")
        if uid not in self.book.channels:
            self._late(event, at)
        channel = self.book.channels.get(uid)
        if channel is None:
            return None
        return channel, self.book.calls[channel.call]

    def _late(self, event: Event, at: float) -> None:
        """Take in a channel that acts and whose birth was not heard.

        FreeSWITCH's own tables run a third of a second behind, so a snapshot may miss what began just before it. A leg
        whose caller was missed too waits for it, or for the second look: by itself it would be another call.
        """
        origin = event.get("variable_originating_leg_uuid", "")
        if origin and origin not in self.book.links and origin not in self._gone:
            return
        alive = event.get("Call-Direction") and "Hangup-Cause" not in event
        if alive and event.get("Unique-ID") not in self._gone:
            self.new_channel(event, at)
            self._joined_unseen(event.get("Unique-ID", ""), at)

    def _joined_unseen(self, uid: str, at: float) -> None:
        """Who is taken in late may have been bridged already, with somebody who was known."""
        for bridge in list(self.book.bridges.values()):
            for known in list(bridge.members):
                # An id that a caller chose may hold a stroke itself.
                pair = next((pair for pair in ((known, uid), (uid, known)) if "/".join(pair) == bridge.id), ())
                members = [self.book.channels[one] for one in pair if one in self.book.channels]
                if len(members) > 1:
                    self.meet(members, bridge.id, bridge.type, at)

    def _is_caller(self, call: Call, channel: Channel) -> bool:
        if channel.uid == call.first:
            return True
        other = self.book.peer(channel)
        return other is not None and other.uid == call.first
