"""Record what the lab's PBX says of calls that Ringbridge's own dialplan places, and of a few others.

    python tests/traces/ours/record.py [--pbx freeswitch] [SCENARIO ...]

brings a lab up, plays each scenario alone before `ringbridge record`, and writes `<pbx>-<version>/<scenario>.jsonl` (FreeSWITCH:
`.jsonl.gz`), the bytes in the format of the other traces, and `.md`: what happened, told by the world, not by the PBX.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from bridge.domain.calls import Expected
from bridge.pbx.open import open_link
from bridge.pbx.port import DialOrder, PbxLink
from bridge.settings import Pbx
from bridge.uptime import uptime
from ringbridge_lab.lab import Behaviour, Lab

HERE = Path(__file__).parent
CALLER = "+16465550111"
NUMBERS = {"answers": "+16465550101", "busy": "+16465550140", "silent": "+16465550150", "rejects": "+16465550160"}
NUMBERS |= {"congested": "+16465550170", "hangs up": "+16465550180"}


@dataclass(frozen=True)
class Scenario:
    """One call: who is dialled first, what the customer and the agent's phone do, and who ends it after `talk`."""

    told: str
    customer: str = "answers"
    first: str = "agent"
    agent: Behaviour = Behaviour.ANSWER
    agent_ring: int = 15
    customer_ring: int = 25
    hung_up_by: str = "agent"
    again: bool = False
    extension: str = "101"
    trunk: str = "trunk"


@dataclass(frozen=True)
class People:
    """A call that is not ours: who calls, how the phones behave, and when the caller leaves by itself."""

    told: str
    to: str
    phone: str | None = None
    withheld: bool = False
    phones: Behaviour = Behaviour.ANSWER
    hangs_up_after: float | None = None


SCENARIOS = {
    "agent_first_answered": Scenario("Agent first; 101 and the customer answer after 1 s each, the agent hangs up 2 s later."),
    "agent_first_answered_customer_ends": Scenario(
        "Agent first; 101 and the customer answer after 1 s each, the customer hangs up 1 s later.",
        customer="hangs up",
        hung_up_by="nobody",
    ),
    "agent_first_customer_busy": Scenario("Agent first; 101 answers, the customer is busy (486).", customer="busy"),
    "agent_first_customer_noanswer": Scenario(
        "Agent first; 101 answers, the customer rings for 3 s and nobody answers.", customer="silent", customer_ring=3
    ),
    "agent_first_customer_rejects": Scenario("Agent first; 101 answers, the customer declines (603).", customer="rejects"),
    "agent_first_customer_congested": Scenario(
        "Agent first; 101 answers, the network answers 503 for the customer.", customer="congested"
    ),
    "agent_first_agent_gives_up": Scenario(
        "Agent first; 101 answers, the customer rings, the agent hangs up 2 s after answering.",
        customer="silent",
    ),
    "agent_first_agent_noanswer": Scenario(
        "Agent first; 101 rings for 3 s and nobody answers.", agent=Behaviour.NO_ANSWER, agent_ring=3
    ),
    "agent_first_agent_busy": Scenario("Agent first; 101 is busy (486).", agent=Behaviour.BUSY),
    "agent_first_agent_rejects": Scenario("Agent first; 101 declines (603).", agent=Behaviour.REJECT),
    "agent_first_dialed_again": Scenario(
        "Agent first, both answer; the same Originate is sent again while they talk, and again after the end. Refused.",
        again=True,
    ),
    "customer_first_answered": Scenario(
        "Customer first, who answers after 1 s; then 101, who answers after 1 s and hangs up 2 s later.", first="customer"
    ),
    "customer_first_noanswer": Scenario(
        "Customer first, who rings for 3 s and does not answer.", customer="silent", first="customer", customer_ring=3
    ),
    "customer_first_agent_noanswer": Scenario(
        "Customer first, who answers after 1 s; then 101 rings for 3 s and nobody answers.",
        first="customer",
        agent=Behaviour.NO_ANSWER,
        agent_ring=3,
    ),
    "agent_first_agent_unreachable": Scenario("Agent first; 109 never registered.", extension="109", agent=Behaviour.BUSY),
    "agent_first_trunk_gone": Scenario(
        "Agent first; 101 answers, and the PBX does not know the trunk.", trunk="nowhere", hung_up_by="nobody"
    ),
    "customer_first_agent_unreachable": Scenario(
        "Customer first, who answers after 1 s; 109 never registered.",
        first="customer",
        extension="109",
        agent=Behaviour.BUSY,
    ),
}
PEOPLE = {
    "queue_gives_up": People(
        "A caller to the queue with little patience; five phones ring, nobody answers.",
        "+12125550111",
        phones=Behaviour.NO_ANSWER,
    ),
    "queue_in_turn": People(
        "A caller to the queue in turn; a phone answers after 1 s, the caller hangs up 4 s after the PBX's answer.",
        "+12125550120",
        hangs_up_after=4,
    ),
    "withheld": People(
        "A caller who withholds the number; 101 answers, the caller hangs up 2 s later.",
        "+12125550101",
        withheld=True,
        hangs_up_after=2,
    ),
    "announcement": People("A caller to the announcement; the PBX alone speaks, and hangs up.", "+12125550130"),
    "out_declined": People("102 dials out; the customer declines (603).", NUMBERS["rejects"], phone="102"),
    "out_answered": People(
        "102 dials out; the customer answers after 1 s and hangs up 1 s later.", NUMBERS["hangs up"], phone="102"
    ),
}


class Deaf:
    """Hears the link that dials, and keeps nothing."""

    def __init__(self) -> None:
        self.there = threading.Event()

    def events(self, *_: object) -> None:
        """Recorded elsewhere."""

    asked = link_up = link_detail = link_down = events

    def resynced(self, _: object) -> None:
        self.there.set()


class Recording:
    """`ringbridge record`, from its first byte on."""

    def __init__(self, settings: Path, file: Path) -> None:
        self.file = file
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bridge.cli", "record", "--json", "--overwrite", str(file)],
            env={**os.environ, "RINGBRIDGE_CONFIG": str(settings)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.began = datetime.fromisoformat(json.loads(self._process.stdout.readline())["began"])

    @property
    def now(self) -> float:
        return (datetime.now(UTC) - self.began).total_seconds()

    def finish(self) -> None:
        self._process.send_signal(signal.SIGINT)
        if self._process.wait(20) != 0:
            raise SystemExit("the recording did not end well")
        self.file.chmod(0o644)


class Stage:
    """A lab, a link that dials, and the settings that a recording reads."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.settings = folder / "ringbridge.toml"
        table = {"name": "lab", **lab.pbx_settings()}
        self.settings.write_text(tomli_w.dumps({"pbx": [table]}), encoding="utf-8")
        deaf = Deaf()
        self.link: PbxLink = open_link(Pbx.model_validate(table), deaf)
        self.link.start()
        if not deaf.there.wait(20):
            raise SystemExit("the link did not come up")
        major = lab.state.installation.version.split(".")
        self.folder = HERE / (f"asterisk-{major[0]}" if lab.pbx == "asterisk" else f"freeswitch-{'.'.join(major[:2])}")
        self.folder.mkdir(exist_ok=True)
        self.suffix = ".jsonl" if lab.pbx == "asterisk" else ".jsonl.gz"

    def record(self, name: str) -> None:
        recording = Recording(self.settings, self.folder / f"{name}{self.suffix}")
        pause(0.3)
        before = len(self.lab.witness())
        if name in PEOPLE:
            told = self.people(PEOPLE[name], recording)
            scenario: Scenario | People = PEOPLE[name]
            who = f"{PEOPLE[name].phone or CALLER} calls {PEOPLE[name].to}"
        else:
            attempt = str(uuid.uuid4())
            scenario = SCENARIOS[name]
            told = self.ours(scenario, recording, attempt)
            who = (
                f"{scenario.extension} is {self.lab.device(scenario.extension)}; the customer is "
                f"{NUMBERS[scenario.customer]}, by {self.lab.info['company']['trunk']}; attempt {attempt}; {scenario.first} first"
            )
        pause(1.2)
        recording.finish()
        invites = self.lab.witness()[before:]
        for row in invites:
            at = (row.at - recording.began).total_seconds()
            told.append(f"{at:.2f} an INVITE reaches {row.number} from {row.caller or 'nobody named'}")
        ordered = "; ".join(sorted(told, key=lambda line: float(line.split()[0])))
        (self.folder / f"{name}.md").write_text(
            f"# {name}, {self.lab.company.name} {self.lab.state.installation.version}\n\n{scenario.told}\n\n"
            f"- Who: {who}.\n"
            f"- Order, as the world saw it (seconds of the trace): {ordered}.\n"
            f"- Witness: {len(invites)} INVITE(s).\n"
            f"- t = 0 is {recording.began.isoformat(timespec='microseconds').replace('+00:00', 'Z')}.\n",
            encoding="utf-8",
        )
        print(f"{name}: {len(invites)} INVITEs", flush=True)

    def people(self, play: People, recording: Recording) -> list[str]:
        for extension in ("101", "102", "103", "104", "105"):
            self.lab.phone(extension, play.phones)
        call = self.lab.call(
            play.to, caller=CALLER, phone=play.phone, withheld=play.withheld, hangup_after=play.hangs_up_after
        )
        call.wait_for("ended")
        self.lab.wait_idle(seconds=30)
        return [
            f"{(step.at - recording.began).total_seconds():.2f} the caller's call is {step.step}"
            + (f" (Q.850 {step.detail})" if step.step == "ended" else "")
            for step in call.steps()
        ]

    def ours(self, scenario: Scenario, recording: Recording, attempt: str) -> list[str]:
        lab, told = self.lab, []
        if scenario.extension != "109":
            lab.phone(scenario.extension, scenario.agent)

        def dial(what: str) -> None:
            told.append(f"{recording.now:.2f} another connection {what}")
            outcome = self.link.dial(self.order(scenario, attempt))
            if not outcome.ok:
                raise SystemExit(f"not sent: {outcome}")

        dial("originates the call")
        if talks(scenario):
            until(lambda: len(lab.witness(attempt=attempt)) >= 2)
            pause(1.0 + 2.0 if scenario.customer != "silent" else 2.0)
            if scenario.again:
                dial("sends the same Originate again, under the same id")
                pause(1.0)
            if scenario.hung_up_by == "agent":
                told.append(f"{recording.now:.2f} 101 hangs up")
                lab.hang_up_phone("101")
        else:
            # Until it has begun; one that cannot begin is over at once.
            pause(2.0)
        lab.wait_idle(seconds=30)
        if scenario.again:
            dial("sends the same Originate a third time")
            pause(1.0)
            lab.wait_idle()
        return told

    def order(self, scenario: Scenario, attempt: str) -> DialOrder:
        number, device = NUMBERS[scenario.customer], self.lab.device(scenario.extension)
        values: dict[str, Any] = {
            "attempt": attempt,
            "first": scenario.first,
            "agent_device": device,
            "agent_extension": scenario.extension,
            "number": number,
            "dial_string": self.lab.pbx_settings()["dial"].format(number=number).replace("trunk", scenario.trunk),
            "caller_id": "+12125550100",
            "agent_ring_seconds": scenario.agent_ring,
            "customer_ring_seconds": scenario.customer_ring,
            "expected": Expected(attempt, None, device, number, agent_first=scenario.first == "agent"),
            "until": uptime() + 5,
        }
        return DialOrder(**values)


def talks(scenario: Scenario) -> bool:
    """Whether it waits for somebody to hang up."""
    if scenario.agent is not Behaviour.ANSWER or scenario.trunk != "trunk":
        return False
    return scenario.customer == "answers" or (scenario.customer == "silent" and scenario.customer_ring > 20)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the scenario did not go as told")
        time.sleep(0.02)


def pause(seconds: float) -> None:
    """The trace's own time passes: people talk, or nothing happens."""
    time.sleep(seconds)


def main() -> None:
    arguments = sys.argv[1:]
    kind = "asterisk"
    if arguments[:1] == ["--pbx"]:
        kind, arguments = arguments[1], arguments[2:]
    with tempfile.TemporaryDirectory(prefix="rb-trace-") as folder:
        lab = Lab(Path(folder) / "lab", pbx=kind)
        lab.up(progress=print)
        stage = Stage(lab, Path(folder))
        try:
            for name in arguments or [*SCENARIOS, *PEOPLE]:
                stage.record(name)
        finally:
            stage.link.stop()
            lab.down()


if __name__ == "__main__":
    main()
