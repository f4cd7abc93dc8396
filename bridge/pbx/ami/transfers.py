"""What Asterisk says of transfers and pickups, and the wires of its feature codes, in the words of the call model.

A consultation by feature code runs in the customer's own call as far as the PBX's ids go: a wire that
nobody dialled enters a bridge, and the transferer follows.
"""

from __future__ import annotations

from bridge.domain.calls import Direction
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.names import LINK
from bridge.pbx.calls.book import Book
from bridge.pbx.calls.joining import become_one, consult, pick_up, say_transferred, standing
from bridge.pbx.calls.model import Call, Channel
from bridge.pbx.calls.parties import known, shown


def begin_consultation(book: Book, channel: Channel) -> None:
    """Before a channel enters a bridge: take an undialled wire out of its call, as a consultation."""
    if not channel.wire or channel.dialled or channel.wire.startswith(LINK):
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
    # Whom the wire has called already goes along: a phone may ring before the wire's other end is in its bridge.
    called = [leg for leg in book.live_legs(call) if leg.dialler in (channel.uid, other.uid)]
    consult(book, channel, [channel, other, *called])


def awaits_agent(call: Call) -> bool:
    """Whether the one who consults is about to come: then it is known whose consultation that is."""
    return call.consultation and call.guest is None and not call.started


def may_be_consulted(book: Book, leg: Channel) -> bool:
    """Whether a leg is called by a wire of which nobody knows yet who is at its other end.

    The wire of a feature code is dialled by nobody and enters a bridge a moment later, and then the transferer does; of
    any other the DialBegin comes. Until then it is not known whose call rings there.
    """
    near = book.channels.get(leg.dialler or "")
    call = book.calls[leg.call]
    if awaits_agent(call):
        return True
    if near is None or not near.wire:
        return False
    far = book.peer(near)
    return (
        far is not None
        and far.bridge is None
        and not (near.dialled or far.dialled)
        and call.first not in (near.uid, far.uid)
    )


def consulting(book: Book, by: Channel, first: Channel, second: Channel, at: float) -> None:
    """After a gap: a wire by which somebody consults, whom the PBX names."""
    call = book.calls[first.call]
    if not call.consultation and call.first in (first.uid, second.uid):
        return
    called = [book.channels[uid] for uid in call.legs if book.channels[uid].dialler == second.uid]
    consultation = call if call.consultation else consult(book, first, [first, second, *called])
    consultation.caller = consultation.caller or book.party(by)
    if consultation.callee is not None and consultation.callee.extension:
        consultation.direction = Direction.INTERNAL
    book.start(consultation, at)


def blind(book: Book, event: Message, at: float) -> None:
    """The PBX accepted a blind transfer; whether it is reached shows later."""
    transferer = book.channels.get(event.get("TransfererUniqueid", ""))
    if transferer is None:
        return
    transferer.accepted = True
    for leg in (transferer, *book.reach(transferer)):
        leg.sent_on = True
    call = book.calls[transferer.call]
    book.start(call, at)
    by = book.party(transferer)
    to = book.parties.dialled(known(event.get("Extension")))
    say_transferred(book, call, "blind", by, by, shown(to), at)


def sent_to_park(book: Book, channel: Channel, at: float, gone: Channel | None = None) -> None:
    """Parked, by whom and where is known; where no transfer has said so (AMI's Park, a one-touch key), this does.

    A blind transfer into the car park may be told only after that, so nothing is said while the one who parked is
    still there, whom the PBX then lets go (`gone`).
    """
    call = book.calls[channel.call]
    by = channel.sent_by
    if not by or by == channel.device or channel.sent_on or not channel.real or call.connected_at is None:
        return
    if any(leg.device == by for leg in book.live_legs(call)):
        return
    channel.sent_on = True
    if gone is not None and gone.device == by and gone.sent_on:
        return
    party = book.party(gone) if gone is not None and gone.device == by else book.parties.inside(by)
    say_transferred(book, call, "blind", party, party, shown(book.parties.dialled(known(channel.slot))), at)


def has_parked(book: Book, gone: Channel, call: Call, at: float) -> None:
    """A leg has ended: whom it parked is told now, unless a transfer has said so meanwhile."""
    for leg in book.live_legs(call):
        if leg.parked:
            sent_to_park(book, leg, at, gone)


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
        say_transferred(book, one, "attended", by, by, None, at)
        return
    survivor, other = sorted((one, two), key=standing)
    become_one(book, other, survivor, at)
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
    pick_up(book, call, survivor, rang, by, at)
