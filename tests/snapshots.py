"""What a PBX would have answered to a resync at any moment of a recording, put together from what it had said by then.

Each builder hears every event of the recording, those too that the tracker does not, and answers as that PBX does:
Asterisk's CoreShowChannels, BridgeList, QueueStatus and Status; FreeSWITCH's `show channels`, `show calls`,
`uuid_dump` and `callcenter_config`, as texts that `take_snapshot` asks for. Nothing here looks into a tracker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.names import device_of
from bridge.pbx.ami.resync import Snapshot as AmiSnapshot
from bridge.pbx.esl.resync import Snapshot as EslSnapshot
from bridge.pbx.esl.resync import take_snapshot

_PREFIXES = (
    "",
    "Dest",
    "Transferer",
    "Transferee",
    "OrigTransferer",
    "SecondTransferer",
    "LocalOne",
    "LocalTwo",
    "Source",
    "Target",
)
_SHOWN = (
    "Channel",
    "ChannelState",
    "ChannelStateDesc",
    "CallerIDNum",
    "CallerIDName",
    "ConnectedLineNum",
    "ConnectedLineName",
    "Language",
    "AccountCode",
    "Context",
    "Exten",
    "Priority",
    "Uniqueid",
    "Linkedid",
)
"""Headers of a channel that both its events and CoreShowChannels have."""


class Asterisk:
    """Channels, bridges and queues, as Asterisk's manager lists them."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {}
        self.born: dict[str, float] = {}
        self.application: dict[str, str] = {}
        self.bridge: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.queued: dict[str, dict[str, str]] = {}
        self.dialled: dict[str, str] = {}
        """The number that a caller dialled, as DNID."""
        self.calls: dict[str, list[str]] = {}
        """Whom a channel calls, as the data of its application."""
        self.transferer: dict[str, str] = {}

    def hear(self, event: Message, at: float) -> None:
        at = float(event.get("Timestamp", at))
        name, uid = event.get("Event", ""), event.get("Uniqueid", "")
        if name == "Newchannel":
            self.rows[uid] = {}
            self.born[uid] = at
            if event.get("ChannelState") == "4" and not event.get("Channel", "").startswith("Local/"):
                self.dialled[uid] = event.get("Exten", "")
        self._refresh(event)
        match name:
            case "Rename":
                self.rows[uid]["Channel"] = event["Newname"]
            case "Hangup":
                for held in (self.rows, self.bridge, self.application, self.born, self.calls, self.transferer):
                    held.pop(uid, None)
            case "DialBegin":
                caller = self.rows.get(uid)
                waits = uid in self.queued
                self.application[event["DestUniqueid"]] = (
                    "AppQueue" if waits else "AppDial" if caller is not None else "AppDial2"
                )
                if caller is not None and not waits:
                    self.application[uid] = "Dial"
                    self.calls.setdefault(uid, []).append(device_of(event["DestChannel"]))
            case "BridgeEnter":
                self._consults(event, uid)
                self.bridge.pop(event.get("SwapUniqueid", ""), None)
                self.bridge[uid] = event["BridgeUniqueid"]
                self.kinds[event["BridgeUniqueid"]] = event["BridgeType"]
            case "BridgeLeave" if self.bridge.get(uid) == event["BridgeUniqueid"]:
                del self.bridge[uid]
            case "QueueCallerJoin":
                self.queued[uid] = {key: event[key] for key in ("Queue", "Position", "Channel", "Uniqueid")}
            case "QueueCallerLeave":
                self.queued.pop(uid, None)

    def _consults(self, event: Message, uid: str) -> None:
        """Who enters where a wire that nobody dialled waits alone, consults by it; both halves name them."""
        here = [other for other, bridge in self.bridge.items() if bridge == event["BridgeUniqueid"]]
        name = self.rows.get(here[0], {}).get("Channel", "") if len(here) == 1 else ""
        if name.startswith("Local/") and here[0] not in self.application and not event["Channel"].startswith("Local/"):
            halves = [other for other, row in self.rows.items() if row["Channel"][:-1] == name[:-1]]
            self.transferer.update(dict.fromkeys(halves, event["Channel"]))

    def _refresh(self, event: Message) -> None:
        for prefix in _PREFIXES:
            row = self.rows.get(event.get(f"{prefix}Uniqueid", ""))
            if row is not None:
                row.update({key: event[prefix + key] for key in _SHOWN if prefix + key in event})

    def snapshot(self, at: float, known: Iterable[str] = ()) -> AmiSnapshot:
        """`known` is what FreeSWITCH is asked for one by one; Asterisk's list is complete."""
        channels = []
        for uid, row in self.rows.items():
            age = max(0, int(at - self.born[uid]))
            channels.append(
                {
                    "Event": "CoreShowChannel",
                    **row,
                    "Application": self.application.get(uid, ""),
                    "ApplicationData": "&".join(self.calls.get(uid, ())),
                    "Duration": f"{age // 3600:02}:{age // 60 % 60:02}:{age % 60:02}",
                    "BridgeId": self.bridge.get(uid, ""),
                }
            )
        bridges = [
            {"Event": "BridgeListItem", "BridgeUniqueid": bridge, "BridgeType": self.kinds[bridge]}
            for bridge in dict.fromkeys(self.bridge.values())
        ]
        queued = [{"Event": "QueueEntry", **entry} for entry in self.queued.values()]
        status = [
            {
                "Uniqueid": uid,
                "DNID": self.dialled.get(uid, ""),
                "Variable": f"CALLERID(pres)=allowed\nTRANSFERERNAME={self.transferer.get(uid, '(null)')}",
            }
            for uid in self.rows
        ]
        return AmiSnapshot(tuple(channels), tuple(bridges), tuple(queued), tuple(status))

    def alive(self) -> set[str]:
        """Channels that the PBX would name."""
        return set(self.rows)


_STATES = {
    "CHANNEL_ANSWER": "ACTIVE",
    "CHANNEL_HOLD": "HELD",
    "CHANNEL_UNHOLD": "UNHELD",
    "CHANNEL_PROGRESS": "RINGING",
    "CHANNEL_PROGRESS_MEDIA": "EARLY",
}
"""The call state that a channel has just after it said so."""
_GOING = frozenset({"CS_HANGUP", "CS_REPORTING", "CS_DESTROY"})
"""A channel in these states cannot be dumped any more (`switch_core_session_read_lock`)."""
_LAST_WORDS = frozenset({"CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY"})
_QUEUE_COLUMNS = "queue|instance_id|uuid|session_uuid|cid_number|cid_name|system_epoch|state|score"


class FreeSwitch:
    """Sessions, bridges and queues, as FreeSWITCH's API answers."""

    def __init__(self) -> None:
        self.dumps: dict[str, dict[str, str]] = {}
        self.pairs: dict[tuple[str, str], float] = {}
        self.queued: dict[str, tuple[str, str]] = {}

    def hear(self, event: Mapping[str, str], at: float) -> None:
        name, uid = event.get("Event-Name", ""), event.get("Unique-ID", "")
        if name == "CUSTOM":
            self._custom(event, uid)
            return
        if not name.startswith("CHANNEL_") or not uid:
            return
        if name == "CHANNEL_CREATE":
            self.dumps[uid] = {}
        dump = self.dumps.get(uid)
        if dump is None:
            return
        if event.get("Channel-State") in _GOING or name in _LAST_WORDS:
            del self.dumps[uid]
            self.pairs = {pair: when for pair, when in self.pairs.items() if uid not in pair}
            return
        # Variables are in some events only; what an event does not show has not gone.
        dump.update(event)
        if name in _STATES:
            dump["Channel-Call-State"] = _STATES[name]
        if name == "CHANNEL_EXECUTE":
            dump["variable_current_application"] = event.get("Application", "")
        if name in ("CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE"):
            self._bridge(name, event, at)

    def _bridge(self, name: str, event: Mapping[str, str], at: float) -> None:
        pair = (event["Bridge-A-Unique-ID"], event["Bridge-B-Unique-ID"])
        if name == "CHANNEL_UNBRIDGE":
            self.pairs.pop(pair, None)
            for uid in pair:
                self.dumps.get(uid, {}).pop("variable_bridge_to", None)
            return
        self.pairs = {old: when for old, when in self.pairs.items() if not set(old) & set(pair)}
        if all(uid in self.dumps for uid in pair):
            self.pairs[pair] = at

    def _custom(self, event: Mapping[str, str], uid: str) -> None:
        match event.get("Event-Subclass"), event.get("Action") or event.get("CC-Action"):
            case "conference::maintenance", "add-member" if uid in self.dumps:
                self.dumps[uid]["variable_conference_uuid"] = event["Conference-Unique-ID"]
                self.dumps[uid]["variable_current_application"] = "conference"
            case "conference::maintenance", "del-member" if uid in self.dumps:
                # It may already be on its way out, and then says so.
                self.dumps[uid]["Answer-State"] = event.get("Answer-State", "")
            case "valet_parking::info", "hold" if uid in self.dumps:
                self.dumps[uid]["variable_current_application"] = "valet_park"
            case "callcenter::info", "member-queue-start":
                self.queued[event["CC-Member-Session-UUID"]] = (event["CC-Queue"], "Waiting")
            case "callcenter::info", "bridge-agent-start":
                queue, _ = self.queued[event["CC-Member-Session-UUID"]]
                self.queued[event["CC-Member-Session-UUID"]] = (queue, "Answered")
            case "callcenter::info", "member-queue-end":
                self.queued.pop(event["CC-Member-Session-UUID"], None)

    def snapshot(self, at: float, known: Iterable[str] = ()) -> EslSnapshot:
        return take_snapshot(self.answer, known)

    def answer(self, question: str) -> str:
        """As the API does, to what a resync asks."""
        match question.split():
            case ["show", "channels", *_]:
                rows = [self._row(uid) for uid in self.dumps]
                return json.dumps({"row_count": len(rows), **({"rows": rows} if rows else {})})
            case ["show", "calls", *_]:
                pairs: list[dict[str, Any]] = [
                    {"uuid": one, "b_uuid": two, "call_created_epoch": str(int(at))}
                    for (one, two), at in self.pairs.items()
                ]
                return json.dumps({"row_count": len(pairs), **({"rows": pairs} if pairs else {})})
            case ["uuid_dump", uid, "json"]:
                return json.dumps(self._dump(uid)) if uid in self.dumps else "-ERR No such channel!\n"
            case ["callcenter_config", "queue", "list"]:
                return "".join(f"{line}\n" for line in ("name|strategy", *(f"{q}|" for q in self._queues()), "+OK"))
            case ["callcenter_config", "queue", "list", "members", queue]:
                rows = [f"{q}|x|m|{uid}||||{state}|1" for uid, (q, state) in self.queued.items() if q == queue]
                return "".join(f"{line}\n" for line in (_QUEUE_COLUMNS, *rows, "+OK"))
        raise AssertionError(question)

    def _queues(self) -> dict[str, None]:
        return dict.fromkeys(queue for queue, _ in self.queued.values())

    def _row(self, uid: str) -> dict[str, str]:
        dump = self.dumps[uid]
        return {
            "uuid": uid,
            "direction": dump.get("Call-Direction", ""),
            "name": dump.get("Channel-Name", ""),
            "callstate": dump.get("Channel-Call-State", ""),
            "application": dump.get("variable_current_application", ""),
        }

    def _dump(self, uid: str) -> dict[str, str]:
        shown = {
            name: value for name, value in self.dumps[uid].items() if not name.startswith(("Bridge-", "Event-", "_"))
        }
        shown.pop("variable_bridge_to", None)
        for pair in self.pairs:
            if uid in pair:
                shown["variable_bridge_to"] = pair[uid == pair[0]]
        return {"Event-Name": "CHANNEL_DATA", **shown}

    def alive(self) -> set[str]:
        """Channels that the PBX would name."""
        return set(self.dumps)
