"""What `ringbridge init` puts into an Asterisk and `ringbridge uninstall` takes out: planned first, then written.

Two files of our own hold everything; the PBX's own files get one include each, between marker lines at their top, where
no line that somebody adds at the end falls into our section. On FreePBX, which rewrites its files, the includes go into
the `_custom` files that it leaves alone.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import ringbridge_dialplan as dialplan
from bridge.domain.errors import Invalid, SettingsError

BEGIN = "; BEGIN ringbridge (ringbridge uninstall takes this out)"
END = "; END ringbridge"
_BLOCK = re.compile(rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}\n", re.MULTILINE | re.DOTALL)
_MANAGER_D = re.compile(r'^\s*#(?:try)?include\s+"?(?:[\w/]*/)?manager\.d/\*\.conf"?', re.MULTILINE)
_SECRET = re.compile(r"(?im)^([+ -]?\s*secret\s*=\s*).+$|(\"esl-password\" value=)\"[^\"]*\"")
RELOAD = ("asterisk -rx 'manager reload'", "asterisk -rx 'dialplan reload'")


class Flavour(StrEnum):
    """Who owns the files of the PBX."""

    ASTERISK = "asterisk"
    FREEPBX = "freepbx"
    FREESWITCH = "freeswitch"
    FUSIONPBX = "fusionpbx"
    REMOTE = "remote"
    """On another machine: nothing is written, the text is shown to be pasted there."""


@dataclass(frozen=True)
class Change:
    """One file as it is and as it will be; None stands for a file that is not there."""

    path: Path
    old: str | None
    new: str | None
    mode: int = 0o640
    """For a file that is made; one that is there keeps its own."""
    like: Path | None = None
    """Whose owner a new file gets."""
    backup: bool = True
    secret: bool = False
    """All of it is a secret, and never shown."""

    def diff(self) -> str:
        """A unified diff for people; secrets are not shown."""
        before = (self.old or "").splitlines(keepends=True)
        after = (self.new or "").splitlines(keepends=True)
        lines = difflib.unified_diff(
            before,
            after,
            "/dev/null" if self.old is None else str(self.path),
            "/dev/null" if self.new is None else str(self.path),
            n=1,
        )
        return hide_secrets("".join(line if line.endswith("\n") else f"{line}\n" for line in lines))


@dataclass(frozen=True)
class PbxUsers:
    """The two users of a PBX; without `command_secret` there is only the one that reads."""

    reader: str
    reader_secret: str
    command: str
    command_secret: str | None
    permit: str
    """address/mask (Asterisk) or address (FreeSWITCH) from which Ringbridge connects."""


def hide_secrets(text: str) -> str:
    """The text of a file or diff as it may be shown."""
    return _SECRET.sub(r"\1\2(not shown)", text)


def detect(folder: Path) -> Flavour:
    """FreePBX or a plain Asterisk in this folder; REMOTE where there is no Asterisk here."""
    if not (folder / "extensions.conf").exists() and not (folder / "manager.conf").exists():
        return Flavour.REMOTE
    marks = [folder.parent / "freepbx.conf", *folder.glob("freepbx*"), folder / "extensions_additional.conf"]
    return Flavour.FREEPBX if any(mark.exists() for mark in marks) else Flavour.ASTERISK


def manager_text(users: PbxUsers) -> str:
    """The include for the AMI. Raises Invalid for a name or secret that could mean something to Asterisk."""
    try:
        text = dialplan.asterisk_manager(
            reader_user=users.reader,
            reader_secret=users.reader_secret,
            command_user=users.command,
            command_secret=users.command_secret or "none",
            permit=users.permit,
        )
    except ValueError as error:
        raise Invalid(str(error)) from None
    if users.command_secret is None:
        # Observe only: a user that may originate would be a hole that nobody needs.
        text = text.partition(f"[{users.command}]")[0].rstrip()
        text = re.sub(r"\n\n;[^\n]*\Z", "", text) + "\n"
    return text


def snippets(users: PbxUsers) -> dict[str, str]:
    """File name -> text of what goes into the PBX."""
    texts = {dialplan.ASTERISK_MANAGER: manager_text(users)}
    if users.command_secret is not None:
        texts[dialplan.ASTERISK_DIALPLAN] = dialplan.asterisk_dialplan()
    return texts


def by_hand(flavour: Flavour, users: PbxUsers) -> list[tuple[str, str]]:
    """What nobody but an administrator can do: a sentence, and the text that belongs to it."""
    if flavour is not Flavour.REMOTE:
        return []
    steps = [(f"Put this there as /etc/asterisk/{name}:", text) for name, text in snippets(users).items()]
    steps.append(
        (
            "At the top of manager.conf there (FreePBX: manager_custom.conf):",
            f"#tryinclude {dialplan.ASTERISK_MANAGER}\n",
        )
    )
    if users.command_secret is not None:
        steps.append(
            (
                "At the top of extensions.conf there (FreePBX: extensions_custom.conf):",
                f"#tryinclude {dialplan.ASTERISK_DIALPLAN}\n",
            )
        )
    return steps


def plan_install(folder: Path, flavour: Flavour, users: PbxUsers) -> list[Change]:
    """The changes that put it in; an empty list where everything is there already. Raises SettingsError."""
    texts = snippets(users)
    manager, extensions = _hosts(folder, flavour)
    changes: list[Change] = []
    drop_in = flavour is Flavour.ASTERISK and _MANAGER_D.search(read(manager) or "") is not None
    if drop_in:
        changes.append(_file(folder / "manager.d" / "ringbridge.conf", texts[dialplan.ASTERISK_MANAGER], manager))
    else:
        changes.append(_file(folder / dialplan.ASTERISK_MANAGER, texts[dialplan.ASTERISK_MANAGER], manager))
        changes.append(_include(manager, dialplan.ASTERISK_MANAGER))
    if dialplan.ASTERISK_DIALPLAN in texts:
        changes.append(_file(folder / dialplan.ASTERISK_DIALPLAN, texts[dialplan.ASTERISK_DIALPLAN], extensions))
        changes.append(_include(extensions, dialplan.ASTERISK_DIALPLAN))
    return [change for change in changes if change.old != change.new]


def plan_uninstall(folder: Path) -> list[Change]:
    """The changes that take out what `plan_install` put in, in either flavour. Raises SettingsError."""
    changes = []
    for name in ("manager.conf", "extensions.conf", "manager_custom.conf", "extensions_custom.conf"):
        path = (folder / name).resolve()
        old = read(path)
        if old is not None and (new := _BLOCK.sub("", old)) != old:
            # A `_custom` file stays even where it is empty now: FreePBX includes it by name.
            changes.append(Change(path, old, new))
    for path in (
        folder / dialplan.ASTERISK_MANAGER,
        folder / dialplan.ASTERISK_DIALPLAN,
        folder / "manager.d" / "ringbridge.conf",
    ):
        if (old := read(path)) is not None:
            changes.append(Change(path, old, None))
    return changes


def apply(changes: Iterable[Change], now: datetime) -> list[Path]:
    """Write the changes, each file in one step. Returns the backups made. Raises SettingsError."""
    backups = []
    for change in changes:
        path = change.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if change.old is not None and change.backup:
                backup = path.with_name(f"{path.name}.before-ringbridge-{now:%Y%m%dT%H%M%S}")
                _copy(path, backup)
                backups.append(backup)
            if change.new is None:
                path.unlink()
            else:
                _write(change, change.new)
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be written: {error.strerror}; run this as a user who may (root)"
            ) from None
    return backups


def manager_hints(folder: Path) -> list[str]:
    """What in manager.conf's own [general] section keeps Ringbridge out, each with the line to set."""
    text = read(folder / "manager.conf") or ""
    general = re.search(r"^\[general\][^\n]*\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    values = dict(
        re.findall(r"^\s*([a-z]+)\s*=>?\s*([^\s;]+)", general.group(1) if general else "", re.MULTILINE)
    )
    hints = []
    if values.get("enabled", "no").lower() not in {"yes", "true", "on", "1"}:
        hints.append(f"the AMI is off: in {folder / 'manager.conf'}, section [general], set `enabled = yes`")
    if values.get("bindaddr", "0.0.0.0") == "0.0.0.0":
        hints.append(
            f"the AMI listens on every address: in {folder / 'manager.conf'}, section [general], "
            "`bindaddr = 127.0.0.1` keeps it to this machine"
        )
    if values.get("timestampevents", "no").lower() not in {"yes", "true", "on", "1"}:
        hints.append(
            f"events carry no time: in {folder / 'manager.conf'}, section [general], `timestampevents = yes` "
            "makes waiting times exact to the millisecond"
        )
    return hints


def read(path: Path) -> str | None:
    """A file's text, None where there is none. Bytes that are no UTF-8 survive. Raises SettingsError."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; run this as a user who may (root)") from None


def _hosts(folder: Path, flavour: Flavour) -> tuple[Path, Path]:
    """The files that include ours: of the AMI, of the dialplan."""
    suffix = "_custom" if flavour is Flavour.FREEPBX else ""
    manager, extensions = (folder / f"{name}{suffix}.conf" for name in ("manager", "extensions"))
    for path in (manager, extensions):
        if flavour is Flavour.ASTERISK and not path.exists():
            raise SettingsError(f"there is no {path}; name the folder of the PBX with --asterisk-dir")
    # A link to a file elsewhere stays a link.
    return manager.resolve(), extensions.resolve()


def _file(path: Path, text: str, like: Path) -> Change:
    return Change(path, read(path), text, like=like if like.exists() else path.parent)


def _include(path: Path, name: str) -> Change:
    """One block at the file's top. `tryinclude`: should our file vanish, the PBX still loads its own."""
    old = read(path)
    block = f"{BEGIN}\n#tryinclude {name}\n{END}\n"
    return Change(path, old, block + _BLOCK.sub("", old or ""), like=path.parent)


def _copy(path: Path, target: Path) -> None:
    shutil.copy2(path, target)
    _own(target, path.stat())


def _write(change: Change, text: str) -> None:
    path = change.path
    there = path.stat() if change.old is not None else None
    like = there or (change.like.stat() if change.like is not None else None)
    mode = change.mode if there is None else there.st_mode & 0o7777
    draft = path.with_name(f".{path.name}.ringbridge-new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode & 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    if like is not None:
        _own(draft, like)
    draft.chmod(mode)
    draft.replace(path)


def _own(path: Path, like: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(path, like.st_uid, like.st_gid)
