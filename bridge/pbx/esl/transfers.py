"""What FreeSWITCH says of transfers, pickups and parking, in the words of the call model.

Who transfers is told by a leg's last words (`endpoint_disposition`, `transfer_to`) and by the transfer source of the
one who stays: it changes while the two are connected. `sofia::transferor` and the like come with a profile's
`fire-transfer-events` only; they say it sooner, never more.
"""

from __future__ import annotations

from bridge.domain.calls import Direction, Party
from bridge.pbx.calls import joining
from bridge.pbx.calls.book import Book
from bridge.pbx.calls.joining import PARKING, become_one, pick_up, say_transferred, standing
from bridge.pbx.calls.model import Call, Channel
from bridge.pbx.calls.parties import shown
from bridge.pbx.esl.hearing import Event

_BLIND = "bl_xfer"


def consult(book: Book, originator: Channel, leg: Channel, at: float) -> Call:
    """A leg that is connected dials: a consultation by feature code, a call of its own."""
    call = joining.consult(book, leg, [leg])
    call.caller = book.party(originator)
    originator.consults = call.id
    if call.callee is not None and call.callee.extension:
        call.direction = Direction.INTERNAL
    book.start(call, at)
    return call


# --- blind ---


def on_unbridge(book: Book, event: Event, at: float) -> None:
    """Who stays was sent elsewhere while connected: by the other one, unless that one simply hung up."""
    stays = book.channels.get(event.get("Bridge-A-Unique-ID", ""))
    left = book.channels.get(event.get("Bridge-B-Unique-ID", ""))
    _hint(book, event)
    if stays is None:
        return
    route, before = event.get("Caller-Transfer-Source", ""), stays.route
    stays.route = route
    if route in ("", before) or not stays.real or (left is not None and not left.real):
        # A wire that takes itself out transfers nobody.
        return
    if early(book, stays, event, at) or not _may_say(stays, route):
        return
    by = book.party(left) if left is not None else book.calls[stays.call].last_gone
    if by is not None:
        if left is not None:
            left.sent_on = left.accepted = True
        _say_blind(book, stays, by, _target(route), at)


def rerouted(book: Book, event: Event, at: float) -> None:
    """A channel that was connected shows itself elsewhere: in a queue, a parking lot, a conference."""
    channel = book.channels.get(event.get("Unique-ID", ""))
    if channel is None:
        return
    before, channel.route = channel.route, event.get("Caller-Transfer-Source", "")
    if channel.route in ("", before) or not _may_say(channel, channel.route):
        return
    call = book.calls[channel.call]
    if channel.uid in call.heard and call.last_gone is not None:
        channel.sent_on = True
        _say_blind(book, channel, call.last_gone, _target(channel.route), at)


def dials_on(book: Book, channel: Channel, event: Event, at: float) -> None:
    """A leg that was dialled dials: it has no dialplan of its own, so it was transferred into one."""
    call = book.calls[channel.call]
    if not channel.outgoing or channel.uid == call.first or channel.uid not in call.heard:
        return
    if channel.bridge is None and call.last_gone is not None and not (channel.deserted or channel.sent_on):
        channel.sent_on = True
        _say_blind(book, channel, call.last_gone, event.get("Other-Leg-Destination-Number", ""), at)


def on_hangup(book: Book, channel: Channel, event: Event, at: float) -> None:
    """The last words of a leg: it leaves because it transferred the others."""
    _hint(book, event)
    if event.get("variable_endpoint_disposition") != "BLIND_TRANSFER" or channel.sent_on:
        return
    peer = event.get("variable_transfer_to", "").partition(":")[2]
    stays = book.channels.get(peer)
    if stays is None:
        return
    stays.sent_on = True
    channel.accepted = True
    target = event.get("variable_transfer_destination", "").partition(":")[2]
    _say_blind(book, stays, book.party(channel), target, at)


def _say_blind(book: Book, stays: Channel, by: Party, target: str, at: float) -> None:
    call = book.calls[stays.call]
    book.start(call, at)
    say_transferred(book, call, "blind", by, by, shown(book.parties.dialled(target or None)), at)


def _may_say(stays: Channel, route: str) -> bool:
    """Whether this transfer source, `<time>:<uuid>:bl_xfer:102/default/XML`, is a blind transfer not told yet."""
    return route.split(":")[2:3] == [_BLIND] and not (stays.deserted or stays.sent_on)


def _target(route: str) -> str:
    return route.split(":", 3)[-1].split("/", 1)[0]


# --- attended ---


def _hint(book: Book, event: Event) -> None:
    """A leg that says of itself that it joined two others: what follows is its attended transfer."""
    channel = book.channels.get(event.get("Unique-ID", ""))
    kind = event.get("variable_transfer_to", "").partition(":")[0]
    if channel is None or kind == "satt":
        return
    if kind == "att" or event.get("variable_endpoint_disposition") == "ATTENDED_TRANSFER":
        book.calls[book.side(channel)].consulted_by = book.party(channel)


def early(book: Book, stays: Channel, event: Event, at: float) -> bool:
    """An attended transfer completed while its target still rings: the one who stays waits for that answer."""
    consulting = book.channels.get(event.get("variable_att_xfer_kill_uuid", ""))
    if consulting is None:
        return False
    one, two = book.calls[stays.call], book.calls[consulting.call]
    if one is two:
        return False
    survivor, other = sorted((one, two), key=standing)
    other.consulted_by = book.party(consulting)
    stays.sent_on = True
    become_one(book, other, survivor, at)
    book.update_talk(survivor, at)
    return True


def transferor(book: Book, event: Event, at: float) -> None:
    """`sofia::transferor`: this leg has asked for a transfer, and two others go on."""
    channel = book.channels.get(event.get("Unique-ID", ""))
    if channel is not None and event.get("att_xfer_destination_call_id"):
        book.calls[book.side(channel)].consulted_by = book.party(channel)


def replaced(book: Book, event: Event) -> None:
    """`sofia::replaced`: another takes this leg's place."""
    channel = book.channels.get(event.get("Unique-ID", ""))
    if channel is not None and event.get("att_xfer_replaced_by"):
        book.calls[book.side(channel)].consulted_by = book.party(channel)


# --- pickup and parking ---


def before_join(book: Book, members: list[Channel], at: float) -> None:
    """Channels of two calls meet: because one was picked up or fetched from parking?"""
    for channel in members:
        call = book.calls[channel.call]
        if channel.parked:
            channel.parked = False
            # Someone fetches the parked caller: that needs no `transferred` of its own.
            call.transferred_by = PARKING
        rang = call.picked_off
        if rang is None:
            continue
        for picker in members:
            if picker.call != call.id and picker.real:
                pick_up(book, book.calls[picker.call], call, rang, book.party(picker), at)
                break


def intercepted(book: Book, event: Event) -> None:
    """`sofia::intercepted`: a phone takes the call of this one, by a SIP Replaces."""
    channel = book.channels.get(event.get("Unique-ID", ""))
    if channel is None or not channel.outgoing or channel.accepted:
        return
    channel.picked_up = True
    call = book.calls[channel.call]
    call.picked_off = call.picked_off or book.party(channel)


def parked(book: Book, event: Event) -> None:
    """mod_valet_parking: `hold` parks, whatever follows ends it."""
    channel = book.channels.get(event.get("Unique-ID", ""))
    if channel is not None and event.get("Action") == "hold":
        channel.parked = True
