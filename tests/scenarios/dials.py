"""Calls that the PBX is told to place: our own, agent or customer first, refused, and a stranger's into a queue."""

from __future__ import annotations

import threading
import uuid
from typing import Any, Literal

from bridge.domain.calls import Expected as OurCall
from bridge.pbx.open import open_link
from bridge.pbx.port import DialOrder, PbxLink
from bridge.settings import Pbx
from bridge.uptime import uptime
from ringbridge_lab.lab import Behaviour
from scenarios import scenario
from scenarios.diary import Line
from scenarios.expected import (
    Call,
    Expected,
    Spec,
    connected,
    ended,
    event,
    offered,
    queued,
    together,
    unoffered,
    unqueued,
)
from scenarios.stage import PHONES, Stage

ANSWERS, BUSY = "+16465550101", "+16465550140"


class _Deaf:
    """Hears the link that dials, and keeps nothing."""

    def __init__(self) -> None:
        self.there = threading.Event()

    def events(self, *_: object) -> None:
        """Heard elsewhere."""

    asked = link_up = link_detail = link_down = events

    def resynced(self, _: object) -> None:
        self.there.set()


def _link(stage: Stage) -> PbxLink:
    """The link that hears this scenario, else one of its own."""
    if stage.link is not None:
        return stage.link
    deaf = _Deaf()
    link = open_link(Pbx.model_validate({"name": "lab", **stage.lab.pbx_settings()}), deaf)
    link.start()
    stage.after.append(link.stop)
    assert deaf.there.wait(20), "the link that dials did not come up"
    return link


def _dial(stage: Stage, number: str, first: Literal["agent", "customer"] = "agent") -> tuple[Line, str]:
    """Ringbridge calls 101 and that number; the line of it, and the attempt."""
    lab, attempt, device = stage.lab, str(uuid.uuid4()), stage.lab.device("101")
    link = _link(stage)
    stage.people["101"] = {"extension": "101", "evidence": f"101 is {device}"}
    told = f"the customer is {number}, attempt {attempt}; {first} first"
    stage.people["customer"] = {"number": number, "extension": None, "outside": True, "evidence": told}
    order: dict[str, Any] = {
        "attempt": attempt,
        "first": first,
        "agent_device": device,
        "agent_extension": "101",
        "number": number,
        "dial_string": lab.pbx_settings()["dial"].format(number=number),
        "caller_id": "+12125550100",
        "agent_ring_seconds": 15,
        "customer_ring_seconds": 25,
        "expected": OurCall(
            attempt,
            agent="anna",
            agent_device=device,
            number=number,
            callback="callback-1",
            client="acme",
            agent_first=first == "agent",
        ),
        "until": uptime() + 10,
    }
    line = stage.diary.add("Ringbridge", f"has the PBX call 101 and {number}")
    outcome = link.dial(DialOrder(**order))
    assert outcome.ok, outcome
    return line, attempt


def _started(line: Line, attempt: str, number: str = ANSWERS) -> Spec:
    to = {"dialled": number}
    data = {"direction": "outbound", "from": "101", "to": to, "client": "acme", "campaign": None}
    return event("started", line, {**data, "attempt": attempt, "callback": "callback-1"}, late_ms=500)


def _ended(line: Line, dials: Line, number: str, cause: str, **more: Any) -> Spec:
    return ended(line, dials, "101", number, cause, direction="outbound", within=600, **more)


@scenario(
    "dial_agent_first",
    "Ringbridge calls 101 and then the customer; both answer, 101 hangs up.",
    family="dials",
)
def dial_agent_first(stage: Stage) -> Expected:
    stage.answers("101")
    dials, attempt = _dial(stage, ANSWERS)
    rings, far = stage.sees("101", "rings"), stage.sees(ANSWERS, "rings")
    answers = stage.sees(ANSWERS, "answers")
    stage.talk(1.0)
    talk = stage.talks("101", "customer", answers, stage.hangs_up("101"))
    stage.sees(ANSWERS, "is released")
    return Expected(
        [
            Call(
                "call",
                [
                    _started(dials, attempt),
                    offered(rings),
                    offered(far, "customer"),
                    connected(talk),
                    _ended(talk.until, dials, ANSWERS, "completed", talks=[talk], ended_by="101"),
                ],
            )
        ]
    )


@scenario(
    "dial_customer_first",
    "Ringbridge calls the customer and then 101; both answer, 101 hangs up.",
    family="dials",
)
def dial_customer_first(stage: Stage) -> Expected:
    stage.answers("101")
    dials, attempt = _dial(stage, ANSWERS, "customer")
    far, rings = stage.sees(ANSWERS, "rings"), stage.sees("101", "rings")
    answers = stage.sees("101", "answers")
    stage.talk(1.0)
    talk = stage.talks("101", "customer", answers, stage.hangs_up("101"))
    stage.sees(ANSWERS, "is released")
    return Expected(
        [
            Call(
                "call",
                [
                    _started(dials, attempt),
                    offered(far, "customer"),
                    offered(rings),
                    connected(talk),
                    _ended(talk.until, dials, ANSWERS, "completed", talks=[talk], ended_by="101"),
                ],
            )
        ]
    )


@scenario(
    "dial_customer_busy",
    "Ringbridge calls 101, who answers, and the customer, who is busy.",
    family="dials",
)
def dial_customer_busy(stage: Stage) -> Expected:
    stage.answers("101")
    dials, attempt = _dial(stage, BUSY)
    rings, busy = stage.sees("101", "rings"), stage.sees(BUSY, "answers 486")
    over = stage.sees("101", "is released")
    return Expected(
        [
            Call(
                "call",
                [
                    _started(dials, attempt, BUSY),
                    offered(rings),
                    unoffered(busy, "busy", "customer"),
                    _ended(over, dials, BUSY, "busy", q850=17),
                ],
            )
        ]
    )


@scenario(
    "dial_refused", "Ringbridge calls 101, which is busy (486): the originate is refused.", family="dials"
)
def dial_refused(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "101")
    dials, attempt = _dial(stage, ANSWERS)
    busy = stage.sees("101", "answers 486")
    return Expected(
        [
            Call(
                "call",
                [
                    _started(dials, attempt),
                    unoffered(busy, "busy"),
                    _ended(busy, dials, ANSWERS, "busy", q850=17, late_ms=500),
                ],
            )
        ]
    )


@scenario(
    "callback_queue",
    "Somebody else's originate calls a customer, who answers, and puts the call into queue support; 103 answers.",
    family="dials",
)
def callback_queue(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER)
    stage.answers("103", after=0.8)
    dials = stage.diary.add("the PBX", f"is told to call {ANSWERS} and put the call into queue support")
    customer = stage.outside(ANSWERS, "customer")
    _originate(stage, ANSWERS, "850")
    far, picks = stage.sees(ANSWERS, "rings"), stage.sees(ANSWERS, "answers")
    answers = stage.sees("103", "answers")
    stops = [stage.sees(phone, "stops ringing") for phone in PHONES if phone != "103"]
    stage.talk(1.0)
    talk = stage.talks(customer, "103", answers, stage.hangs_up("103"))
    stage.sees(ANSWERS, "is released")
    unknown: Any = {"one_of": ["outbound", None]}
    someone: Any = {"one_of": ["customer", {"dialled": ANSWERS}, {"dialled": "850"}, None]}
    start = {"direction": unknown, "from": someone, "to": someone, "attempt": None, "callback": None}
    meets = {**connected(talk), "data": {"parties": {"pair": ["customer", "103"]}}}
    end = ended(talk.until, dials, None, None, "completed", talks=[talk], direction="outbound", within=600)
    del end["data"]["from"], end["data"]["to"]
    end["data"]["ended_by"] = "103"
    return Expected(
        [
            Call(
                "call",
                [
                    event("started", dials, start, late_ms=500),
                    offered(far, "customer"),
                    queued(picks, "support"),
                    together(*[[offered(stage.sees(phone, "rings"))] for phone in PHONES]),
                    together(
                        [unqueued(answers, "support", "answered")],
                        [meets],
                        *[[unoffered(line, "answered_elsewhere")] for line in stops],
                    ),
                    end,
                ],
            )
        ]
    )


def _originate(stage: Stage, number: str, to: str) -> None:
    string = stage.lab.pbx_settings()["dial"].format(number=number)
    if stage.pbx == "freeswitch":
        with stage.lab.company_esl() as esl:
            esl.api(f"bgapi originate {string} {to} XML default")
        return
    with stage.lab.company_ami() as ami:
        ami.action(
            "Originate",
            Channel=string,
            Context="from-internal",
            Exten=to,
            Priority="1",
            Async="true",
            Timeout="30000",
        )
