"""The commands of call actions, built from values that match their allow-list pattern; no I/O.

FreeSWITCH splits a command at spaces (quotes hold one together), a dial string at commas and brackets, and expands
what has a dollar sign; no value that passes its pattern holds any of these.
"""

from __future__ import annotations

import re

from bridge.domain.actions import DIGITS, SOUND, TO
from bridge.pbx.esl.channels import COMMAND, GUEST, JOINS, LISTENER, PICKER, ROLE
from bridge.pbx.esl.codec import LocalError
from bridge.pbx.esl.orders import CHANNEL, DEVICE_PATTERN, DIAL_PATTERN, UUID, match
from bridge.pbx.esl.transfers import PARKS, ROOM, WAITS

ACTED = (
    "uuid_hold",
    "uuid_transfer",
    "uuid_broadcast",
    "uuid_xfer_zombie",
    "uuid_setvar_multi",
    "uuid_displace",
    "uuid_send_dtmf",
    "uuid_record",
    "uuid_buglist",
    "module_exists",
    "callcenter_config",
)
"""The permissions (`esl-allowed-api`) that actions and agents' states need, besides those to dial and to hang up."""
LOT = "ringbridge"
_SLOTS = "701 799"
_PARKED_SECONDS = 300
"""A caller whom nobody fetches goes back to who parked him, or is let go where that is no extension."""
_RINGING = "%(2000,4000,440,480);loops=20"
"""What somebody hears who waits for a phone that rings: two minutes of it."""
_ALONE_SECONDS = "3"
_CODECS = "^^:PCMU:PCMA"
"""What a loopback leg that nobody calls from offers; of itself it offers what no trunk takes."""
_TO = re.compile(TO)
_DIGITS = re.compile(DIGITS)
_SOUND = re.compile(SOUND)
_CONTEXT = re.compile(r"[A-Za-z0-9_.@-]{1,80}")
_EXTENSION = re.compile(r"[0-9]{2,6}")
_FILE = re.compile(r"[A-Za-z0-9._-]{1,160}\.wav")
_HEARD = re.compile(r"[A-Za-z0-9_./:@+ -]{1,400}")
WHISPERS = {"listen": (False, False), "whisper": (False, True), "barge": (True, True)}
"""Who hears a supervisor, by mode: who talks with the leg that is listened to, and that leg itself."""


def hold(channel: str) -> str:
    """Have this leg's phone put on hold, and play music to whom it talks with."""
    return f"uuid_hold {_leg(channel)}"


def resume(channel: str) -> str:
    """The reverse of `hold`."""
    return f"uuid_hold off {_leg(channel)}"


def transfer(channel: str, to: str, context: str) -> str:
    """Send a leg to an extension or a number, as if it dialled that there."""
    return f"uuid_transfer {_leg(channel)} {_target(to)} XML {_where(context)}"


def consult(channel: str, to: str, context: str, shown: str | None, ring_seconds: int) -> str:
    """Have this leg ask somebody, while whom it talks with hears music.

    The loopback must stay in: where it leaves once both have answered, the asking ends as if it had never begun. And
    where the other side hangs up meanwhile, FreeSWITCH leaves who was asked alone, parked, once this leg is gone.
    """
    variables = {
        "loopback_bowout": "false",
        "park_timeout": _ALONE_SECONDS,
        "originate_timeout": _seconds(ring_seconds),
        **_shown(shown),
    }
    return f"uuid_broadcast {_leg(channel)} att_xfer::{_joined(variables)}loopback/{_target(to)}/{_where(context)}"


def let_ring(channel: str) -> str:
    """What this leg is dialling goes on ringing when it hangs up."""
    return f"uuid_xfer_zombie {_leg(channel)}"


def note_asking(waiting: str, asking: str) -> str:
    """Write on a leg for whose asking it waits, as FreeSWITCH itself does for a REFER."""
    return f"uuid_setvar_multi {_leg(waiting)} att_xfer_kill_uuid={_leg(asking)}"


def wait(channel: str) -> str:
    """A leg hears ringing until it is joined with whoever answers."""
    return f"uuid_transfer {_leg(channel)} {WAITS}{_RINGING}^hangup:NO_ANSWER inline"


def ask_in(to: str, context: str, command: str, joins: str, shown: str | None, ring_seconds: int) -> str:
    """Call somebody in the name of a call, into a conference of this command's."""
    variables = {
        **_made(GUEST, command, joins),
        **_shown(shown),
        "loopback_bowout": "false",
        "absolute_codec_string": _CODECS,
        "export_vars": "absolute_codec_string",
        "ignore_early_media": "true",
        "originate_timeout": _seconds(ring_seconds),
    }
    target = f"loopback/{_target(to)}/{_where(context)}"
    return f"originate {_joined(variables)}{target} &conference({room(command)})"


def room(command: str) -> str:
    """The conference of a command: it ends with the last but one."""
    match(UUID, command, "command")
    return f"{ROOM}{command}@default+flags{{mintwo}}"


def meet(channel: str, command: str) -> str:
    """Send a leg, and whom it talks with, into that conference."""
    return f"uuid_transfer {_leg(channel)} -both conference:{room(command)} inline"


def park(channel: str, back_to: str | None, context: str) -> str:
    """Park a leg in our own lot; nobody fetching it, it goes to that extension."""
    steps = [f"{PARKS}{_PARKED_SECONDS}"]
    if back_to is not None:
        match(_EXTENSION, back_to, "extension")
        steps += [
            f"set:valet_parking_orbit_exten={back_to}",
            "set:valet_parking_orbit_dialplan=XML",
            f"set:valet_parking_orbit_context={_where(context)}",
        ]
    steps += ["set:valet_announce_slot=false", f"valet_park:{LOT} auto in {_SLOTS}"]
    return f"uuid_transfer {_leg(channel)} '{'^'.join(steps)}' inline"


def fetch(device: str, channel: str, command: str, shown: str | None, ring_seconds: int, *, rings: bool) -> str:
    """Ring a phone, then have it take over that leg, where nobody talks with it by then."""
    variables = {
        **_made(PICKER if rings else GUEST, command, channel),
        **_shown(shown),
        "intercept_unbridged_only": "true",
        **_alone(ring_seconds),
    }
    return f"originate {_joined(variables)}{_phone(device)} &intercept({_leg(channel)})"


def watch(device: str, channel: str, command: str, mode: str, shown: str | None, ring_seconds: int) -> str:
    """Ring a supervisor's phone, then let it hear that leg and whom it talks with."""
    variables = {**_made(LISTENER, command, channel), **_shown(shown), **_heard(mode), **_alone(ring_seconds)}
    return f"originate {_joined(variables)}{_phone(device)} &eavesdrop({_leg(channel)})"


def change_mode(listener: str, mode: str) -> str:
    """Who hears a supervisor from now on; `watch_again` brings it about."""
    return f"uuid_setvar_multi {_leg(listener)} {';'.join(f'{n}={v}' for n, v in _heard(mode).items())}"


def watch_again(listener: str, channel: str) -> str:
    """Let a supervisor who is up already hear that leg."""
    return f"uuid_transfer {_leg(listener)} eavesdrop:{_leg(channel)} inline"


def play(channel: str, sound: str) -> str:
    """This leg hears a sound besides what it hears anyway; nobody else does."""
    match(_SOUND, sound, "sound")
    return f"uuid_displace {_leg(channel)} start {sound}.wav 0 mux"


def stop(channel: str, path: str) -> str:
    """End such a sound; `path` is as the PBX lists it."""
    match(_HEARD, path, "sound")
    return f"uuid_displace {_leg(channel)} stop '{path}'"


def dial_tones(channel: str, digits: str) -> str:
    """Send keys to this leg's phone."""
    match(_DIGITS, digits, "digits")
    return f"uuid_send_dtmf {_leg(channel)} {digits.upper()}"


def record(channel: str, file: str) -> str:
    """Record what a leg hears and says.

    The leg's own thread begins it: `uuid_record start` for one that hangs up in that moment leaves FreeSWITCH a
    channel that never ends.
    """
    match(_FILE, file, "file")
    return f"uuid_broadcast {_leg(channel)} record_session::${{recordings_dir}}/{FOLDER}/{file} aleg"


def change_recording(channel: str, verb: str, file: str) -> str:
    """Silence (`mask`), go on with (`unmask`) or end (`stop`) a recording."""
    match(_FILE, file, "file")
    return f"expand uuid_record {_leg(channel)} {verb} '${{recordings_dir}}/{FOLDER}/{file}'"


FOLDER = "ringbridge"
"""Of the PBX's own folder of recordings."""


def media(channel: str) -> str:
    """Ask what plays on a leg, records it and listens to it."""
    return f"uuid_buglist {_leg(channel)}"


def module(name: str) -> str:
    """Ask whether a module is loaded."""
    return f"module_exists {name}"


# --- values ---


def _leg(channel: str) -> str:
    match(CHANNEL, channel, "channel")
    return channel


def _target(to: str) -> str:
    match(_TO, to, "to")
    return to


def _where(context: str) -> str:
    match(_CONTEXT, context, "context")
    return context


def _phone(device: str) -> str:
    match(DEVICE_PATTERN, device, "device")
    return device


def _seconds(seconds: int) -> str:
    if type(seconds) is not int or not 1 <= seconds <= 300:
        raise LocalError("a ring time must be 1 to 300 whole seconds", field="ring_seconds")
    return str(seconds)


def _made(role: str, command: str, joins: str) -> dict[str, str]:
    match(UUID, command, "command")
    return {ROLE: role, COMMAND: command, JOINS: _leg(joins)}


def _alone(ring_seconds: int) -> dict[str, str]:
    seconds = _seconds(ring_seconds)
    return {
        "ignore_early_media": "true",
        "originate_timeout": seconds,
        "call_timeout": seconds,
        "hangup_after_bridge": "true",
    }


def _shown(number: str | None) -> dict[str, str]:
    """Whose number the phone shows; what is no number is not shown."""
    if number is None or not (DIAL_PATTERN.fullmatch(number) or _EXTENSION.fullmatch(number)):
        return {}
    return {"origination_caller_id_number": number, "origination_caller_id_name": number}


def _heard(mode: str) -> dict[str, str]:
    other, own = WHISPERS[mode]
    return {
        "eavesdrop_enable_dtmf": "false",
        "eavesdrop_whisper_aleg": str(other).lower(),
        "eavesdrop_whisper_bleg": str(own).lower(),
    }


def _joined(variables: dict[str, str]) -> str:
    return "{" + ",".join(f"{name}={value}" for name, value in variables.items()) + "}"
