"""What FreeSWITCH's events say of a channel: whose device it is, half of which wire, to which channel it belongs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridge.pbx.calls.model import Channel
from bridge.pbx.calls.parties import Parties, is_withheld, known
from bridge.pbx.esl.hearing import Event, event_time

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UNREAL = ("loopback/", "pickup/", "error/", "null/", "audio/")
_PLACEHOLDERS = frozenset({"Outbound Call", "FreeSWITCH", "0000000000", "unknown", "Unknown"})
"""What stands in caller ids of which nothing is known."""
_PRIVATE = frozenset({"id", "user", "header", "full"})
"""Values of a caller's Privacy header that ask not to be shown. FreeSWITCH itself heeds `id` alone."""
GATEWAY = "sofia/gateway/"
ROLE, COMMAND, JOINS = "rb_role", "rb_command", "rb_joins"
"""Variables of the legs that an action of ours makes: what for, whose action, and to which channel they come."""
REFER_FOR, REFER_FROM = "variable_sip_h_X-FS-Refer-For", "variable_sip_h_X-FS-Refer-From"
"""Of a leg that FreeSWITCH sends where a REFER with Replaces said: whom it is for, and which leg asked."""
LISTENER, PICKER, GUEST = "listener", "picker", "guest"
"""Roles: a supervisor who listens, whispers or barges; who takes a call that rings elsewhere; who else is asked in."""
REFERRED = "referred"
"""And, by no action of ours, a leg that FreeSWITCH made because of a REFER."""


def new_channel(event: Event, parties: Parties, now: float) -> Channel:
    """The channel of a CHANNEL_CREATE (or of a dump, which has the same headers)."""
    uid = event["Unique-ID"]
    name = event.get("Channel-Name", "")
    outgoing = event.get("Call-Direction") == "outbound"
    other = event.get("variable_other_loopback_leg_uuid", "")
    whose = _whose(event, name, outgoing, parties)
    listens = event.get(f"variable_{ROLE}") == LISTENER
    referred = refers(event) if outgoing and _by_nobody(event) else ""
    # A supervisor who looks on is nobody in the call.
    real = not name.startswith(_UNREAL) and not listens
    channel = Channel(
        uid=uid,
        name=name,
        born=born(event, now),
        link=belongs_to(event) or uid,
        device=whose.device,
        real=real,
        internal=listens,
        dialler=event.get(f"variable_{JOINS}") if listens else None,
        role=REFERRED if referred else event.get(f"variable_{ROLE}", ""),
        command=event.get(f"variable_{COMMAND}", ""),
        wire=min(uid, other) if other and name.startswith("loopback/") else referred,
        half=uid,
        chosen=outgoing or not _UUID.fullmatch(uid) or uid == event.get("variable_sip_call_id"),
        part=event.get("variable_rb_leg", ""),
        exten=known(event.get("Caller-Destination-Number")),
        outgoing=outgoing,
        trunk=real and whose.trunk,
        route=event.get("Caller-Transfer-Source", ""),
    )
    _name(channel, event)
    if channel.withheld:
        # It holds the number, and what we keep of a call must not.
        channel.name = _profile(event, name)
    return channel


@dataclass(frozen=True, slots=True)
class _Whose:
    device: str
    trunk: bool


def _whose(event: Event, name: str, outgoing: bool, parties: Parties) -> _Whose:
    gateway = event.get("variable_sip_gateway_name" if outgoing else "variable_sip_gateway", "")
    profile = _profile(event, name)
    if gateway and name.startswith("sofia/"):
        return _Whose(GATEWAY + gateway, parties.is_trunk(GATEWAY + gateway, profile, name))
    user = event.get("variable_dialed_user" if outgoing else "variable_user_name", "")
    domain = event.get("variable_dialed_domain" if outgoing else "variable_domain_name", "")
    trunk = parties.is_trunk(profile, name)
    if not user and outgoing and not trunk:
        user, _, domain = event.get("Channel-Presence-ID", "").partition("@")
    if user:
        # A phone may ring on a profile that also leads outside: whom FreeSWITCH knows as a user is inside.
        long, short = f"user/{user}@{domain}", f"user/{user}"
        known_long = domain and long in parties.directory.agents
        return _Whose(long if known_long else short, parties.is_trunk(short, long))
    # What comes in by a gateway does not always say by which.
    return _Whose(profile, trunk or (not outgoing and parties.has_trunk(GATEWAY)))


def _profile(event: Event, name: str) -> str:
    """`sofia/external`, or the first two parts of another endpoint's name."""
    profile = event.get("variable_sofia_profile_name", "")
    if profile and name.startswith("sofia/"):
        return f"sofia/{profile}"
    return "/".join(name.split("/")[:2])


def belongs_to(event: Event) -> str | None:
    """The channel for which this one was made."""
    if event.get("Other-Type") == "originator" and event.get("Other-Leg-Unique-ID"):
        return event["Other-Leg-Unique-ID"]
    if event.get("variable_originating_leg_uuid"):
        return event["variable_originating_leg_uuid"]
    if event.get("variable_cc_side") == "agent":
        return event.get("variable_cc_member_session_uuid")
    if event.get("Call-Direction") == "outbound" and refers(event):
        return event[REFER_FOR]
    if event.get(f"variable_{ROLE}"):
        return None if event[f"variable_{ROLE}"] == LISTENER else event.get(f"variable_{JOINS}")
    return event.get("variable_rb_attempt")


def refers(event: Event) -> str:
    """What a leg that leaves because of a REFER and comes in again have in common; empty where it is another."""
    pair = event.get(REFER_FOR, ""), event.get(REFER_FROM, "")
    return "/".join(pair) if all(map(_UUID.fullmatch, pair)) else ""


def _by_nobody(event: Event) -> bool:
    """Whether no leg dialled it: one that a leg dialled has that one's headers too."""
    dialled = event.get("Other-Type") == "originator" and event.get("Other-Leg-Unique-ID")
    return not dialled and not event.get("variable_originating_leg_uuid")


def born(event: Event, now: float) -> float:
    """As exact as the PBX keeps it, so that whoever adopts the channel later gives its call the same id."""
    created = event.get("Caller-Channel-Created-Time", "0")
    return event_time({"Event-Date-Timestamp": created}, event_time(event, now))


def _name(channel: Channel, event: Event) -> None:
    """Number and name of who is at the channel's end."""
    if channel.outgoing:
        dialled = _said(event.get("Caller-Destination-Number", "").split("@", 1)[0])
        number = dialled if channel.trunk else _said(event.get("Caller-Callee-ID-Number")) or dialled
        channel.number = channel.dialled_number = number
        return
    number = _said(event.get("Caller-Caller-ID-Number"))
    name = _said(event.get("Caller-Caller-ID-Name"))
    if not channel.trunk:
        name = _said(event.get("variable_effective_caller_id_name")) or name
    if _hides(event) or is_withheld(number):
        channel.withheld = True
        return
    channel.number = number
    channel.caller_name = name if name != number else None


def _hides(event: Event) -> bool:
    """Whether the caller asked not to be shown, in whatever way FreeSWITCH passes on."""
    if "true" in (event.get("Caller-Privacy-Hide-Number"), event.get("Caller-Privacy-Hide-Name")):
        return True
    asked = set(event.get("variable_sip_Privacy", "").lower().replace(";", " ").replace(",", " ").split())
    # Who hides in From may be named by the network in P-Asserted-Identity; only `none` says that this may be shown.
    nameless = is_withheld(event.get("variable_sip_from_user")) and "none" not in asked
    return nameless or not asked.isdisjoint(_PRIVATE)


def _said(text: str | None) -> str | None:
    return None if text in _PLACEHOLDERS else known(text)
