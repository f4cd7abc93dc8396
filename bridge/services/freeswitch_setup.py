"""What `ringbridge init` puts into a FreeSWITCH and `ringbridge uninstall` takes out: two files, and no line of theirs.

FreeSWITCH reads every file of its folders `dialplan` and `directory`, so nothing needs to be included. FusionPBX keeps
its dialplan in its database and reads no file of that folder: there our context is a text to paste, and the users are a
file. (Read in its source; not tried on a real FusionPBX.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

import ringbridge_dialplan as dialplan
from bridge.domain.errors import Invalid, SettingsError
from bridge.services.pbx_setup import Change, Flavour, PbxUsers, read

FOLDERS = (Path("/etc/freeswitch"), Path("/usr/local/freeswitch/conf"))
"""Where a FreeSWITCH has its configuration, by package and by source."""
_FUSIONPBX = (Path("/etc/fusionpbx/config.conf"), Path("/etc/fusionpbx/config.php"))
_BOUND = re.compile(r"xml-handler-bindings\"\s+value=\"[^\"]*\bdialplan\b")
_CONTEXTS = ("ringbridge-go", "ringbridge-confirm", "ringbridge-place", "ringbridge-queue")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def reload_commands(port: int = 8021) -> tuple[str, ...]:
    """Makes it read its files; with the port where fs_cli would not find it."""
    return (f"fs_cli {'' if port == 8021 else f'-P {port} '}-x reloadxml",)


def find(folders: Iterable[Path] = FOLDERS) -> Path | None:
    """The first folder that holds a FreeSWITCH's configuration."""
    return next((folder for folder in folders if (folder / "freeswitch.xml").exists()), None)


def detect(folder: Path, marks: Iterable[Path] = _FUSIONPBX) -> Flavour:
    """FusionPBX or a plain FreeSWITCH in this folder; REMOTE where there is no FreeSWITCH here."""
    if not (folder / "freeswitch.xml").exists():
        return Flavour.REMOTE
    lua = _COMMENT.sub("", read(folder / "autoload_configs" / "lua.conf.xml") or "")
    return Flavour.FUSIONPBX if _BOUND.search(lua) or any(mark.exists() for mark in marks) else Flavour.FREESWITCH


def users_text(users: PbxUsers) -> str:
    """The users of the event socket. Raises Invalid for a name or secret that could mean something to FreeSWITCH."""
    reader, _, domain = users.reader.partition("@")
    command, _, other = users.command.partition("@")
    if not domain or domain != other:
        raise Invalid("username and command_username must be name@domain, both of one domain that no phone is in")
    try:
        return dialplan.freeswitch_users(
            reader_user=reader,
            reader_secret=users.reader_secret,
            command_user=command,
            command_secret=users.command_secret,
            domain=domain,
        )
    except ValueError as error:
        raise Invalid(str(error)) from None


def snippets(users: PbxUsers) -> dict[str, str]:
    """Path below the configuration's folder -> text of what goes there."""
    texts = {f"directory/{dialplan.FREESWITCH_USERS}": users_text(users)} if "@" in users.reader else {}
    if users.command_secret is not None:
        texts[f"dialplan/{dialplan.FREESWITCH_DIALPLAN}"] = dialplan.freeswitch_dialplan()
    return texts


def plan_install(folder: Path, flavour: Flavour, users: PbxUsers) -> list[Change]:
    """The changes that put it in; an empty list where everything is there already. Raises SettingsError."""
    changes = []
    for name, text in snippets(users).items():
        path = folder / name
        if flavour is Flavour.FUSIONPBX and path.parent.name == "dialplan":
            continue
        if not path.parent.is_dir():
            raise SettingsError(f"there is no {path.parent}; name the folder of the PBX with --freeswitch-dir")
        changes.append(Change(path, read(path), text, like=path.parent))
    return [change for change in changes if change.old != change.new]


def plan_uninstall(folder: Path) -> list[Change]:
    """The changes that take out what `plan_install` put in, in either flavour. Raises SettingsError."""
    paths = (folder / "directory" / dialplan.FREESWITCH_USERS, folder / "dialplan" / dialplan.FREESWITCH_DIALPLAN)
    return [Change(path, old, None) for path in paths if (old := read(path)) is not None]


def extensions_text(context: str) -> str:
    """The extensions of a context of ours, as FusionPBX's dialplan manager takes them."""
    whole = dialplan.freeswitch_dialplan()
    found = re.search(rf"<context name=\"{context}\">\n(.*?)\n *</context>", whole, re.DOTALL)
    assert found is not None
    lines = _COMMENT.sub("", found[1]).splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines if line.strip()) + "\n"


def by_hand(flavour: Flavour, users: PbxUsers) -> list[tuple[str, str]]:
    """What nobody but an administrator can do: a sentence, and the text that belongs to it."""
    steps = []
    if flavour is Flavour.REMOTE:
        for name, text in snippets(users).items():
            steps.append((f"Put this there as {name}, below the folder of freeswitch.xml:", text))
        acl = acl_text(users.permit)
        if not ip_network(users.permit, strict=False).is_loopback:
            steps.append(("Let this machine in, where the event socket is reached without a tunnel:", acl))
    if users.command_secret is not None and flavour in {Flavour.FUSIONPBX, Flavour.REMOTE}:
        remote = "Only where that is a FusionPBX, which reads no file of dialplan/: "
        for context in _CONTEXTS:
            steps.append(
                (
                    f"{remote if flavour is Flavour.REMOTE else ''}In its web pages, Dialplan Manager, add an entry: "
                    f"name {context}, context {context}, order 1, enabled, for all domains (global); then press XML "
                    "on it and put this in place of what is there:",
                    extensions_text(context),
                )
            )
    return steps


def acl_text(permit: str) -> str:
    """A list of addresses for acl.conf.xml. Raises Invalid."""
    try:
        return dialplan.freeswitch_acl(permit)
    except ValueError as error:
        raise Invalid(f"--permit: {error}", field="permit") from None


def hints(folder: Path) -> list[str]:
    """What in the PBX's own files keeps Ringbridge out or lets others in, each with the line to set."""
    root = _COMMENT.sub("", read(folder / "freeswitch.xml") or "")
    told = [
        f"{folder / 'freeswitch.xml'} does not read {name}/*.xml: add to its section {name} "
        f'<X-PRE-PROCESS cmd="include" data="{name}/*.xml"/>'
        for name in ("dialplan", "directory")
        if f'data="{name}/*.xml"' not in root
    ]
    socket = folder / "autoload_configs" / "event_socket.conf.xml"
    params = dict(
        re.findall(r"<param\s+name=\"([\w-]+)\"\s+value=\"([^\"]*)\"", _COMMENT.sub("", read(socket) or ""))
    )
    if params.get("password", "ClueCon") == "ClueCon":
        told.append(
            f"the event socket has the password that every FreeSWITCH is installed with: in {socket}, "
            '<param name="password" value="a long secret"/>, then fs_cli -x \'reload mod_event_socket\'; fs_cli and '
            "your other programs need it too"
        )
    if params.get("listen-ip", "127.0.0.1") in {"::", "0.0.0.0"}:
        told.append(
            f'the event socket listens on every address: in {socket}, <param name="listen-ip" value="127.0.0.1"/> '
            "keeps it to this machine"
        )
    modules = _COMMENT.sub("", read(folder / "autoload_configs" / "modules.conf.xml") or "")
    told += [
        f'{module} is not loaded at start: in {folder / "autoload_configs" / "modules.conf.xml"}, '
        f'<load module="{module}"/>; now: fs_cli -x \'load {module}\''
        for module in ("mod_event_socket", "mod_hash")
        if modules and f'module="{module}"' not in modules
    ]
    return told
