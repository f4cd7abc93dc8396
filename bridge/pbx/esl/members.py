"""mod_callcenter's agents, as events and `agent list` tell of them, and the command that changes their status."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bridge.domain.mirroring import Member, Standing
from bridge.pbx.esl.codec import LocalError
from bridge.pbx.members import Entry, Members

LIST = "callcenter_config agent list"
_DEVICE = re.compile(r"(?:[\[{<][^\]}>]*[\]}>])*(user/[^@,|\s]+)(?:@[^,|\s]*)?")
_NAME = re.compile(r"[A-Za-z0-9_.@+-]{1,120}")
_STANDING = {"Available": Standing.AVAILABLE, "Available (On Demand)": Standing.AVAILABLE, "On Break": Standing.PAUSED}
_STATUS = {Standing.AVAILABLE: "Available", Standing.PAUSED: "On Break", Standing.OUT: "Logged Out"}


def listed(text: str) -> list[tuple[str, Entry]]:
    """What `agent list` answers; agents whose contact is no phone of the directory are left out."""
    lines = text.strip().splitlines()
    if not lines or not lines[0].startswith("name|"):
        return []
    names = lines[0].split("|")
    found = []
    for line in lines[1:]:
        row = _row(names, line)
        device = _DEVICE.fullmatch(row.get("contact", ""))
        if device is not None and row.get("name"):
            found.append((row["name"], Entry(device[1], row["name"], _member(row.get("status", "")))))
    return found


def hear(members: Members, event: Mapping[str, str]) -> None:
    """One `callcenter::info`. Of an agent who is not in the list nothing is known until it is asked for again."""
    if event.get("CC-Action") != "agent-status-change":
        return
    before = members.get(event.get("CC-Agent", ""))
    if before is not None:
        now = Entry(before.device, before.handle, _member(event.get("CC-Agent-Status", "")))
        members.put(before.handle, now)


def set_status(handle: str, member: Member) -> str:
    """Raises LocalError for an agent whose name cannot be sent."""
    if not _NAME.fullmatch(handle):
        raise LocalError("the agent's name in mod_callcenter holds what may not be sent")
    return f"callcenter_config agent set status {handle} '{_STATUS[member.standing]}'"


def _member(status: str) -> Member:
    return Member(_STANDING.get(status, Standing.OUT))


def _row(names: list[str], line: str) -> dict[str, str]:
    # A contact that rings several phones holds bars of its own: what stands behind it is counted from the end.
    cells = line.split("|")
    extra = len(cells) - len(names)
    if extra > 0:
        at = names.index("contact") if "contact" in names else 0
        cells = [*cells[:at], "|".join(cells[at : at + extra + 1]), *cells[at + extra + 1 :]]
    return dict(zip(names, cells, strict=False))
