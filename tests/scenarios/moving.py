"""What the families of moving calls share: softphones on a stage, a call that arrives at one, a consultation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scenarios.diary import Line
from scenarios.expected import Spec, Talk, connected, ended, event, offered, started, together, transferred
from scenarios.softphone import Leg, Softphone, caller_of, phone_of
from scenarios.stage import Customer, Stage

SURVIVES = "the customer's call survives and carries `call.transferred` and a new `call.connected`"


def softphone(stage: Stage, extension: str, *, after: float | None = 0.3) -> Softphone:
    """A phone of the company that this test plays; it answers after so many seconds, or lets ring."""
    phone = phone_of(stage.lab, extension, stage.diary.add)
    stage.after.append(phone.close)
    stage.people[extension] = {
        "extension": extension,
        "evidence": f"{extension} is {stage.lab.device(extension)}",
    }
    if after is not None:
        phone.answers_after(after)
    return phone


def outsider(stage: Stage, handle: str = "caller", number: str = "+16465550112") -> Softphone:
    """A caller outside whom this test plays."""
    told = f"{handle} {number}"
    phone = caller_of(stage.lab, number, stage.diary.add, told=told)
    stage.after.append(phone.close)
    stage.people[handle] = {"number": number, "extension": None, "outside": True, "evidence": told}
    stage.tones[handle] = 900
    return phone


@dataclass
class Arrived:
    """A customer who talks with an agent's softphone."""

    stage: Stage
    caller: Customer
    phone: Softphone
    leg: Leg
    did: str
    rings: Line
    answers: Line

    @property
    def who(self) -> str:
        return self.phone.number

    def began(self, talk: Any) -> list[Spec]:
        """What is said until the two talk."""
        return [started(self.caller.dials, "caller", self.did), offered(self.rings), connected(talk)]


def arrives(stage: Stage, extension: str = "106", did: str = "") -> Arrived:
    """A customer calls that softphone, which answers; they talk for a moment."""
    phone = softphone(stage, extension)
    did = did or f"+12125550{extension}"
    caller = stage.call(did)
    leg = phone.rings()
    rings, answers = leg.sees("rings"), leg.sees("answers")
    caller.sees("is answered")
    stage.talk(0.5)
    return Arrived(stage, caller, phone, leg, did, rings, answers)


def moved_hold(by: str, line: Line) -> Spec:
    """The PBX, not a phone, may put somebody aside as it moves calls."""
    why = "the PBX, not a phone, puts the caller aside meanwhile; whether it says so is its own affair"
    return {**event("held", None, {"by": by}, [line]), "optional": True, "why": why}


def moved_resume(by: str, line: Line) -> Spec:
    why = "the PBX may lift the hold as it moves the caller; no phone did"
    return {**event("resumed", None, {"by": by}, [line]), "optional": True, "why": why}


def held(line: Line) -> Spec:
    return event("held", line, {"by": line.who})


def resumed(line: Line) -> Spec:
    """FreeSWITCH takes a third of a second until both hear each other again."""
    return event("resumed", line, {"by": line.who}, late_ms=600)


def merged(line: Line, into: str = "customer") -> Spec:
    return event("merged", line, {"into": {"call": [into]}})


def done(one: Arrived) -> Line:
    """The PBX has moved the caller: it takes Asterisk half a second where it lays a wire between two bridges."""
    return one.leg.sees("is told that its transfer went well")


def moves(one: Arrived, line: Line, to: Any) -> Spec:
    """The transfer itself, and the PBX's own end of the hold."""
    return together(
        [moved_resume(one.who, line)], [transferred(line, "attended", one.who, one.who, to, ruling=SURVIVES)]
    )


def over(
    one: Arrived, line: Line, talks: list[Talk], *, ended_by: str | None = "caller", within: int = 200
) -> Spec:
    return ended(
        line, one.caller.dials, "caller", one.did, "completed", talks=talks, ended_by=ended_by, within=within
    )


def both_talk(one: Arrived, to: str, at: Line) -> Talk:
    """The caller has whom the agent consulted; they talk, and the caller hangs up."""
    one.stage.talk(1.0)
    return one.stage.talks(one.caller, to, at, one.caller.hangs_up())
