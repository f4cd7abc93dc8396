"""What goes into the PBX: the files of this folder, and how their placeholders are filled."""

from __future__ import annotations

import re
from pathlib import Path

ASTERISK_DIALPLAN = "ringbridge.conf"
ASTERISK_MANAGER = "ringbridge-manager.conf"

_SAFE_VALUE = re.compile(r"[A-Za-z0-9._/-]{1,128}")


def asterisk_dialplan() -> str:
    """The text of the dialplan include: contexts `ringbridge-leg` and `ringbridge-go`."""
    return _read(ASTERISK_DIALPLAN)


def asterisk_manager(
    *,
    reader_secret: str,
    command_secret: str,
    reader_user: str = "ringbridge",
    command_user: str = "ringbridge-dial",
    permit: str = "127.0.0.1/255.255.255.255",
) -> str:
    """The text of the AMI include with both users filled in.

    `permit` is the address/mask Ringbridge connects from. Raises ValueError where a value holds
    anything that could end its line or mean something to Asterisk.
    """
    values = {
        "READER_USER": reader_user,
        "READER_SECRET": reader_secret,
        "COMMAND_USER": command_user,
        "COMMAND_SECRET": command_secret,
        "PERMIT": permit,
    }
    text = _read(ASTERISK_MANAGER)
    for key, value in values.items():
        if not _SAFE_VALUE.fullmatch(value):
            raise ValueError(f"{key.lower()} may hold letters, digits and . _ / - only, at most 128")
        text = text.replace(f"@{key}@", value)
    return text


def _read(name: str) -> str:
    return (Path(__file__).parent / "asterisk" / name).read_text(encoding="utf-8")
