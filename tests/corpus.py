"""Compares call events with a conversation's `expected.json`, and says in plain words where they differ.

Pure functions. The events are mappings as published on `rb:calls` (`type`, `call`, `seq`, `at`, `data`), so that
anybody's tracker can be tested; `traces/README.md` says what `expected.json` holds.

    python tests/corpus.py tests/traces/asterisk-22/simple < events.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import permutations
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
Spec = Mapping[str, Any]

PARTY = {"device", "extension", "number", "name", "agent"}
LAST = {"call.ended", "call.merged"}
HALF_A_WIRE = ("Local/", "loopback/")
IDENTIFYING = {"call.offered": ("party",), "call.unoffered": ("party",), "call.connected": ("parties",)}
"""By what an event is known among others of its type; what else it says is compared after."""
AS_PARTIES = {"from", "to", "by", "party", "ended_by"}
NEVER_NULL = {
    "call.offered": {"party"},
    "call.unoffered": {"party"},
    "call.connected": {"parties"},
    "call.held": {"by"},
    "call.resumed": {"by"},
    "call.transferred": {"by", "from"},
    "call.merged": {"into"},
}


def phone_device(pbx: str, extension: str) -> str:
    """How that kind of PBX calls the phone of an extension."""
    return f"user/{extension}" if pbx.startswith("freeswitch") else f"PJSIP/{extension}"


def is_trunk_device(pbx: str, device: str | None) -> bool:
    """Whether that is how this kind of PBX calls the corpus's trunk."""
    if pbx.startswith("freeswitch"):
        return device in ("sofia/gateway/trunk", "sofia/external")
    return device is not None and device.startswith("PJSIP/trunk")


def differences(expected: Spec, events: Sequence[Event], *, resynced: bool = False) -> list[str]:
    """Where the events differ from what is expected; none, if they are as the witness tells.

    `resynced`: the events go on past the end of the bytes, with a resync that found no channel alive.
    """
    if found := malformed(events):
        return found
    found = broken_rules(events, left_open=any(call.get("open") for call in expected["calls"]) and not resynced)
    found += _forbidden(expected, events, resynced)
    return found + _best_of(expected, events, resynced)


# --- what holds for any call ---


def malformed(events: Sequence[Event]) -> list[str]:
    """What is not of the contract's shape, so that nothing more can be said of it."""
    found: list[str] = []
    for event in events:
        data, name = event["data"], f"{event['call']}: {event['type']}"
        found += [f"{name}: {key} is missing" for key in NEVER_NULL.get(event["type"], ()) if not data.get(key)]
        pair = data.get("parties") or []
        if not isinstance(pair, list | tuple) or len(pair) not in (0, 2):
            found.append(f"{name}: parties are not two")
            pair = []
        people = [*(data[key] for key in AS_PARTIES if data.get(key) is not None), *pair]
        found += [f"{name}: {fault}" for party in people for fault in _shape(party)]
    return found


def broken_rules(events: Sequence[Event], *, left_open: bool = False) -> list[str]:
    """The rules of the contract that need no witness."""
    found: list[str] = []
    calls = by_call(events)
    for name, own in calls.items():
        if [event["seq"] for event in own] != list(range(1, len(own) + 1)):
            found.append(f"{name}: seq is {[event['seq'] for event in own]}, not 1, 2, 3 and so on")
        if own[0]["type"] != "call.started" or any(event["type"] == "call.started" for event in own[1:]):
            found.append(f"{name}: not exactly its first event is call.started")
        ends = [place for place, event in enumerate(own, 1) if event["type"] in LAST]
        if ends != [len(own)] and not (left_open and not ends):
            found.append(f"{name}: it must end once, with its last event ({len(own)}); its ends are {ends}")
        found += _held_by_those_who_hold(name, own)
        named = _named(calls, name)
        for event in own:
            if event["type"] == "call.connected":
                found += [
                    f"{name}: {_say(party)} is connected, and neither was offered nor began the call"
                    for party in event["data"]["parties"]
                    if party["device"] not in named
                ]
            if event["type"] == "call.merged" and event["data"]["into"] not in calls:
                found.append(f"{name}: merged into a call that is not there")
    return found


def by_call(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Events by call, calls in the order of their first event."""
    calls: dict[str, list[Event]] = {}
    for event in events:
        calls.setdefault(event["call"], []).append(event)
    return calls


def _named(calls: Mapping[str, Sequence[Event]], name: str) -> set[str | None]:
    """Devices that were offered in this call or began it, or one that was merged into it."""
    joined = {name}
    while more := {
        other for other, own in calls.items() if other not in joined and own[-1]["data"].get("into") in joined
    }:
        joined |= more
    named = set()
    for event in (event for call in joined for event in calls[call]):
        party = event["data"].get("party" if event["type"] == "call.offered" else "from")
        if event["type"] in ("call.offered", "call.started", "call.ended") and party:
            named.add(party["device"])
    return named


def _held_by_those_who_hold(name: str, own: Sequence[Event]) -> Iterator[str]:
    holding: set[str | None] = set()
    for event in own:
        if event["type"] == "call.held":
            holding.add(event["data"]["by"]["device"])
        elif event["type"] == "call.resumed" and event["data"]["by"]["device"] not in holding:
            yield f"{name}: {_say(event['data']['by'])} resumes what it did not hold"


def _shape(party: Any) -> Iterator[str]:
    if not isinstance(party, Mapping) or set(party) - {"withheld"} != PARTY:
        yield f"{party} is no party"
    elif party.get("withheld") and party["number"] is not None:
        yield "a withheld number is published"
    elif str(party["device"]).startswith(HALF_A_WIRE):
        yield f"{party['device']} is nobody's phone"


# --- what this conversation's witness says ---


def _best_of(expected: Spec, events: Sequence[Event], resynced: bool) -> list[str]:
    """Of all ways to pair the calls with those expected, the differences of the one that fits best."""
    actual = by_call(events)
    specs = expected["calls"]
    if len(actual) > len(specs) + 3:
        return [f"{len(actual)} calls, expected at most {len(specs)}: {', '.join(map(_line, events))}"]
    names: list[str | None] = [*actual, *[None] * max(0, len(specs) - len(actual))]
    best: list[str] | None = None
    # A call may stay away where it is optional, though all others are there.
    names += [None] * sum(bool(spec.get("optional")) for spec in specs)
    for chosen in dict.fromkeys(permutations(names, len(specs))):
        known = {spec["name"]: name for spec, name in zip(specs, chosen, strict=True)}
        found = [
            f"a call that nobody expects: {', '.join(map(_line, own))}"
            for name, own in actual.items()
            if name not in chosen
        ]
        for spec, name in zip(specs, chosen, strict=True):
            if name is not None:
                found += _Comparison(expected, known, spec, actual[name], resynced).differences()
            elif not spec.get("optional"):
                found.append(f"{spec['name']}: there is no such call")
        if best is None or len(found) < len(best):
            best = found
        if not best:
            break
    return best or []


def _forbidden(expected: Spec, events: Sequence[Event], resynced: bool) -> list[str]:
    look = _Comparison(expected, {}, {"name": "", "events": []}, [], resynced)
    return [
        f"{_line(event)}, and that must not be: {never['why']}"
        for never in expected["never"]
        if not (resynced and never.get("until") == "resync")
        for event in events
        if event["type"] == never["type"] and not look.unlike(never["data"], event["data"])
    ]


class _Comparison:
    """One call beside what is expected of it."""

    def __init__(
        self, expected: Spec, known: Mapping[str, str | None], spec: Spec, own: Sequence[Event], resynced: bool
    ) -> None:
        self.pbx: str = expected["pbx"]
        self.people: Mapping[str, Spec] = expected["people"]
        self.agents: Mapping[str, str] = expected["directory"]["agents"]
        self.zero = datetime.fromisoformat(expected["zero"])
        self.tolerance = expected["tolerance_ms"] / 1000
        self.known = known
        self.name: str = spec["name"]
        self.steps = [*spec["events"], *(spec.get("after_resync", ()) if resynced else ())]
        self.own = own

    def differences(self) -> list[str]:
        """Walk through events and expectation together."""
        found: list[str] = []
        place = 0
        for number, step in enumerate(self.steps):
            threads = [list(thread) for thread in step.get("any_order", [[step]])]
            later = [spec for rest in self.steps[number + 1 :] for spec in _specs(rest)]
            while any(threads):
                event = self.own[place] if place < len(self.own) else None
                hit = event and next((hit for thread in threads if (hit := self._head(thread, event))), None)
                if event and hit:
                    found += self._compare(hit, event)
                    place += 1
                elif all(spec.get("optional") for thread in threads for spec in thread):
                    break
                elif event is None or any(self._same(spec, event) for spec in later):
                    found += [self._missing(spec) for t in threads for spec in t if not spec.get("optional")]
                    break
                else:
                    found.append(f"{self.name}: {_line(event)} is not expected here")
                    place += 1
        return found + [f"{self.name}: {_line(event)} is not expected" for event in self.own[place:]]

    def _head(self, thread: list[Spec], event: Event) -> Spec | None:
        """The thread's next expectation, if the event is the one; it is taken off."""
        for place, spec in enumerate(thread):
            if self._same(spec, event):
                del thread[: place + 1]
                return spec
            if not spec.get("optional"):
                return None
        return None

    def _same(self, spec: Spec, event: Event) -> bool:
        """Whether this is the event that is meant, however wrong its other fields are."""
        if spec["type"] != event["type"]:
            return False
        return not any(
            key in spec["data"] and self._unlike(key, spec["data"][key], event["data"].get(key))
            for key in IDENTIFYING.get(spec["type"], ())
        )

    def _compare(self, spec: Spec, event: Event) -> list[str]:
        found = self.unlike(spec["data"], event["data"])
        at = (datetime.fromisoformat(event["at"]) - self.zero).total_seconds()
        if "at" in spec:
            latest = max(self.tolerance, spec.get("late_ms", 0) / 1000)
            if not -self.tolerance <= at - spec["at"] <= latest:
                found.append(f"it is at {at:.2f} s, expected {spec['at']} (at most {latest} later)")
        return [f"{self.name}: {_line(event)}: {fault}; the witness: {_quoted(spec)}" for fault in found]

    def _missing(self, spec: Spec) -> str:
        return f"{self.name}: {spec['type']} {_short(spec['data'])} is missing; the witness: {_quoted(spec)}"

    def unlike(self, wanted: Spec, data: Mapping[str, Any]) -> list[str]:
        """The fields that are not as wanted, in words."""
        return [fault for key, want in wanted.items() for fault in self._unlike(key, want, data.get(key))]

    def _unlike(self, key: str, want: Any, got: Any) -> list[str]:
        """No text, or why `got` is not what is wanted there."""
        if isinstance(want, Mapping):
            return self._unlike_matcher(key, want, got)
        if key == "parties":
            return [fault for w, g in zip(want, got, strict=True) for fault in self._unlike_person("parties", w, g)]
        if key in AS_PARTIES and isinstance(want, str):
            return self._unlike_person(key, want, got)
        return [] if got == want else [f"{key} is {_say(got)}, expected {_say(want)}"]

    def _unlike_matcher(self, key: str, want: Spec, got: Any) -> list[str]:
        match dict(want):
            case {"one_of": choices}:
                good = any(not self._unlike(key, choice, got) for choice in choices)
            case {"not": unwanted}:
                good = bool(self._unlike(key, unwanted, got))
            case {"about": about, "within": within}:
                good = isinstance(got, int) and abs(got - about) <= within
            case {"begins": beginning}:
                good = isinstance(got, str) and got.startswith(beginning)
            case {"pair": pair}:
                good = any(not self._unlike(key, [*ordered], got) for ordered in permutations(pair))
            case {"call": names}:
                good = got is not None and got in [self.known.get(name) for name in names]
            case {"dialled": number}:
                good = got is not None and number in (got["extension"], got["number"])
            case fields:
                good = got is not None and all(not self._unlike(f, w, got.get(f)) for f, w in fields.items())
        return [] if good else [f"{key} is {_say(got)}, expected {_short(want)}"]

    def _unlike_person(self, key: str, handle: str, got: Any) -> list[str]:
        """A person of the story is known by extension or number; device and agent follow from PBX and directory."""
        if got is None:
            return [f"{key} is nobody, expected {handle}"]
        person = self.people[handle]
        wanted = {field: value for field, value in person.items() if field not in ("evidence", "outside", "wire")}
        faults = [fault for field, want in wanted.items() for fault in self._unlike(field, want, got.get(field))]
        if person.get("outside"):
            if not is_trunk_device(self.pbx, got["device"]):
                faults.append(f"device is {got['device']}, expected the trunk's")
        elif not faults:
            device, agent = phone_device(self.pbx, person["extension"]), self.agents.get(person["extension"])
            faults += self._unlike("device", device, got["device"]) + self._unlike("agent", agent, got["agent"])
        return [f"{key} ({handle}): {fault}" for fault in faults]


def _specs(step: Spec) -> list[Spec]:
    return [spec for thread in step.get("any_order", [[step]]) for spec in thread]


def _quoted(spec: Spec) -> str:
    return "; ".join(f'"{quote}"' for quote in spec["evidence"])


def _short(data: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_say(value)}" for key, value in data.items())


def _say(value: Any) -> str:
    """A value in few words; a party by extension, number or device."""
    if isinstance(value, Mapping) and set(value) >= PARTY:
        return str(value["extension"] or value["number"] or value["device"] or "somebody")
    if isinstance(value, list | tuple):
        return " and ".join(map(_say, value))
    return "null" if value is None else str(value)


def _line(event: Event) -> str:
    return f"{event['type']} ({_short(event['data'])})"


def read(lines: Iterable[str]) -> list[Event]:
    """Call events, an object a line, also as they lie on `rb:calls`: `seq` and `data` as text, `pbx.*` among them.

    Raises ValueError that names the line.
    """
    events: list[Event] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            if str(event["type"]).startswith("pbx."):
                continue
            data = event["data"] if isinstance(event["data"], Mapping) else json.loads(event["data"])
            events.append({**event, "seq": int(event["seq"]), "call": event["call"], "at": event["at"], "data": data})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} is no call event ({type(error).__name__}: {error})") from None
    return events


def main(*arguments: str) -> int:
    """Print where the events on standard input, one JSON object a line, differ from what that folder expects.

    0 nowhere, 1 somewhere, 2 nothing was compared.
    """
    try:
        (folder,) = arguments
        expected = json.loads((Path(folder) / "expected.json").read_text(encoding="utf-8"))
        events = read(sys.stdin)
    except (OSError, ValueError) as error:
        print(f"usage: corpus.py FOLDER < events.jsonl; {error}", file=sys.stderr)
        return 2
    found = differences(expected, events)
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
