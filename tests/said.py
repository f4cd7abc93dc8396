"""What a PBX's answers to a resync say, read without a tracker: who is there, hears whom, waits or rings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from scenarios.looking import Shot

from bridge.pbx.ami.resync import BRIDGES, CHANNELS, QUEUES

_NOBODY = ("Local/", "Announcer/", "CBAnn/", "Recorder/", "loopback/", "pickup/", "error/", "null/")
_WAIT = ("Waiting", "Trying")


@dataclass
class Said:
    """Of one snapshot."""

    people: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    """Channels of which it speaks with two tongues, since they moved between two questions; they are not judged."""
    hears: list[frozenset[str]] = field(default_factory=list)
    queued: set[tuple[str, str]] = field(default_factory=set)
    ringing: set[str] = field(default_factory=set)

    @classmethod
    def by(cls, shot: Shot) -> Said:
        """Asterisk or FreeSWITCH, by what was asked."""
        answers = {reply.question: reply.answer for reply in shot.replies}
        return _asterisk(answers) if CHANNELS in answers else _freeswitch(answers)

    @property
    def pairs(self) -> set[frozenset[str]]:
        """Any two who hear each other."""
        return {pair for group in self.hears for pair in pairs(group)}


def pairs(group: frozenset[str]) -> set[frozenset[str]]:
    """Any two of a group."""
    return {frozenset((one, two)) for one in group for two in group if one < two}


def _asterisk(answers: dict[str, str]) -> Said:
    rows = [row for row in _blocks(answers[CHANNELS]) if row.get("Event") == "CoreShowChannel"]
    listed = [row for row in _blocks(answers[BRIDGES]) if "BridgeUniqueid" in row]
    bridges = {row["BridgeUniqueid"]: row["BridgeTechnology"] for row in listed}
    places: dict[str, set[str]] = {}
    for row in rows:
        bridge = row.get("BridgeId", "")
        if bridge and bridges.get(bridge) != "holding_bridge":
            places.setdefault(f"bridge {bridge}", set()).add(row["Uniqueid"])
        if row["Channel"].startswith("Local/"):
            places.setdefault(f"wire {row['Channel'][:-2]}", set()).add(row["Uniqueid"])
    queued = [row for row in _blocks(answers[QUEUES]) if row.get("Event") == "QueueEntry"]
    people = {row["Uniqueid"] for row in rows if not row["Channel"].startswith(_NOBODY)}
    return Said(
        people,
        {row["Uniqueid"] for row in rows if row.get("BridgeId") and row["BridgeId"] not in bridges},
        [group & people for group in _joined(places.values())],
        {(row["Uniqueid"], row["Queue"]) for row in queued},
        {row["Uniqueid"] for row in rows if row["ChannelState"] == "5"} & people,
    )


def _blocks(answer: str) -> list[dict[str, str]]:
    blocks = (block.split("\r\n") for block in answer.split("\r\n\r\n"))
    return [dict(line.split(": ", 1) for line in block if ": " in line) for block in blocks]


def _freeswitch(answers: dict[str, str]) -> Said:
    dumps: dict[str, dict[str, Any]] = {
        question.split()[1]: json.loads(answer, strict=False)
        for question, answer in answers.items()
        if question.startswith("uuid_dump ") and answer.startswith("{")
    }
    said, places = Said(), list[set[str]]()
    wires: dict[tuple[str, str], set[str]] = {}
    # What is so young that the core's table does not list it yet is found when the link looks again.
    young = dumps.keys() - {row["uuid"] for row in _rows(answers["show channels as json"])}
    said.doubtful |= young
    for uid, dump in dumps.items():
        other = dump.get("variable_bridge_to") or ""
        alone = dump.get("variable_cc_side") == "agent" and other not in dumps
        if dumps.get(other, {}).get("variable_bridge_to") == uid:
            places.append({uid, other})
        elif other or alone or dump.get("variable_current_application") == "conference":
            said.doubtful.add(uid)
        if dump.get("variable_other_loopback_leg_uuid") in dumps:
            places.append({uid, dump["variable_other_loopback_leg_uuid"]})
        if wire := _referred(dump):
            wires.setdefault(wire, set()).add(uid)
        # An agent whom the queue left up and alone is no call, and not known.
        if uid not in young and not alone and not wire and not dump["Channel-Name"].startswith(_NOBODY):
            said.people.add(uid)
        if dump["Channel-Call-State"] == "RINGING" and dump["Call-Direction"] == "outbound":
            said.ringing.add(uid)
    places += wires.values()
    for row in _rows(answers["show calls as json"]):
        # The core's table of bridges is late too.
        pair = {row["uuid"], row["b_uuid"]}
        said.doubtful |= set() if any(pair <= place for place in places) else pair
    halves = {uid for wire in wires.values() for uid in wire}
    real = {uid for uid, dump in dumps.items() if not dump["Channel-Name"].startswith(_NOBODY)} - halves
    said.hears = [group & real for group in _joined(places)]
    said.ringing &= said.people
    for question, answer in answers.items():
        if question.startswith("callcenter_config queue list members "):
            head, *lines = answer.splitlines()
            members = [dict(zip(head.split("|"), line.split("|"), strict=False)) for line in lines]
            said.queued |= {(m["session_uuid"], m["queue"].split("@")[0]) for m in members if m.get("state") in _WAIT}
    return said


def _referred(dump: dict[str, Any]) -> tuple[str, str] | None:
    """For whom, and from which leg, FreeSWITCH calls itself because of a REFER: both legs of that say the same."""
    pair = dump.get("variable_sip_h_X-FS-Refer-For", ""), dump.get("variable_sip_h_X-FS-Refer-From", "")
    # A phone that the one half calls has its caller's headers.
    return pair if all(pair) and not dump.get("variable_originating_leg_uuid") else None


def _rows(answer: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(answer).get("rows", [])
    return found


def _joined(places: Iterable[set[str]]) -> list[frozenset[str]]:
    groups: list[set[str]] = []
    for place in places:
        group = set(place)
        for other in [other for other in groups if other & group]:
            groups.remove(other)
            group |= other
        groups.append(group)
    return [frozenset(group) for group in groups]
