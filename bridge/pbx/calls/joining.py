"""When one conversation becomes part of another: consultations, transfers, pickups, parked calls fetched.

A consultation by feature code runs in the customer's own call as far as the PBX's ids go. Here it is a call of its
own, with the transferer as its guest.
"""

from __future__ import annotations

from bridge.domain.calls import CallEventType, Direction, Party
from bridge.pbx.calls.book import Book
from bridge.pbx.calls.model import CONFERENCE, Call, Channel
from bridge.pbx.calls.parties import shown
from bridge.pbx.calls.recall import go_on

PARKING = "parking"
"""Stands in `Call.transferred_by` while a parked caller is being fetched, which needs no `transferred` of its own."""


def consult(book: Book, channel: Channel, legs: list[Channel]) -> Call:
    """Open a consultation for these legs, taken out of their call. `channel` is the first of them."""
    call = book.calls[channel.call]
    named = book.call_id(channel.uid)
    known = book.recalled.find((named,), channel.born)
    consultation = Call(
        id=named if known is None else known.id,
        first=channel.uid,
        born=channel.born,
        consultation=True,
        direction=None,
        callee=book.parties.dialled(channel.exten),
    )
    if known is not None:
        go_on(consultation, known)
    book.calls[consultation.id] = consultation
    for leg in legs:
        if book.links.get(leg.uid) == call.id:
            del book.links[leg.uid]
            call.links.remove(leg.uid)
        book.attach(leg, consultation)
    return consultation


def join(book: Book, channel: Channel, at: float) -> None:
    """After a channel entered a bridge: calls whose people now hear each other become one."""
    bridge = book.bridges.get(channel.bridge or "")
    meets = bridge is not None and bridge.type == CONFERENCE
    group = book.reach(channel)
    calls = list(dict.fromkeys(book.side(other) for other in group))
    if channel.guest_of and not any(other.call == channel.guest_of for other in group):
        guest_of = book.calls.get(channel.guest_of)
        channel.guest_of = None
        if guest_of is not None:
            guest_of.guest = None
        calls = list(dict.fromkeys(book.side(other) for other in group))
    if len(calls) < 2:
        return
    for call_id in calls if not meets else ():
        call = book.calls[call_id]
        empty = call.consultation and call.guest is None and _may_sit(book, channel, call)
        if empty and channel.real and channel.call != call_id:
            seat(book, channel, call, at)
            return
    parts = [book.calls[call_id] for call_id in calls]
    survivor = min(parts, key=standing)
    for part in parts:
        if part is not survivor:
            become_one(book, part, survivor, at, transfer=not meets)


def _may_sit(book: Book, channel: Channel, consultation: Call) -> bool:
    """Whether this can be the one who consults: where that is known, who else comes has been transferred."""
    caller = consultation.caller
    return caller is None or caller.device in (None, book.party(channel).device)


def seat(book: Book, channel: Channel, consultation: Call, at: float) -> None:
    """The transferer takes part in a consultation as its guest."""
    channel.guest_of = consultation.id
    consultation.guest = channel.uid
    consultation.caller = book.party(channel)
    callee = consultation.callee
    if callee is not None and callee.extension:
        consultation.direction = Direction.INTERNAL
    book.start(consultation, at)


def standing(call: Call) -> tuple[bool, float]:
    """The customer's call before an internal one, then the older."""
    return (call.direction not in (Direction.INBOUND, Direction.OUTBOUND), call.born)


def become_one(book: Book, call: Call, survivor: Call, at: float, *, transfer: bool = True) -> None:
    """Two calls that have met go on as one; who was in both has transferred, unless they all met in a conference."""
    transferer = call.consulted_by or survivor.consulted_by or _shared_party(book, call, survivor)
    survivor.consulted_by = None
    survivor.talked.extend(device for device in call.talked if device not in survivor.talked)
    joined = [
        leg for leg in book.live_legs(call) if leg.device != (transferer.device if transferer else None)
    ]
    ringing = book.ringing(call)
    fetched = survivor.transferred_by == PARKING
    for uid in call.legs if call.consultation else ():
        # Its wire has been one consultation and will be none again.
        book.channels[uid].dialled = True
    book.merge(call, survivor, at)
    if transfer and transferer is not None and transferer.device is not None and not fetched:
        survivor.transferred_by = transferer.device
        target = shown(book.party(joined[-1])) if joined else shown(call.callee)
        say_transferred(book, survivor, "attended", transferer, transferer, target, at)
        for leg in ringing:
            leg.offered = False
            book.offer(leg, at)
    elif fetched:
        survivor.transferred_by = None


def _shared_party(book: Book, call: Call, survivor: Call) -> Party | None:
    """Who is in both calls: the one who consulted."""
    devices: dict[str, Party] = {}
    for one in (survivor, call):
        here = {leg.device: book.party(leg) for leg in book.live_legs(one)}
        for party in (one.caller, one.callee):
            if party is not None and party.device is not None:
                here.setdefault(party.device, party)
        for device in one.talked:
            here.setdefault(device, book.parties.inside(device))
        guest = book.channels.get(one.guest or "")
        if guest is not None:
            here.setdefault(guest.device, book.party(guest))
        shared = [device for device in here if device in devices and not book.parties.is_trunk(device)]
        if shared:
            return here[shared[0]]
        devices = here
    return None


def pick_up(book: Book, call: Call, survivor: Call, rang: Party, by: Party, at: float) -> None:
    """Somebody took the call of a phone that rings elsewhere. `call` is the picker's own, if that is another."""
    if call is not survivor:
        book.merge(call, survivor, at)
    survivor.answer_seen = True
    survivor.picked_off = None
    say_transferred(book, survivor, "pickup", by, rang, shown(by), at)


def say_transferred(
    book: Book, call: Call, kind: str, by: Party, leaves: Party, to: dict[str, object] | None, at: float
) -> None:
    """Publish a transfer of any kind."""
    if kind == "blind":
        # That somebody answered before says nothing of the phones that ring from here on.
        call.answer_seen = False
    book.emit(
        call,
        CallEventType.TRANSFERRED,
        at,
        {"kind": kind, "by": shown(by), "from": shown(leaves), "to": to},
    )
