"""Channels, the bridges where they meet, and the wires between them: who hears whom, without a word of calls."""

from __future__ import annotations

from bridge.pbx.ami.model import CONFERENCE, QUIET_BRIDGES, Bridge, Channel


class Lines:
    """What the PBX has running, by its ids."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.bridges: dict[str, Bridge] = {}
        self.wires: dict[str, dict[str, str]] = {}

    def add_line(self, channel: Channel) -> None:
        """Know a channel, and which wire it is half of."""
        self.channels[channel.uid] = channel
        wire = channel.wire
        if wire:
            self.wires.setdefault(wire[0], {})[wire[1]] = channel.uid

    def drop_line(self, channel: Channel) -> None:
        """Forget a channel, its place in a bridge and its half of a wire."""
        self.leave(channel)
        self.channels.pop(channel.uid, None)
        wire = channel.wire
        if wire:
            pair = self.wires.get(wire[0], {})
            pair.pop(wire[1], None)
            if not pair:
                self.wires.pop(wire[0], None)

    def peer(self, channel: Channel) -> Channel | None:
        """The other half of a wire."""
        wire = channel.wire
        if wire is None:
            return None
        uid = self.wires.get(wire[0], {}).get("2" if wire[1] == "1" else "1")
        return self.channels.get(uid) if uid else None

    def enter(self, channel: Channel, bridge_id: str, kind: str) -> Bridge:
        """Put a channel into a bridge, out of any other."""
        self.leave(channel)
        bridge = self.bridges.get(bridge_id)
        if bridge is None:
            bridge = self.bridges[bridge_id] = Bridge(bridge_id, kind)
        bridge.members.append(channel.uid)
        channel.bridge = bridge_id
        return bridge

    def leave(self, channel: Channel) -> None:
        """Take a channel out of its bridge; an empty bridge is forgotten."""
        bridge = self.bridges.get(channel.bridge or "")
        channel.bridge = None
        if bridge is None:
            return
        if channel.uid in bridge.members:
            bridge.members.remove(channel.uid)
        if not bridge.members:
            del self.bridges[bridge.id]

    def reach(self, channel: Channel, conferences: bool = True) -> list[Channel]:
        """Every channel that this one can hear, itself first: over bridges and along wires."""
        found = {channel.uid: channel}
        todo = [channel]
        while todo:
            here = todo.pop()
            near: list[str] = []
            bridge = self.bridges.get(here.bridge or "")
            if bridge and bridge.type not in QUIET_BRIDGES and (conferences or bridge.type != CONFERENCE):
                near.extend(bridge.members)
            other = self.peer(here)
            if other is not None:
                near.append(other.uid)
            for uid in near:
                if uid not in found and uid in self.channels:
                    found[uid] = self.channels[uid]
                    todo.append(self.channels[uid])
        return list(found.values())
