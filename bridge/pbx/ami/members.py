"""app_queue's members, as events and QueueStatus tell of them, and the action that pauses them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge.domain.mirroring import Member, Standing
from bridge.pbx.members import Entry, Members

HEARD = frozenset({"QueueMemberAdded", "QueueMemberPause", "QueueMemberRemoved"})
"""Of these the first two say all of a member."""


def listed(items: Iterable[Mapping[str, str]]) -> list[tuple[str, Entry]]:
    """The QueueMember items of a QueueStatus."""
    return [(_key(item), _entry(item)) for item in items if item.get("Event") == "QueueMember" and _interface(item)]


def hear(members: Members, event: Mapping[str, str]) -> None:
    """One event of HEARD."""
    if not _interface(event) or not event.get("Queue"):
        return
    if event.get("Event") == "QueueMemberRemoved":
        members.drop(_key(event))
    else:
        members.put(_key(event), _entry(event))


def pause(handle: str, member: Member) -> dict[str, str]:
    """QueuePause, for all queues of that member. A static one cannot leave: signed out is a pause."""
    paused = member.standing is not Standing.AVAILABLE
    fields = {"Interface": handle, "Paused": "true" if paused else "false"}
    if paused and member.reason:
        # Whatever an agent typed; a line end would be refused.
        fields["Reason"] = " ".join(member.reason.split())[:80]
    return fields


def _interface(item: Mapping[str, str]) -> str:
    return item.get("Interface") or item.get("Location") or ""


def _key(item: Mapping[str, str]) -> str:
    return f"{item.get('Queue', '')}\n{_interface(item)}"


def _entry(item: Mapping[str, str]) -> Entry:
    interface = _interface(item)
    state = item.get("StateInterface", "")
    # Behind a Local channel the phone is whose state is watched.
    device = state if state and not state.startswith(("hint:", "Local/")) else interface
    if item.get("Paused") == "1":
        return Entry(device, interface, Member(Standing.PAUSED, item.get("PausedReason", "")))
    return Entry(device, interface, Member(Standing.AVAILABLE))
