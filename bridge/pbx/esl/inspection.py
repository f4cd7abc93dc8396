"""Looks at a live FreeSWITCH over its event socket, with questions only: nothing is dialled, set or reloaded."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from bridge.domain.errors import RingbridgeError, SettingsError, Unavailable
from bridge.pbx.esl.act_orders import ACTED
from bridge.pbx.esl.dialogue import EVERYTHING, AddressRefused, Denied, Dialogue, LoginRefused
from bridge.pbx.esl.hearing import CUSTOM, EVENTS, SUBCLASSES
from bridge.pbx.findings import Finding, Verdict
from bridge.settings import DEFAULT_FREESWITCH_PASSWORD, Pbx

CONTEXT = "ringbridge-go"
DIALPLAN_VERSION = 5
"""Of ringbridge.xml: what its extension `version` must say at least."""
_FIXED = (1, 10, 11)
_HOLES = "CVE-2021-41105, CVE-2021-41157, CVE-2023-40018, CVE-2023-51443 and others: calls can be ended or spied on"
_ASKED = ("show", "status", "strepoch", "uuid_dump", "callcenter_config")
_COMMANDED = ("expand", "originate", "hash", "uuid_kill", "strepoch", *ACTED)
_COMMANDER = ("expand", "originate", "hash", "uuid_kill", "strepoch", "xml_locate", "sofia", "show", *ACTED)
"""What ringbridge-users.xml gives it: `xml_locate`, `sofia` and `show` are for this inspection."""
_TOO_MUCH = ("originate", "expand", "system", "bg_system", "lua", "luarun", "python", "hash", "uuid_transfer", "load")
_MODULES = {
    "mod_commands": "ask or command anything",
    "mod_dptools": "join two legs",
    "mod_dialplan_xml": "run our dialplan",
    "mod_sofia": "reach phones and trunks",
    "mod_hash": "keep the receipts without which nothing is dialled",
}
_DIAL_ONLY = {"mod_dptools", "mod_dialplan_xml", "mod_hash"}
_BOUND = re.compile(r"xml-handler-bindings\"\s+value=\"[^\"]*\bdialplan\b")
_RELOAD = "fs_cli -x reloadxml"
_RELOAD_SOCKET = "fs_cli -x 'reload mod_event_socket'"
_SOCKET = "autoload_configs/event_socket.conf.xml"


def inspect(pbx: Pbx, *, observe: bool, watch_seconds: float) -> Iterator[Finding]:
    """Finding by finding. Ends early where a failure leaves nothing to look at. Raises SettingsError for a secret."""
    yield from _wire(pbx)
    try:
        with Dialogue(pbx, pbx.username, pbx.read_secret()) as reader:
            yield Finding("reachable", Verdict.OK, f"an event socket answers at {pbx.host}:{pbx.port}")
            yield Finding("event user", Verdict.OK, f"{_name(pbx.username)} may sign in")
            yield _default_password(pbx)
            yield from _reader(pbx, reader, observe, watch_seconds)
    except LoginRefused as error:
        yield Finding("reachable", Verdict.OK, f"an event socket answers at {pbx.host}:{pbx.port}")
        yield _refused("event user", error, pbx.username)
    except AddressRefused as error:
        yield Finding(
            "reachable",
            Verdict.FAIL,
            error.message,
            "autoload_configs/acl.conf.xml, in the list that apply-inbound-acl of event_socket.conf.xml names: "
            f'<node type="allow" cidr="{ipaddress.ip_network(error.own)}"/>; then fs_cli -x reloadacl. Where it names '
            "none, only the PBX's own machine may come in: the settings' host must be 127.0.0.1 there; from another "
            "machine, `ringbridge init` shows a list to paste",
        )
        return
    except SettingsError:
        raise
    except RingbridgeError as error:
        yield Finding(
            "reachable",
            Verdict.FAIL,
            error.message,
            f"autoload_configs/modules.conf.xml: <load module=\"mod_event_socket\"/>, and listen-ip and listen-port in "
            f"{_SOCKET} as the settings say; or set host and port of this PBX",
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
            "the secrets, and events with callers' numbers and names, cross the network in clear: the event socket has "
            "no encryption",
            "a tunnel from here to the PBX (WireGuard, or ssh -L), and its near end as host and port of this PBX",
        )


def _name(username: str) -> str:
    return username or "whoever knows the event socket's password"


def _refused(about: str, error: LoginRefused, username: str) -> Finding:
    by_name = "@" in username
    place = "directory/ringbridge-users.xml, esl-password" if by_name else f"{_SOCKET}, password"
    return Finding(
        about,
        Verdict.FAIL,
        error.message,
        f"{place}: the secret of the settings"
        + ("; `ringbridge init` writes both" if by_name else "")
        + f". FreeSWITCH must be able to read that file, and does so at {_RELOAD if by_name else _RELOAD_SOCKET}",
    )


def _default_password(pbx: Pbx) -> Finding:
    about = "default password"
    try:
        Dialogue(pbx, "", DEFAULT_FREESWITCH_PASSWORD).__exit__(None, None, None)
    except Unavailable:
        return Finding(about, Verdict.OK, "it is changed")
    return Finding(
        about,
        Verdict.WARN if pbx.allow_default_password else Verdict.FAIL,
        "the event socket takes the password that every FreeSWITCH is installed with: whoever reaches it may run any "
        "program there",
        f'{_SOCKET}: <param name="password" value="a long secret"/>; then {_RELOAD_SOCKET}',
    )


def _reader(pbx: Pbx, reader: Dialogue, observe: bool, watch_seconds: float) -> Iterator[Finding]:
    yield from _permissions(
        "event user",
        pbx.username,
        reader,
        needed=_ASKED,
        listed=_ASKED,
        events=(*EVENTS, CUSTOM, *SUBCLASSES),
        much=_TOO_MUCH,
    )
    if "status" in reader.apis or reader.apis == EVERYTHING:
        yield _version(reader.api("status"))
    yield from _modules(reader, observe)
    yield from _queues(reader)
    yield from _events(reader, watch_seconds)


def _permissions(
    about: str,
    username: str,
    dialogue: Dialogue,
    *,
    needed: tuple[str, ...],
    listed: tuple[str, ...],
    events: tuple[str, ...],
    much: tuple[str, ...],
) -> Iterator[Finding]:
    place = f"directory/ringbridge-users.xml, user {username.partition('@')[0]}"
    about = f"{about}'s permissions"
    if dialogue.apis == EVERYTHING or dialogue.hearable == EVERYTHING:
        yield Finding(
            about,
            Verdict.WARN,
            "this user may do everything: FreeSWITCH was given no list for it",
            "`ringbridge init` writes users with what they need, once this PBX has in the settings "
            'username = "ringbridge@ringbridge", command_username = "ringbridge-dial@ringbridge", and a new '
            "secret_file and command_secret_file"
            if "@" not in username
            else f'{place}: <param name="esl-allowed-api" value="{" ".join(listed)}"/> and esl-allowed-events '
            f"likewise; then {_RELOAD}",
        )
        return
    lacking = [name for name in needed if name not in dialogue.apis]
    deaf = [name for name in events if name not in dialogue.hearable]
    for missing, param in ((lacking, "esl-allowed-api"), (deaf, "esl-allowed-events")):
        if missing:
            yield Finding(
                about,
                Verdict.FAIL,
                f"{param} lacks {', '.join(missing)}",
                f'{place}: <param name="{param}" value="{" ".join(listed if missing is lacking else events)}"/>; '
                f"then {_RELOAD}",
            )
    held = [name for name in much if name in dialogue.apis]
    if held and not (lacking or deaf):
        yield Finding(
            about,
            Verdict.WARN,
            f"this user may do more than it needs: {', '.join(held)}",
            f'{place}: <param name="esl-allowed-api" value="{" ".join(listed)}"/>; then {_RELOAD}',
        )
    elif not (lacking or deaf):
        yield Finding(about, Verdict.OK, "what it needs, and no more")


def _version(status: str) -> Finding:
    numbers = re.search(r"\(Version (\d+)\.(\d+)(?:\.(\d+))?", status)
    if numbers is None:
        return Finding("version", Verdict.WARN, "it does not say its version")
    return known_holes(tuple(int(part or 0) for part in numbers.groups()))


def known_holes(version: tuple[int, ...]) -> Finding:
    """What is known of a version."""
    name = ".".join(str(part) for part in version)
    if version < _FIXED:
        fixed = ".".join(str(part) for part in _FIXED)
        return Finding("version", Verdict.WARN, f"FreeSWITCH {name}: {_HOLES}", f"upgrade to {fixed} or later")
    return Finding("version", Verdict.OK, f"FreeSWITCH {name}, with no hole known to this version of Ringbridge")


def _modules(reader: Dialogue, observe: bool) -> Iterator[Finding]:
    loaded = {row.get("ikey") for row in _rows(reader, "show modules as json")}
    if not loaded:
        return
    for module, use in _MODULES.items():
        if module not in loaded and not (observe and module in _DIAL_ONLY):
            yield Finding(
                module,
                Verdict.FAIL,
                f"it is not loaded, and without it there is no way to {use}",
                f"fs_cli -x 'load {module}', and autoload_configs/modules.conf.xml: <load module=\"{module}\"/>",
            )
    if set(_MODULES) <= loaded:
        yield Finding("modules", Verdict.OK, "those needed are loaded")
    if "mod_callcenter" not in loaded:
        yield Finding(
            "mod_callcenter",
            Verdict.WARN,
            "it is not loaded: calls that wait in queues of another module are seen as calls, and their queue is not",
            "fs_cli -x 'load mod_callcenter', where you want queues",
        )


def _rows(reader: Dialogue, question: str) -> list[dict[str, str]]:
    try:
        rows = json.loads(reader.api(question)).get("rows", [])
    except (Denied, ValueError, AttributeError):
        return []
    return [row for row in rows if isinstance(row, dict)]


def _queues(reader: Dialogue) -> Iterator[Finding]:
    """mod_callcenter answers with a table: names, then rows, split at bars, then +OK."""
    try:
        lines = reader.api("callcenter_config agent list").splitlines()
    except Denied:
        return
    names = lines[0].split("|") if lines else []
    if "contact" not in names:
        return
    rows = [dict(zip(names, line.split("|"), strict=False)) for line in lines[1:] if "|" in line]
    detours = [row for row in rows if "loopback/" in row.get("contact", "")]
    for row in detours:
        yield Finding(
            f"queue agent {row.get('name', '')}",
            Verdict.WARN,
            "its contact is a loopback: the queue cannot see that the phone is busy, and each call has four legs more",
            f'callcenter.conf.xml: <agent name="{row.get("name", "")}" contact="user/EXTENSION@DOMAIN" .../>',
        )
    if not detours:
        yield Finding("queues", Verdict.OK, f"{len(rows)} agents, nothing to change")


def _events(reader: Dialogue, watch_seconds: float) -> Iterator[Finding]:
    if not reader.subscribe(" ".join((*EVENTS, CUSTOM, *SUBCLASSES))):
        # Said of the permissions already.
        return
    if not reader.watch(watch_seconds):
        yield Finding(
            "events",
            Verdict.WARN,
            f"nothing happened on the PBX within {watch_seconds:g} s, so events were not seen; call somebody while "
            "`ringbridge check --watch 30` runs",
        )
    else:
        yield Finding("events", Verdict.OK, "they come, and carry the PBX's own time")


def _commander(pbx: Pbx) -> Iterator[Finding]:
    try:
        with Dialogue(pbx, pbx.command_username, pbx.read_command_secret()) as commander:
            yield Finding("command user", Verdict.OK, f"{_name(pbx.command_username)} may sign in")
            if pbx.command_username != pbx.username:
                yield from _permissions(
                    "command user",
                    pbx.command_username,
                    commander,
                    needed=_COMMANDED,
                    listed=_COMMANDER,
                    events=("BACKGROUND_JOB",),
                    much=("system", "bg_system", "lua", "luarun", "python", "load"),
                )
            yield from _dialplan(pbx, commander)
            yield from _gateway(pbx, commander)
            yield from _socket(commander)
    except LoginRefused as error:
        yield _refused("command user", error, pbx.command_username)
    except Unavailable as error:
        yield Finding("command user", Verdict.FAIL, error.message)


def _dialplan(pbx: Pbx, commander: Dialogue) -> Iterator[Finding]:
    try:
        # Through the expansion that every dial needs: where it is off, this finds nothing.
        text = commander.api("expand xml_locate dialplan context name ${regex(x|^x|" + CONTEXT + ")}")
        plain = commander.api(f"xml_locate dialplan context name {CONTEXT}")
        agents = commander.api(f"xml_locate dialplan context name {pbx.context}")
        handlers = commander.api("xml_locate configuration configuration name lua.conf")
    except Denied as error:
        yield Finding(
            "contexts",
            Verdict.WARN,
            f"{error.message}, so the dialplan was not seen",
            f'esl-allowed-api of user {pbx.command_username}: value="{" ".join(_COMMANDER)}"; then {_RELOAD}',
        )
        return
    found = re.search(r"Ringbridge dialplan (\d+)", plain)
    if found is None and _BOUND.search(handlers):
        yield Finding(
            "contexts",
            Verdict.WARN,
            "the dialplan comes out of a database (FusionPBX), which cannot be asked for one context from here",
            f"see in its Dialplan Manager that there is an entry of context {CONTEXT}, enabled; `ringbridge init "
            "--mode dial` shows what belongs there. Then dial a test number once",
        )
        return
    if found is None:
        yield Finding(
            f"context {CONTEXT}",
            Verdict.FAIL,
            "the dialplan has no such context",
            f"`ringbridge init --mode dial` puts dialplan/ringbridge.xml there; then {_RELOAD}",
        )
    elif int(found[1]) < DIALPLAN_VERSION:
        yield Finding(
            "ringbridge.xml",
            Verdict.FAIL,
            f"the dialplan is of version {found[1]}, and this Ringbridge needs {DIALPLAN_VERSION}",
            f"run `ringbridge init --mode dial` again, which shows and writes the new ringbridge.xml; then {_RELOAD}",
        )
    else:
        yield Finding(f"context {CONTEXT}", Verdict.OK, f"it is loaded, version {found[1]}")
    if found is not None and "Ringbridge dialplan" not in text:
        yield Finding(
            "expansion",
            Verdict.FAIL,
            "commands are not expanded, and without that nothing is dialled",
            'autoload_configs/switch.conf.xml: <param name="api-expansion" value="true"/>; then restart FreeSWITCH '
            "when no call is up",
        )
    if "<context" in agents:
        yield Finding(f"context {pbx.context}", Verdict.OK, "it is loaded")
    else:
        yield Finding(
            f"context {pbx.context}",
            Verdict.FAIL,
            "the dialplan has no such context",
            f"context of this PBX in the settings: the one where agents' phones dial; then {_RELOAD}",
        )


def _gateway(pbx: Pbx, commander: Dialogue) -> Iterator[Finding]:
    kind, _, rest = pbx.dial.partition("/")
    words = rest.split("/")
    about = f"trunk {kind}/{'/'.join(words[:2]) if words[0] == 'gateway' else words[0]}"
    if kind != "sofia" or "{number}" in about:
        yield Finding(about, Verdict.WARN, f"a {kind} destination cannot be looked up; dial a test number once")
        return
    gateway = words[0] == "gateway"
    name = words[1] if gateway else words[0]
    try:
        answer = commander.api(f"sofia status {'gateway' if gateway else 'profile'} {name}")
    except Denied as error:
        yield Finding(about, Verdict.WARN, f"{error.message}; dial a test number once")
        return
    state = dict(re.findall(r"^(State|Status)\s+(\S+)", answer, re.MULTILINE))
    change = "fs_cli -x 'sofia status' lists what there is; dial and trunks of this PBX in the settings"
    if "nvalid" in answer[:200]:
        yield Finding(about, Verdict.FAIL, "the PBX knows no such gateway or profile", change)
    elif gateway and (state.get("Status") == "DOWN" or state.get("State") not in {"NOREG", "REGED", None}):
        yield Finding(
            about,
            Verdict.WARN,
            f"the gateway is there, and not reachable now ({state.get('State')}, {state.get('Status')})",
            f"fs_cli -x 'sofia status gateway {name}'",
        )
    else:
        yield Finding(about, Verdict.OK, "the gateway is there" if gateway else "the profile is there")


def _socket(commander: Dialogue) -> Iterator[Finding]:
    """How the event socket itself is set; its password is in there, and goes no further."""
    try:
        text = commander.api("xml_locate configuration configuration name event_socket.conf")
        params = {p.get("name", ""): p.get("value", "") for p in ET.fromstring(text).iter("param")}
    except (Denied, ET.ParseError):
        return
    address = params.get("listen-ip") or "127.0.0.1"
    if address in {"0.0.0.0", "::", "any"}:
        yield Finding(
            "listening",
            Verdict.WARN,
            "the event socket listens on every address; "
            + (
                "only the list of addresses stands between a network and this PBX"
                if params.get("apply-inbound-acl")
                else "only its built-in list (loopback.auto) stands between a network and this PBX"
            ),
            f'{_SOCKET}: <param name="listen-ip" value="127.0.0.1"/>; then {_RELOAD_SOCKET}',
        )
    else:
        yield Finding("listening", Verdict.OK, f"the event socket listens on {address} only")
