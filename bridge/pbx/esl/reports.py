"""What FreeSWITCH answers to the commands of call actions, in words for a person; no I/O."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from bridge.pbx.calls.acting import NotPossible
from bridge.pbx.connecting import told
from bridge.pbx.port import Outcome, Reason

GONE = "that phone has hung up already"
_NOT_THERE = ("no such channel", "cannot locate session", "invalid uuid")
_BUG = re.compile(r"<function>([^<]*)</function>\s*<target>([^<]*)</target>")
_ANSWERS = {
    "NO_ANSWER": "nobody answered",
    "NO_USER_RESPONSE": "nobody answered",
    "ALLOTTED_TIMEOUT": "nobody answered",
    "PROGRESS_TIMEOUT": "nobody answered",
    "ORIGINATOR_CANCEL": "it was given up",
    "NORMAL_CLEARING": "it was given up",
    "USER_BUSY": "the phone is busy",
    "CALL_REJECTED": "the call was declined",
    "USER_NOT_REGISTERED": "the phone is not signed in at the PBX",
    "SUBSCRIBER_ABSENT": "the PBX knows no such phone",
    "UNALLOCATED_NUMBER": "there is no such number",
    "NO_ROUTE_DESTINATION": "the PBX knows no way there",
}


@dataclass(frozen=True, slots=True)
class Bug:
    """Something that plays on a leg, records it or listens to it: FreeSWITCH's media bug."""

    function: str
    target: str


def bugs(answer: str) -> list[Bug]:
    """What `uuid_buglist` lists. Raises NotPossible where there is no such leg."""
    check(answer, begins="<")
    return [Bug(function, html.unescape(target)) for function, target in _BUG.findall(answer)]


def check(answer: str, *, begins: str = "+OK", otherwise: str = "", reason: Reason = Reason.REFUSED) -> None:
    """Raises NotPossible unless the PBX did what it was asked for."""
    text = answer.strip()
    if text.startswith(begins):
        return
    if any(words in text.lower() for words in _NOT_THERE):
        raise NotPossible(GONE, Reason.NOT_FOUND)
    raise NotPossible(otherwise or f"the PBX refused: {told(text)}", reason)


def not_reached(answer: str) -> Outcome:
    """Why a phone that was rung did not come."""
    cause = answer.strip().removeprefix("-ERR").strip()
    return Outcome(False, Reason.FAILED, _ANSWERS.get(cause, f"the PBX could not reach it ({told(cause)})"))
