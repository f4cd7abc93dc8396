"""Looks at a live Asterisk over AMI, with questions only: nothing is dialled, set or reloaded."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from bridge.domain.errors import RingbridgeError, SettingsError, Unavailable
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.dialogue import Dialogue, LoginRefused
from bridge.pbx.findings import Finding, Verdict
from bridge.settings import Pbx

CONTEXTS = ("ringbridge-leg", "ringbridge-answered", "ringbridge-go", "ringbridge-confirm", "ringbridge-act")
DIALPLAN_VERSION = 6
"""Of ringbridge.conf: what its extension `version` must say at least."""
_SINCE = {
    2: "dials a call whose order came too late",
    3: "cannot hold, play, record, confer, fetch a call or let a supervisor listen",
    4: "does not note who answered, so that after a gap nobody knows who may be called again",
    5: "cannot ask a customer to press 1",
    6: "cannot let a customer who was called wait in a queue",
}
"""What the one before each version lacks."""
_FIXED = {18: (18, 24, 2), 20: (20, 9, 2), 21: (21, 4, 2)}
"""CVE-2024-42365: from here on an AMI user with `originate` alone cannot reach code execution."""
_READER_LINES = "read = system,call,agent,user  and  write = reporting"
_COMMAND_LINES = "write = originate,call,agent,reporting  and an empty  read ="
_ACTING = {
    "BlindTransfer": "bridge_builtin_features",
    "Atxfer": "bridge_builtin_features",
    "CancelAtxfer": "bridge_builtin_features",
    "Park": "res_parking",
    "ParkedCalls": "res_parking",
    "PlayDTMF": "app_senddtmf",
    "MixMonitorMute": "app_mixmonitor",
    "Redirect": "the core",
    "Setvar": "the core",
}
"""Actions on a call, and the module that brings each. Which applications there are, AMI does not say to us."""
_TOO_MUCH = ("Command", "UpdateConfig", "ModuleLoad")
_WRITE_ANEW = (
    "run `ringbridge init --mode dial` again, which shows and writes the new ringbridge.conf (paste what it shows "
    "where the PBX is elsewhere)"
)
_RELOAD_MANAGER = "asterisk -rx 'manager reload'"


def inspect(pbx: Pbx, *, observe: bool, watch_seconds: float) -> Iterator[Finding]:
    """Finding by finding. Ends early where a failure leaves nothing to look at. Raises SettingsError for a secret."""
    yield from _wire(pbx)
    try:
        with Dialogue(pbx, pbx.username, pbx.read_secret()) as reader:
            yield Finding("reachable", Verdict.OK, f"an Asterisk manager answers at {pbx.host}:{pbx.port}")
            yield Finding("event user", Verdict.OK, f"{pbx.username} may log in")
            yield from _reader(pbx, reader, observe, watch_seconds)
    except LoginRefused as error:
        yield Finding("reachable", Verdict.OK, f"an Asterisk manager answers at {pbx.host}:{pbx.port}")
        yield _refused("event user", error, pbx.username)
    except SettingsError:
        raise
    except RingbridgeError as error:
        yield Finding(
            "reachable",
            Verdict.FAIL,
            error.message,
            "manager.conf, [general]: enabled = yes, and port and bindaddr as the settings say; "
            f"then {_RELOAD_MANAGER}; or set host and port of this PBX",
        )
        return
    if observe:
        yield Finding("command user", Verdict.OK, "not needed: the mode is observe")
        return
    yield from _commander(pbx)


def _wire(pbx: Pbx) -> Iterator[Finding]:
    try:
        loopback = ipaddress.ip_address(pbx.host).is_loopback
    except ValueError:
        loopback = pbx.host == "localhost"
    if not (pbx.tls or loopback):
        yield Finding(
            "encryption",
            Verdict.WARN,
            "events, with callers' numbers and names, cross the network in clear",
            "manager.conf, [general]: tlsenable = yes with a certificate; here: tls = true and port = 5039",
        )


def _refused(about: str, error: LoginRefused, username: str) -> Finding:
    return Finding(
        about,
        Verdict.FAIL,
        error.message,
        f"manager.conf, [{username}]: the secret of the settings, and permit with this machine's address; "
        f"`ringbridge init` writes both; then {_RELOAD_MANAGER}",
    )


def _reader(pbx: Pbx, reader: Dialogue, observe: bool, watch_seconds: float) -> Iterator[Finding]:
    yield from _version(reader)
    commands = _commands(reader)
    if "CoreShowChannels" not in commands:
        yield Finding(
            "event user's classes",
            Verdict.FAIL,
            "this user may not list channels, so that nothing can be rebuilt after a gap",
            f"manager.conf, [{pbx.username}]: {_READER_LINES}",
        )
    elif held := [name for name in ("Originate", *_TOO_MUCH) if name in commands]:
        yield Finding(
            "event user's classes",
            Verdict.WARN,
            f"this user only reads, yet it may do more than that: {', '.join(held)}",
            f"manager.conf, [{pbx.username}]: {_READER_LINES}",
        )
    else:
        yield Finding("event user's classes", Verdict.OK, "it may look, and do nothing else")
    if not observe:
        loaded = False
        for name in CONTEXTS:
            # Where one is there, the file is: it is an older one.
            include = "#tryinclude ringbridge.conf at the top of extensions.conf"
            finding = _context(reader, name, _WRITE_ANEW if loaded else include)
            loaded = loaded or finding.verdict is Verdict.OK
            yield finding
        yield from _dialplan_version(reader)
    yield _context(
        reader, pbx.context, "context of this PBX in the settings: the one where agents' phones dial"
    )
    yield from _trunk(pbx, reader)
    yield from _queues(reader)
    yield from _events(pbx, reader.watch(watch_seconds), watch_seconds)


def _commands(dialogue: Dialogue) -> frozenset[str]:
    """The actions that this user may send; Asterisk lists no others."""
    reply = dialogue.ask("ListCommands")
    return frozenset(name for name, value in reply.items() if "(Priv:" in value)


def _version(reader: Dialogue) -> Iterator[Finding]:
    text = reader.ask("CoreSettings").get("AsteriskVersion", "")
    numbers = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if numbers is None:
        yield Finding("version", Verdict.WARN, f"it does not say its version ({text or 'nothing'})")
        return
    version = tuple(int(part or 0) for part in numbers.groups())
    yield known_holes(version, certified="cert" in text)
    if version[0] < 16:
        yield Finding(
            "version tested", Verdict.WARN, f"Asterisk {text} is older than what is tested (16 to 22)"
        )


def known_holes(version: tuple[int, ...], *, certified: bool = False) -> Finding:
    """What is known of a version. Certified releases have numbers of their own and are judged with a warning."""
    name = ".".join(str(part) for part in version)
    fixed = _FIXED.get(version[0])
    if certified or (version[0] < 22 and (fixed is None or version < fixed)):
        return Finding(
            "version",
            Verdict.WARN,
            f"Asterisk {name}: CVE-2024-42365, an AMI user with `originate` may reach code execution",
            "upgrade to 18.24.2, 20.9.2, 21.4.2, certified 18.9-cert11 or 20.7-cert2, or any 22; until then keep the "
            "AMI on loopback",
        )
    return Finding(
        "version", Verdict.OK, f"Asterisk {name}, with no hole known to this version of Ringbridge"
    )


def _context(reader: Dialogue, name: str, change: str) -> Finding:
    response, items = reader.ask_list("ShowDialPlan", "ShowDialPlanComplete", Context=name)
    if response.get("Response") == "Error" or not items:
        denied = "ermission" in response.get("Message", "")
        return Finding(
            f"context {name}",
            Verdict.WARN if denied else Verdict.FAIL,
            "this user may not look at the dialplan" if denied else "the dialplan has no such context",
            f"manager.conf: {_READER_LINES}" if denied else f"{change}; then asterisk -rx 'dialplan reload'",
        )
    return Finding(f"context {name}", Verdict.OK, "it is loaded")


def _dialplan_version(reader: Dialogue) -> Iterator[Finding]:
    response, items = reader.ask_list("ShowDialPlan", "ShowDialPlanComplete", Context=CONTEXTS[0])
    if response.get("Response") == "Error" or not items:
        # Said of the context already.
        return
    said = next((item.get("AppData", "") for item in items if item.get("Extension") == "version"), "")
    found = re.search(r"(\d+)$", said)
    version = int(found[1]) if found else 1
    if version >= DIALPLAN_VERSION:
        yield Finding("ringbridge.conf", Verdict.OK, f"the dialplan is of version {version}")
        return
    lacks = ", and ".join(what for since, what in _SINCE.items() if version < since)
    yield Finding(
        "ringbridge.conf",
        Verdict.FAIL,
        f"the dialplan is of version {version}, and this Ringbridge needs {DIALPLAN_VERSION}: an older one {lacks}",
        f"{_WRITE_ANEW}; then asterisk -rx 'dialplan reload'",
    )


def _trunk(pbx: Pbx, reader: Dialogue) -> Iterator[Finding]:
    technology, _, rest = pbx.dial.partition("/")
    device = f"{technology}/{rest.rpartition('@')[2].partition('/')[0]}"
    about = f"trunk {device}"
    if "{number}" in device:
        yield Finding(
            about, Verdict.WARN, f"a {technology} destination cannot be looked up; dial a test number once"
        )
        return
    # A question only: the function reads, and the user needs no more than `reporting` for it.
    response = reader.ask("Getvar", Variable=f"DEVICE_STATE({device})")
    state = response.get("Value", "")
    if response.get("Response") != "Success":
        yield Finding(about, Verdict.WARN, "this user may not look devices up; dial a test number once")
    elif state == "INVALID":
        yield Finding(
            about,
            Verdict.FAIL,
            "the PBX knows no such device",
            "dial and trunks of this PBX in the settings; `asterisk -rx 'pjsip show endpoints'` lists what there is",
        )
    elif state == "UNAVAILABLE":
        yield Finding(
            about,
            Verdict.WARN,
            "the device is there, and not reachable now",
            "asterisk -rx 'pjsip show endpoints'",
        )
    else:
        yield Finding(about, Verdict.OK, "the device is there")


def _queues(reader: Dialogue) -> Iterator[Finding]:
    _, items = reader.ask_list("QueueStatus", "QueueStatusComplete")
    members = [item for item in items if item.get("Event") == "QueueMember"]
    blind = [
        member
        for member in members
        if member.get("Location", "").startswith("Local/")
        and member.get("StateInterface", member.get("Location")) == member.get("Location")
    ]
    for member in blind:
        queue, location = member.get("Queue", ""), member.get("Location", "")
        yield Finding(
            f"queue {queue}",
            Verdict.WARN,
            f"the member {location} is a Local channel without a state interface: the queue cannot see that its "
            "phone is busy",
            f"queues.conf, [{queue}]: member => {location},0,{member.get('Name', '')},PJSIP/<the phone>",
        )
    if not blind:
        count = sum(item.get("Event") == "QueueParams" for item in items)
        yield Finding("queues", Verdict.OK, f"{count} queues with {len(members)} members, nothing to change")


def _events(pbx: Pbx, events: list[Message], watch_seconds: float) -> Iterator[Finding]:
    if any("dialplan" in event.get("Privilege", "") for event in events):
        yield Finding(
            "dialplan events",
            Verdict.WARN,
            "half of all events are steps of the dialplan that nobody here reads",
            f"manager.conf, [{pbx.username}]: {_READER_LINES}",
        )
    # This one is written to us alone, and never carries a time.
    happened = [event for event in events if event.get("Event") != "FullyBooted"]
    if not happened:
        yield Finding(
            "events",
            Verdict.WARN,
            f"nothing happened on the PBX within {watch_seconds:g} s, so events were not seen; call somebody while "
            "`ringbridge check --watch 30` runs",
        )
    elif all("Timestamp" not in event for event in happened):
        yield Finding(
            "timestamps",
            Verdict.WARN,
            "events carry no time of the PBX, so that waiting times include the network's delay",
            f"manager.conf, [general]: timestampevents = yes; then {_RELOAD_MANAGER}",
        )
    else:
        yield Finding("events", Verdict.OK, "they come, and carry the PBX's own time")


def _commander(pbx: Pbx) -> Iterator[Finding]:
    try:
        with Dialogue(pbx, pbx.command_username, pbx.read_command_secret()) as commander:
            yield Finding("command user", Verdict.OK, f"{pbx.command_username} may log in")
            commands = _commands(commander)
    except LoginRefused as error:
        yield _refused("command user", error, pbx.command_username)
        return
    except Unavailable as error:
        yield Finding("command user", Verdict.FAIL, error.message)
        return
    change = f"manager.conf, [{pbx.command_username}]: {_COMMAND_LINES}"
    if missing := [name for name in ("Originate", "Hangup", "DBGet") if name not in commands]:
        yield Finding(
            "command user's classes", Verdict.FAIL, f"this user may not: {', '.join(missing)}", change
        )
    elif held := [name for name in _TOO_MUCH if name in commands]:
        yield Finding(
            "command user's classes",
            Verdict.WARN,
            f"this user may do more than dial: {', '.join(held)}",
            change,
        )
    else:
        yield Finding("command user's classes", Verdict.OK, "it may dial, act on calls and hang up, and no more")
    if not missing and (lacking := [name for name in _ACTING if name not in commands]):
        yield Finding(
            "actions on calls",
            Verdict.WARN,
            f"this PBX does not offer to this user: {', '.join(lacking)}",
            f"modules.conf: load {', '.join(sorted({_ACTING[name] for name in lacking}))}; {change}",
        )
