"""The settings file and the secret files that `ringbridge init` writes."""

from __future__ import annotations

import re
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from bridge.domain.errors import SettingsError
from bridge.services.pbx_setup import Change, read
from bridge.settings import Pbx, checked

_HEAD = """\
# Ringbridge's settings; every key is in bridge/README.md. RINGBRIDGE_<SECTION>__<KEY> in the environment overrides one.
"""
_MODE = re.compile(r'(^\[dialing\][^\n]*\n(?:(?!\[)[^\n]*\n)*?mode\s*=\s*")(?:observe|dial)(")', re.MULTILINE)
_LATER = """
[redis]
# url = "redis://..."      without one, `ringbridge up` keeps a private server in data_dir

[database]
# url = "postgresql+psycopg://..."      without one, SQLite in data_dir
"""


@dataclass(frozen=True)
class Secret:
    """A secret and the file that holds it."""

    path: Path
    value: str
    made: bool

    def change(self) -> Change:
        return Change(self.path, None if self.made else self.value, self.value, mode=0o600, backup=False, secret=True)


def secret_in(path: Path) -> Secret:
    """The secret that is in the file, else a new one to be written there. Raises SettingsError."""
    old = read(path)
    if old is not None and old.strip():
        return Secret(path, old.strip(), made=False)
    return Secret(path, secrets.token_urlsafe(24), made=True)


def existing(path: Path) -> dict[str, Any]:
    """The tables in the file, none where there is no file. Raises SettingsError."""
    try:
        return tomllib.loads(read(path) or "")
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None


def plan(path: Path, pbx: Pbx, *, mode: str, bind: str, data_dir: Path, regions: tuple[str, ...]) -> Change | None:
    """The change of the settings file that names this PBX and the mode; None where it says both already.

    What somebody wrote into the file stays as it is; a PBX that is new is added at its end. Raises SettingsError
    where what would be there then are no settings.
    """
    change = _plan(path, pbx, mode, bind, data_dir, regions)
    if change is not None:
        checked(tomllib.loads(change.new or ""), f"{path}, as they would be; nothing was changed")
    return change


def _plan(
    path: Path, pbx: Pbx, mode: str, bind: str, data_dir: Path, regions: tuple[str, ...]
) -> Change | None:
    old = read(path)
    table = {"pbx": [_table(pbx)]}
    if old is None:
        head = {
            "data_dir": str(data_dir),
            "http": {"bind": bind},
            "dialing": {"mode": mode, "regions": list(regions)},
        }
        new = _HEAD + tomli_w.dumps(head) + _LATER + "\n" + tomli_w.dumps(table)
        return Change(path, None, new, mode=0o600)
    new = old
    if existing(path).get("dialing", {}).get("mode", "dial") != mode:
        new, count = _MODE.subn(rf"\g<1>{mode}\g<2>", new)
        if count != 1:
            raise SettingsError(f'write mode = "{mode}" below [dialing] in {path} yourself, then run this again')
    if all(entry.get("name") != pbx.name for entry in existing(path).get("pbx", [])):
        new = new.rstrip("\n") + "\n\n" + tomli_w.dumps(table)
    return Change(path, old, new) if new != old else None


def _table(pbx: Pbx) -> dict[str, Any]:
    """What differs from the defaults, and what an operator will look for."""
    shown = {"name", "kind", "host", "port", "context", "dial", "trunks"}
    fields = pbx.model_dump(mode="json", exclude_none=True)
    defaults = {
        name: list(field.default) if isinstance(field.default, tuple) else field.default
        for name, field in Pbx.model_fields.items()
    }
    return {
        name: value
        for name, value in fields.items()
        if name in shown or value != defaults.get(name)
    }
