"""When one conversation becomes part of another: consultations, transfers, pickups, parked calls fetched.

A consultation by feature code runs in the customer's own call as far as the PBX's ids go: a wire that
nobody dialled enters a bridge, and the transferer follows. Here it is a call of its own, with the transferer
as its guest.
"""

from __future__ import annotations

from bridge.domain.calls import CallEventType, Direction, Party
from bridge.pbx.ami.book import Book
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.model import Call, Channel
from bridge.pbx.ami.parties import known, shown


def begin_consultation(book: Book, channel: Channel) -> None:
    """Before a channel enters a bridge: take an undialled wire out of its call, as a consultation."""
    wire = channel.wire
    if wire is None or channel.dialled:
        return
    other = book.peer(channel)
    call = book.calls[channel.call]
    if (
        other is None
        or other.dialled
        or call.first in (channel.uid, other.uid)
        or channel.link == channel.uid
    ):
        return
    consultation = Call(
        id=book.call_id(channel.uid),
        first=channel.uid,
        born=channel.born,
        consultation=True,
        direction=None,
        callee=book.parties.dialled(channel.exten),
    )
    book.calls[consultation.id] = consultation
    for uid in (channel.uid, other.uid):
        if book.links.get(uid) == call.id:
            del book.links[uid]
            call.links.remove(uid)
    book.attach(channel, consultation)
    book.attach(other, consultation)


def join(book: Book, channel: Channel, at: float) -> None:
    """After a channel entered a bridge: calls whose people now hear each other become one."""
    group = book.reach(channel, conferences=False)
    calls = list(dict.fromkeys(book.side(other) for other in group))
    if channel.guest_of and not any(other.call == channel.guest_of for other in group):
        guest_of = book.calls.get(channel.guest_of)
        channel.guest_of = None
        if guest_of is not None:
            guest_of.guest = None
        calls = list(dict.fromkeys(book.side(other) for other in group))
    if len(calls) < 2:
        return
    for call_id in calls:
        call = book.calls[call_id]
        if call.consultation and call.guest is None and channel.real and channel.call != call_id:
            _seat(book, channel, call, at)
            return
    parts = [book.calls[call_id] for call_id in calls]
    survivor = min(parts, key=_standing)
    for part in parts:
        if part is not survivor:
            _become_one(book, part, survivor, at)


def _seat(book: Book, channel: Channel, consultation: Call, at: float) -> None:
    channel.guest_of = consultation.id
    consultation.guest = channel.uid
    consultation.caller = book.party(channel)
    callee = consultation.callee
    if callee is not None and callee.extension:
        consultation.direction = Direction.INTERNAL
    book.start(consultation, at)


def _standing(call: Call) -> tuple[bool, float]:
    """The customer's call before an internal one, then the older."""
    return (call.direction not in (Direction.INBOUND, Direction.OUTBOUND), call.born)


def _become_one(book: Book, call: Call, survivor: Call, at: float) -> None:
    transferer = _shared_party(book, call, survivor)
    joined = [
        leg for leg in book.live_legs(call) if leg.device != (transferer.device if transferer else None)
    ]
    ringing = book.ringing(call)
    fetched = survivor.transferred_by == "parking"
    book.merge(call, survivor, at)
    if transferer is not None and transferer.device is not None and not fetched:
        survivor.transferred_by = transferer.device
        target = shown(book.party(joined[-1])) if joined else shown(call.callee)
        _say(book, survivor, "attended", transferer, transferer, target, at)
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
        guest = book.channels.get(one.guest or "")
        if guest is not None:
            here.setdefault(guest.device, book.party(guest))
        shared = [device for device in here if device in devices and not book.parties.is_trunk(device)]
        if shared:
            return here[shared[0]]
        devices = here
    return None


def blind(book: Book, event: Message, at: float) -> None:
    """The PBX accepted a blind transfer; whether it is reached shows later."""
    transferer = book.channels.get(event.get("TransfererUniqueid", ""))
    if transferer is None:
        return
    transferer.accepted = True
    call = book.calls[transferer.call]
    book.start(call, at)
    by = book.party(transferer)
    to = book.parties.dialled(known(event.get("Extension")))
    _say(book, call, "blind", by, by, shown(to), at)


def attended(book: Book, event: Message, at: float) -> None:
    """The PBX completed an attended transfer; mostly the bridges have said so already."""
    first = book.channels.get(event.get("OrigTransfererUniqueid", ""))
    second = book.channels.get(event.get("SecondTransfererUniqueid", ""))
    if first is None or second is None:
        return
    one = book.calls[first.call]
    two = book.calls[first.guest_of or second.call]
    if one is two:
        if one.transferred_by == first.device:
            one.transferred_by = None
            return
        by = book.party(first)
        _say(book, one, "attended", by, by, None, at)
        return
    survivor, other = sorted((one, two), key=_standing)
    _become_one(book, other, survivor, at)
    survivor.transferred_by = None
    book.update_talk(survivor, at)


def pickup(book: Book, event: Message, at: float) -> None:
    """Somebody took the call of a phone that rings elsewhere."""
    picker = book.channels.get(event.get("Uniqueid", ""))
    target = book.channels.get(event.get("TargetUniqueid", ""))
    if picker is None or target is None:
        return
    target.picked_up = True
    survivor, call = book.calls[target.call], book.calls[picker.call]
    by, rang = book.party(picker), book.party(target)
    if call is not survivor:
        book.merge(call, survivor, at)
    survivor.answer_seen = True
    _say(book, survivor, "pickup", by, rang, shown(by), at)


def _say(
    book: Book, call: Call, kind: str, by: Party, leaves: Party, to: dict[str, object] | None, at: float
) -> None:
    book.emit(
        call,
        CallEventType.TRANSFERRED,
        at,
        {"kind": kind, "by": shown(by), "from": shown(leaves), "to": to},
    )
