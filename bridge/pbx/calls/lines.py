"""Channels, the bridges where they meet, and the wires between them: who hears whom, without a word of calls."""

from __future__ import annotations

from bridge.pbx.calls.model import CONFERENCE, QUIET_BRIDGES, Bridge, Channel


class Lines:
    """What the PBX has running, by its ids."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.bridges: dict[str, Bridge] = {}
        self.wires: dict[str, dict[str, str]] = {}

    def add_line(self, channel: Channel) -> None:
        """Know a channel, and which wire it is half of."""
        self.channels[channel.uid] = channel
        if channel.wire:
            self.wires.setdefault(channel.wire, {})[channel.half] = channel.uid

    def drop_line(self, channel: Channel) -> None:
        """Forget a channel, its place in a bridge and its half of a wire."""
        self.leave(channel)
        self.channels.pop(channel.uid, None)
        if channel.wire:
            pair = self.wires.get(channel.wire, {})
            pair.pop(channel.half, None)
            if not pair:
                self.wires.pop(channel.wire, None)

    def peer(self, channel: Channel) -> Channel | None:
        """The other half of a wire."""
        if not channel.wire:
            return None
        for half, uid in self.wires.get(channel.wire, {}).items():
            if half != channel.half:
                return self.channels.get(uid)
        return None

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
        if channel.bridge is None and not channel.wire:
            return [channel]
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
