"""The calls that are alive, and what is said of them: every call event is written here, numbered and in order.

No PBX's event names occur in this module; each PBX's `tracker` reads them and calls these methods.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.domain.calls import CallEvent, CallEventType, Cause, Direction, Expected, Party
from bridge.pbx.calls.causes import end_cause, unoffered_reason, without_leg_reason
from bridge.pbx.calls.lines import Lines
from bridge.pbx.calls.model import Bridge, Call, Channel, Line
from bridge.pbx.calls.model import dump as dump_call
from bridge.pbx.calls.parties import Parties, shown
from bridge.pbx.calls.recall import Recalled, go_on

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
MAX_EXPECTED = 10_000


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of some of a PBX's events: call events in order, and the state to keep of each call touched."""

    events: list[CallEvent]
    live: Mapping[str, str | None]


_NOTHING = Batch([], {})


class Book(Lines):
    """The calls over the lines, and the events not yet taken."""

    def __init__(self, pbx: str, parties: Parties) -> None:
        super().__init__()
        self.pbx = pbx
        self.parties = parties
        self.calls: dict[str, Call] = {}
        self.links: dict[str, str] = {}
        self.expected: dict[str, Expected] = {}
        self.recalled = Recalled()
        self._events: list[CallEvent] = []
        self._touched: dict[str, None] = {}

    # --- what happened since the last look ---

    @property
    def has_news(self) -> bool:
        """Whether something was written since the last take."""
        return bool(self._touched)

    def take(self) -> Batch:
        """The events since the last take, and the state of each call they speak of.

        What changed without an event is not kept: a resync finds it again.
        """
        if not self._touched:
            return _NOTHING
        events, self._events = self._events, []
        touched, self._touched = self._touched, {}
        return Batch(events, {call: self.dump(call) for call in touched})

    def emit(self, call: Call, kind: CallEventType, at: float, data: Mapping[str, Any]) -> None:
        call.seq += 1
        call.last = max(call.last, at)
        self._touched[call.id] = None
        self._events.append(CallEvent(kind, self.pbx, moment(at), call.id, call.seq, data))

    def dump(self, call_id: str) -> str | None:
        """A call's whole state as JSON, None where it is over."""
        call = self.calls.get(call_id)
        if call is None:
            return None
        channels = [self.channels[uid] for uid in call.legs]
        ids = dict.fromkeys(channel.bridge for channel in channels)
        bridges = [
            Bridge(id, self.bridges[id].type, [uid for uid in self.bridges[id].members if uid in call.legs])
            for id in ids
            if id is not None and id in self.bridges
        ]
        return dump_call(call, channels, bridges)

    def expect(self, expected: Expected) -> None:
        """A dial of ours is about to leave; its first channel will carry the attempt's id."""
        self.expected[expected.attempt] = expected
        while len(self.expected) > MAX_EXPECTED:
            del self.expected[next(iter(self.expected))]

    def live_attempts(self) -> frozenset[str]:
        """Attempts whose call is alive."""
        return frozenset(call.attempt for call in self.calls.values() if call.attempt)

    # --- channels ---

    def add_channel(self, channel: Channel) -> Call:
        """Take a new channel in: to the call its link names, else to a new one."""
        self.add_line(channel)
        call = self.calls.get(self.links.get(channel.link, ""))
        other = self.peer(channel)
        if other is not None:
            call = self.calls[other.call]
        elif channel.uid == channel.link:
            # A chosen id may come again while its call lives on without that channel: another call all the same.
            call = None
        if call is None:
            call = self._open(channel)
        self.attach(channel, call)
        return call

    def attach(self, channel: Channel, call: Call) -> None:
        """Make the channel a leg of that call, and no longer of another."""
        old = self.calls.get(channel.call)
        if old is call:
            return
        if old is not None and channel.uid in old.legs:
            old.legs.remove(channel.uid)
        channel.call = call.id
        call.legs.append(channel.uid)
        self.recalled.recognise(channel, call)
        if self.links.setdefault(channel.uid, call.id) == call.id and channel.uid not in call.links:
            call.links.append(channel.uid)

    def _open(self, channel: Channel) -> Call:
        expected = self.expected.pop(channel.uid, None) or self.expected.pop(channel.link, None)
        # An id that the PBX did not make itself may come again after its call has ended; ours comes once.
        ours = expected is not None and expected.agent_device is not None
        again = "" if ours or not channel.chosen else f"-{round(channel.born * 1000)}"
        named = expected.attempt if expected is not None else channel.uid
        known = self.recalled.find((self._base(named), self._base(channel.link)), channel.born)
        call_id = self.call_id(named + again) if known is None else known.id
        call = Call(call_id, channel.uid, channel.born, originated=channel.outgoing)
        if expected is not None:
            self._expect(call, expected)
        if known is not None:
            go_on(call, known)
        self.calls[call_id] = call
        for link in dict.fromkeys((channel.link, channel.uid)):
            if self.links.setdefault(link, call_id) == call_id:
                call.links.append(link)
        return call

    def call_id(self, uid: str) -> str:
        base = self._base(uid)
        call_id, again = base, 1
        while call_id in self.calls:
            again += 1
            call_id = f"{base}-{again}"
        return call_id

    def _base(self, uid: str) -> str:
        return _UNSAFE.sub("_", f"{self.pbx}-{uid}")[:96]

    def _expect(self, call: Call, expected: Expected) -> None:
        call.originated = True
        call.attempt = expected.attempt
        call.callback = expected.callback
        call.campaign = expected.campaign
        call.client = expected.client
        call.agent = expected.agent
        call.agent_device = expected.agent_device
        call.agent_first = expected.agent_first
        call.expected_number = expected.number
        call.direction = Direction.OUTBOUND
        if expected.agent_device:
            call.caller = self.parties.inside(expected.agent_device, expected.agent)
        call.callee = Party(number=expected.number) if expected.number else None

    def refuse(self, attempt: str, at: float, cause: int | None = None) -> None:
        """A dial of ours that never became a channel is still a call that ended.

        With a `cause` the PBX had tried, and the first leg is what failed.
        """
        expected = self.expected.pop(attempt, None)
        if expected is None:
            return
        call = Call(self.call_id(attempt), attempt, at, originated=True)
        self._expect(call, expected)
        self.calls[call.id] = call
        if cause is not None:
            self.without_leg(call, expected.agent_first, "", cause, at)
        self.end(call, at)

    # --- a call's life ---

    def party(self, channel: Channel) -> Party:
        """The person at a channel's end, with what our own dial knows of them."""
        call = self.calls.get(channel.call)
        party = self.parties.party(channel)
        if call is None or call.attempt is None:
            return party
        if self.is_agent_leg(call, channel):
            return Party(party.device, party.extension, party.number, party.name, call.agent or party.agent)
        if channel.outgoing and channel.trunk:
            return Party(party.device, None, call.expected_number or party.number)
        return party

    @staticmethod
    def is_agent_leg(call: Call, channel: Channel) -> bool:
        """Whether this is the leg to the agent of our own dial."""
        if not channel.real:
            return False
        if channel.part:
            return channel.part == "agent"
        if call.agent_device is None or call.agent_device.startswith(("Local/", "loopback/")):
            # Which phone that is was not said: the one inside.
            return not channel.trunk
        return channel.device == call.agent_device

    def start(self, call: Call, at: float) -> None:
        """Publish the call's start, once, with the time of its birth."""
        if call.started:
            return
        first = self.channels.get(call.first)
        if first is not None and first.internal:
            return
        if first is not None and first.real and not call.originated and not call.consultation:
            call.caller = self.parties.party(first)
            call.callee = self.parties.dialled(first.exten, outside=first.trunk)
            if first.trunk:
                call.direction = Direction.INBOUND
                call.client = self.parties.client(first.exten)
        self.emit(
            call,
            CallEventType.STARTED,
            call.born,
            {
                "direction": call.direction,
                "from": shown(call.caller),
                "to": shown(call.callee),
                "attempt": call.attempt,
                "callback": call.callback,
                "campaign": call.campaign,
                "client": call.client,
            },
        )

    def direct(self, call: Call, leg: Channel) -> None:
        """Learn direction, from and to of a call from a leg that it dials."""
        if (call.attempt is not None and call.agent_device is not None) or not leg.real:
            return
        party = self.parties.party(leg)
        if call.direction is None and (leg.trunk or not call.originated):
            call.direction = Direction.OUTBOUND if leg.trunk else Direction.INTERNAL
        if call.originated:
            if leg.trunk and call.callee is None:
                call.callee = Party(number=party.number, withheld=party.withheld)
            elif not leg.trunk and call.caller is None:
                call.caller = party
            elif not leg.trunk and call.callee is None and call.caller and call.caller.device != party.device:
                call.callee = party
                call.direction = call.direction or Direction.INTERNAL
        elif call.callee is None or (call.callee.extension and call.callee.extension == party.extension):
            call.callee = party

    def offer(self, leg: Channel, at: float) -> None:
        """Someone's phone rings (or was answered without ringing)."""
        call = self.calls.get(leg.call)
        if call is None or leg.offered or not leg.real or not leg.outgoing:
            return
        if self._rings_too(call, leg):
            leg.offered = True
            return
        self.direct(call, leg)
        self.start(call, at)
        leg.offered = call.offered = True
        self.note_tried(call, leg)
        self.emit(call, CallEventType.OFFERED, at, {"party": shown(self.party(leg))})

    def _rings_too(self, call: Call, leg: Channel) -> bool:
        """Whether the same phone's other leg has been offered: one with two registrations rings once."""
        return not leg.trunk and any(
            other is not leg and other.device == leg.device and other.offered and not other.unoffered
            for other in self.live_legs(call)
        )

    def give_up(self, leg: Channel, cause: int | None, at: float) -> None:
        """A leg ends without having been accepted."""
        call = self.calls.get(leg.call)
        if call is None or leg.accepted or leg.unoffered or not leg.real or not leg.outgoing:
            return
        if self._rings_too(call, leg):
            leg.unoffered = True
            return
        self.direct(call, leg)
        self.start(call, at)
        leg.unoffered = call.offered = True
        self.note_tried(call, leg)
        reason = unoffered_reason(leg, cause, call)
        if call.attempt is not None:
            customer = not self.is_agent_leg(call, leg)
            if customer or not call.deciding_customer:
                call.deciding, call.deciding_cause, call.deciding_customer = reason, cause, customer
        self.emit(call, CallEventType.UNOFFERED, at, {"party": shown(self.party(leg)), "reason": reason})

    def note_tried(self, call: Call, leg: Channel) -> None:
        """A leg of a dial of ours showed itself."""
        if call.attempt is None or not leg.real:
            return
        if self.is_agent_leg(call, leg):
            call.agent_tried = True
        else:
            call.customer_tried = True

    def without_leg(self, call: Call, agent: bool, dial_status: str, cause: int | None, at: float) -> None:
        """The PBX gave one side of a dial of ours up without making a leg: unregistered, unknown, no way there."""
        if call.agent_tried if agent else call.customer_tried:
            return
        party = Party(number=call.expected_number)
        if agent:
            if call.agent_device is None:
                return
            party = self.parties.inside(call.agent_device, call.agent)
            call.agent_tried = True
        else:
            call.customer_tried = True
        self.start(call, at)
        call.offered = True
        reason = without_leg_reason(dial_status, cause)
        if not agent or not call.deciding_customer:
            call.deciding, call.deciding_cause, call.deciding_customer = reason, cause, not agent
        self.emit(call, CallEventType.UNOFFERED, at, {"party": shown(party), "reason": reason})

    def end(self, call: Call, at: float, cause: Cause | None = None) -> None:
        """The last word on a call; it is forgotten with it. `cause` is given where the end was not seen."""
        if not call.started:
            self.start(call, at)
        if call.started:
            self.pause(call, at)
            found, q850 = end_cause(call)
            if call.direction is None and call.caller is not None and call.caller.extension:
                call.direction = Direction.INTERNAL
            answered_by = None
            if call.connected_at is not None:
                answered_by = "person"
            elif call.caller_answered and not call.originated:
                answered_by = "pbx"
            waited = (call.connected_at if call.connected_at is not None else at) - call.born
            self.emit(
                call,
                CallEventType.ENDED,
                at,
                {
                    "cause": cause or found,
                    "q850": None if cause else q850,
                    "direction": call.direction,
                    "from": shown(call.caller),
                    "to": shown(call.callee),
                    "answered_by": answered_by,
                    "wait_ms": max(0, round(waited * 1000)),
                    "talk_ms": max(0, round(call.talk_seconds * 1000)),
                    "ended_by": shown(call.ended_by),
                },
            )
        self.forget(call)

    def merge(self, call: Call, into: Call, at: float) -> None:
        """The conversation goes on as `into`; every leg goes along."""
        self.start(call, at)
        self.start(into, at)
        self._hand_over(call, into)
        into.offered = into.offered or call.offered
        self.emit(call, CallEventType.MERGED, at, {"into": into.id})
        self.forget(call)

    def fold(self, call: Call, into: Call, at: float) -> None:
        """It turns out that what seemed a call of its own is part of another; mostly nobody has been told of it yet."""
        if call.started:
            self.merge(call, into, at)
            return
        self._hand_over(call, into)
        self.forget(call)

    def _hand_over(self, call: Call, into: Call) -> None:
        for uid in list(call.legs):
            self.attach(self.channels[uid], into)
        guest = self.channels.get(call.guest or "")
        if guest is not None:
            guest.guest_of = None
        for link in call.links:
            self.links[link] = into.id
        into.links.extend(call.links)
        call.links = []

    def forget(self, call: Call) -> None:
        """Drop a call with whatever of it is left."""
        guest = self.channels.get(call.guest or "")
        if guest is not None and guest.guest_of == call.id:
            guest.guest_of = None
        for uid in list(call.legs):
            self.drop_channel(self.channels[uid])
        for link in call.links:
            if self.links.get(link) == call.id:
                del self.links[link]
        self.calls.pop(call.id, None)
        if call.started:
            self._touched[call.id] = None

    def drop_channel(self, channel: Channel) -> None:
        """Forget a channel wherever it is known."""
        self.drop_line(channel)
        call = self.calls.get(channel.call)
        if call is not None and channel.uid in call.legs:
            call.legs.remove(channel.uid)

    # --- who hears whom ---

    def people(self, call: Call) -> list[Channel]:
        """The legs of this call that hear each other; fewer than two means that nobody does.

        Early media joins a leg before its person answers; that is nobody yet.
        """
        best: list[Channel] = []
        guest = [call.guest] if call.guest else []
        for uid in [*call.legs, *guest]:
            channel = self.channels.get(uid)
            if channel is None or channel.bridge is None or not channel.real or self.side(channel) != call.id:
                continue
            group = [other for other in self.reach(channel) if other.there and self.side(other) == call.id]
            if len(group) > len(best):
                best = group
            if len(best) > 1:
                break
        return best

    @staticmethod
    def side(channel: Channel) -> str:
        """The call in which the person at this channel speaks now."""
        return channel.guest_of or channel.call

    def update_talk(self, call: Call, at: float) -> None:
        """Start or stop the talk, and say who is connected where somebody new is."""
        people = self.people(call)
        if len(people) < 2:
            self.pause(call, at)
            return
        for leg in people:
            leg.accepted = True
        if call.talk_since is None:
            call.talk_since = at
            # Who hung up while a wire was being taken out has hung up all the same.
            call.ended_by = next((self.party(leg) for leg in people if leg.hung_up), None)
        fresh = [leg for leg in people if leg.uid not in call.heard]
        if not fresh:
            return
        for leg in fresh:
            self.offer(leg, at)
        self.start(call, at)
        if call.connected_at is None:
            call.connected_at = at
        call.heard.extend(leg.uid for leg in fresh)
        call.talked.extend(leg.device for leg in fresh if not leg.trunk and leg.device not in call.talked)
        ordered = sorted(people, key=lambda leg: (self._rank(call, leg), leg.born))
        newest = max(fresh, key=lambda leg: (self._rank(call, leg), leg.born))
        one = next(leg for leg in ordered if leg is not newest)
        pair = [one, newest] if ordered.index(one) < ordered.index(newest) else [newest, one]
        self.emit(
            call,
            CallEventType.CONNECTED,
            at,
            {"parties": [shown(self.party(leg)) for leg in pair]},
        )

    def _rank(self, call: Call, leg: Channel) -> int:
        if call.attempt is not None:
            return 0 if self.is_agent_leg(call, leg) else 1
        return 0 if leg.uid in (call.first, call.guest) else 1

    @staticmethod
    def pause(call: Call, at: float) -> None:
        """Nobody hears anybody any more; the talk so far is kept."""
        if call.talk_since is not None:
            call.talk_seconds += max(0.0, at - call.talk_since)
            call.talk_since = None

    def live_legs(self, call: Call) -> list[Channel]:
        """The real channels of a call, oldest first."""
        return [self.channels[uid] for uid in call.legs if self.channels[uid].real]

    def ringing(self, call: Call) -> list[Channel]:
        """Legs of a call that ring and were not answered."""
        return [leg for leg in self.live_legs(call) if leg.ringing and leg.state != Line.UP]


def moment(at: float) -> datetime:
    """Seconds since the epoch as an aware time."""
    return datetime.fromtimestamp(at, UTC)
