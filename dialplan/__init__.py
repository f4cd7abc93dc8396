"""What goes into the PBX: the files of this folder, and how their placeholders are filled."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

ASTERISK_DIALPLAN = "ringbridge.conf"
ASTERISK_MANAGER = "ringbridge-manager.conf"
FREESWITCH_DIALPLAN = "ringbridge.xml"
FREESWITCH_USERS = "ringbridge-users.xml"
FREESWITCH_ACL = "ringbridge-acl.xml"
FREESWITCH_QUEUE = "callcenter-sample.xml"
FREESWITCH_DOMAIN = "ringbridge"
"""The directory domain of the two users of the event socket."""
FREESWITCH_EVENTS = (
    "CHANNEL_CREATE CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_ANSWER CHANNEL_BRIDGE CHANNEL_UNBRIDGE "
    "CHANNEL_HOLD CHANNEL_UNHOLD CHANNEL_HANGUP_COMPLETE BACKGROUND_JOB CUSTOM callcenter::info "
    "conference::maintenance valet_parking::info sofia::transferor sofia::transferee sofia::replaced "
    "sofia::intercepted ringbridge::dial"
)
"""What the event user may hear: what is heard, and no more. A test compares it with the link's own list."""

_SAFE_VALUE = re.compile(r"[A-Za-z0-9._/-]{1,128}")


def asterisk_dialplan() -> str:
    """The text of the dialplan include: our contexts, each beginning with `ringbridge-`."""
    return _read("asterisk", ASTERISK_DIALPLAN)


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
    return _filled(
        _read("asterisk", ASTERISK_MANAGER),
        READER_USER=reader_user,
        READER_SECRET=reader_secret,
        COMMAND_USER=command_user,
        COMMAND_SECRET=command_secret,
        PERMIT=permit,
    )


def freeswitch_dialplan() -> str:
    """The text of the dialplan include: our contexts, each beginning with `ringbridge-`."""
    return _read("freeswitch", FREESWITCH_DIALPLAN)


def freeswitch_users(
    *,
    reader_secret: str,
    command_secret: str | None,
    reader_user: str = "ringbridge",
    command_user: str = "ringbridge-dial",
    domain: str = FREESWITCH_DOMAIN,
) -> str:
    """The text of the directory include with both users of the event socket filled in.

    Without `command_secret` there is only the one that reads: a user that may originate would be a hole that nobody
    needs. Raises ValueError where a value holds anything that could mean something to XML or FreeSWITCH.
    """
    text = _read("freeswitch", FREESWITCH_USERS)
    if command_secret is None:
        text = re.sub(r" *<!-- Places calls.*?</user>\n", "", text, flags=re.DOTALL)
    values = {"READER_USER": reader_user, "READER_SECRET": reader_secret, "DOMAIN": domain}
    if command_secret is not None:
        values |= {"COMMAND_USER": command_user, "COMMAND_SECRET": command_secret}
    return _filled(text.replace("@EVENTS@", FREESWITCH_EVENTS), **values)


def freeswitch_acl(address: str) -> str:
    """The text of a list for acl.conf.xml that lets this machine and `address` (such as 192.0.2.7/32) in."""
    try:
        network = ipaddress.ip_network(address)
    except ValueError:
        raise ValueError(f"{address!r} is no address or network") from None
    return _read("freeswitch", FREESWITCH_ACL).replace("@ADDRESS@", str(network))


def freeswitch_queue() -> str:
    """The text of a sample callcenter.conf.xml."""
    return _read("freeswitch", FREESWITCH_QUEUE)


def _filled(text: str, **values: str) -> str:
    for key, value in values.items():
        if not _SAFE_VALUE.fullmatch(value):
            raise ValueError(f"{key.lower()} may hold letters, digits and . _ / - only, at most 128")
        text = text.replace(f"@{key}@", value)
    return text


def _read(pbx: str, name: str) -> str:
    return (Path(__file__).parent / pbx / name).read_text(encoding="utf-8")
