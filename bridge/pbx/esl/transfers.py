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
from bridge.pbx.calls.model import CONFERENCE, Call, Channel
from bridge.pbx.calls.parties import shown
from bridge.pbx.esl.channels import PICKER, REFERRED, refers
from bridge.pbx.esl.hearing import Event

_BLIND = "bl_xfer"
ROOM = "rb-"
"""How our own conferences' names begin."""
PARKS = "m:^:set:valet_parking_timeout="
"""How the order begins by which an action of ours parks a caller."""
WAITS = "m:^:playback:tone_stream://"
"""The same for who waits until the phone answers that was being asked."""
_OURS = (f"conference:{ROOM}", PARKS, WAITS)
"""Where our actions send somebody who is not transferred with it, or of whom it is told later."""
_NOBODYS = (*_OURS, 'm:"')
"""These, and the list of applications by which FreeSWITCH itself lets somebody wait for a consulted phone's answer."""


def consult(book: Book, originator: Channel, leg: Channel, at: float) -> Call:
    """A leg that is connected dials: a consultation by feature code, a call of its own."""
    # A wire's far half may have been told first; whom it dials asks by its name for the call.
    far = book.peer(leg)
    call = joining.consult(book, leg, [leg] if far is None else [leg, far])
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
    if _is_parked_by_us(route) and left is not None:
        stays.sent_by = left.device
    if early(book, stays, event, at) or not _may_say(stays, route):
        return
    if left is not None and "variable_bridge_hangup_cause" not in event:
        # Who transfers hangs up; where both go on, an administrator moved both (`uuid_transfer -both`).
        stays.sent_on = True
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
    room = book.bridges.get(channel.bridge or "")
    if room is not None and room.type == CONFERENCE:
        # Nobody transfers another out of a conference by leaving: an administrator has moved that one.
        return
    call = book.calls[channel.call]
    if channel.uid in call.heard and call.last_gone is not None and not _with_another(book, channel):
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


def moved(channel: Channel, event: Event) -> bool:
    """Whether a called leg that dials was sent into the dialplan first: it stands at another number than was called."""
    number = event.get("Other-Leg-Destination-Number", "")
    return channel.outgoing and number not in ("", channel.exten) and event.get("Other-Leg-RDNIS") == channel.exten


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
    kind, _, target = route.partition(":")[2].partition(":")[2].partition(":")
    return kind == _BLIND and not target.startswith(_NOBODYS) and not (stays.deserted or stays.sent_on)


def _with_another(book: Book, channel: Channel) -> bool:
    """Whether it was sent there together with the one it talked with."""
    when, where = _parts(channel.route)
    others = (_parts(other.route) for other in book.live_legs(book.calls[channel.call]) if other is not channel)
    return any(there == where and abs(then - when) <= 1 for then, there in others)


def _parts(route: str) -> tuple[int, str]:
    """When and where to, of a transfer source."""
    when, _, rest = route.partition(":")
    return (int(when) if when.isdecimal() else 0), rest.partition(":")[2]


def _is_parked_by_us(route: str) -> bool:
    return f":{_BLIND}:{PARKS}" in route


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
    asking = event.get("variable_att_xfer_kill_uuid", "")
    asked = _asked_by(book, asking) if asking else None
    if asked is None or asked is book.calls[stays.call]:
        return False
    consulting = book.channels.get(asking)
    survivor, other = sorted((book.calls[stays.call], asked), key=standing)
    other.consulted_by = asked.caller if consulting is None else book.party(consulting)
    stays.sent_on = True
    become_one(book, other, survivor, at)
    book.update_talk(survivor, at)
    return True


def _asked_by(book: Book, asking: str) -> Call | None:
    """The call in which that leg asks: by a REFER its own, else the one that it dialled, also if it is gone by now."""
    consulting = book.channels.get(asking)
    if consulting is not None:
        return book.calls.get(consulting.consults) or book.calls[consulting.call]
    for call in book.calls.values():
        if call.consultation and any(book.channels[uid].link == asking for uid in call.legs):
            return call
    return None


def comes_back(book: Book, channel: Channel, event: Event) -> None:
    """Where a REFER replaces a call that is gone, FreeSWITCH calls itself: the leg that left and this one are a wire.

    Either is told first. Whoever calls from outside may send the same headers, but knows no two of our legs that talk.
    """
    wire = refers(event)
    if not wire or (channel.outgoing and channel.role != REFERRED):
        return
    halves = [book.channels[uid] for uid in book.wires.get(wire, {}).values()]
    if len(halves) > 1:
        # The wire is whole: whoever it leads to has read the same headers.
        channel.wire = ""
        return
    if not channel.outgoing:
        waits, asked = (book.channels.get(uid) for uid in wire.split("/"))
        talk = waits is not None and asked is not None and asked in book.reach(waits)
        if not (halves or talk):
            return
        channel.wire, channel.role, channel.real = wire, REFERRED, False
        channel.link = halves[0].uid if waits is None else waits.uid
    for half in halves:
        half.real = channel.real = False
        half.trunk = channel.trunk = False


def sent_by_refer(book: Book, members: list[Channel], at: float) -> None:
    """The caller meets the leg that a REFER asked for: it was transferred to whoever is at its end."""
    leg = next((member for member in members if member.role == REFERRED and member.outgoing), None)
    if leg is None:
        return
    call = book.calls[leg.call]
    by, call.consulted_by = call.consulted_by, None
    if by is None or any(member.call != call.id for member in members):
        return
    people = [other for other in book.reach(leg) if other.real and other not in members] or [leg]
    say_transferred(book, call, "attended", by, by, shown(book.party(people[-1])), at)


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
    sent_by_refer(book, members, at)
    for channel in members:
        call = book.calls[channel.call]
        if channel.parked:
            channel.parked = False
            if any(other.call != call.id for other in members):
                # Someone fetches the parked caller: that needs no `transferred` of its own.
                call.transferred_by = PARKING
        rang = call.picked_off
        if rang is None:
            continue
        if channel.role == PICKER:
            pick_up(book, call, call, rang, book.party(channel), at)
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


def picks_up(book: Book, picker: Channel) -> None:
    """A phone that we rang answers, to take a call that rings elsewhere: whose is that?"""
    call = book.calls[picker.call]
    if picker.role != PICKER or call.talk_since is not None:
        return
    rings = sorted(book.ringing(call), key=lambda leg: leg.device == picker.device)
    if rings:
        call.picked_off = call.picked_off or book.party(rings[0])


def parked(book: Book, event: Event, at: float) -> None:
    """mod_valet_parking: `hold` parks, whatever follows ends it."""
    channel = book.channels.get(event.get("Unique-ID", ""))
    if channel is None or event.get("Action") != "hold":
        return
    channel.parked, channel.slot = True, event.get("Valet-Extension", "")
    by, channel.sent_by = channel.sent_by, ""
    call = book.calls[channel.call]
    party = book.parties.inside(by) if by else call.last_gone
    if party is not None and _is_parked_by_us(channel.route) and not channel.sent_on:
        channel.sent_on = True
        _say_blind(book, channel, party, channel.slot, at)
