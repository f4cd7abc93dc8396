"""Record what the lab's PBX says of calls that Ringbridge's own dialplan places.

    python tests/traces/ours/record.py [SCENARIO ...]

brings a lab up, plays each scenario alone, and writes `asterisk-<major>/<scenario>.jsonl` (the bytes, in the format of
the other traces, secrets masked) and `.md` (what happened, told by the world, not by the PBX).
"""

from __future__ import annotations

import base64
import json
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ringbridge_lab.lab import Behaviour, Lab

HERE = Path(__file__).parent
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
}


class Wire:
    """One plain AMI connection whose every byte is kept."""

    def __init__(self, port: int, secret: str) -> None:
        self._secret = secret.encode()
        self.began = datetime.now(UTC)
        self._zero = time.monotonic()
        self.rows: list[tuple[float, str, bytes]] = []
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def now(self) -> float:
        return time.monotonic() - self._zero

    def send(self, *lines: str) -> None:
        raw = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self.rows.append((self.now, "out", raw.replace(self._secret, b"x" * len(self._secret))))
        self._socket.sendall(raw)

    def count(self, what: bytes) -> int:
        return b"".join(row[2] for row in self.rows if row[1] == "in").count(what)

    def finish(self, path: Path) -> None:
        self.send("Action: Logoff", "ActionID: logoff-1")
        self._reader.join(5)
        self._socket.close()
        with path.open("w", encoding="ascii") as file:
            for at, direction, raw in self.rows:
                row = {"t": round(at, 6), "dir": direction, "b64": base64.b64encode(raw).decode()}
                file.write(json.dumps(row) + "\n")

    def _read(self) -> None:
        while chunk := self._socket.recv(65536):
            self.rows.append((self.now, "in", chunk))


def originate_lines(attempt: str, scenario: Scenario, number: str) -> list[str]:
    """The Originate as Ringbridge sends it."""
    variables = {
        "RB_ATTEMPT": attempt,
        "RB_UNTIL": str(int(time.time()) + 60),
        "RB_FIRST": scenario.first,
        "RB_AGENT": "PJSIP/101",
        "RB_NUMBER": number,
        "RB_DIAL": f"PJSIP/{number}@trunk",
        "RB_CALLER": "+12125550100",
        "RB_AGENT_RING": str(scenario.agent_ring),
        "RB_CUSTOMER_RING": str(scenario.customer_ring),
    }
    return [
        "Action: Originate",
        f"ActionID: {uuid.uuid4()}",
        "Channel: Local/first@ringbridge-leg",
        f"ChannelId: {attempt}",
        f"OtherChannelId: {attempt}-2",
        "Context: ringbridge-go",
        "Exten: second",
        "Priority: 1",
        f"Timeout: {(scenario.agent_ring + scenario.customer_ring + 10) * 1000}",
        "Async: true",
        *(f"Variable: {key}={value}" for key, value in variables.items()),
    ]


def record(lab: Lab, name: str, scenario: Scenario) -> None:
    state = lab.state
    number = NUMBERS[scenario.customer]
    attempt = str(uuid.uuid4())
    lab.phone("101", scenario.agent)
    wire = Wire(state.ports.company_ami, state.secrets.reader)
    commands = Wire(state.ports.company_ami, state.secrets.command)
    told: list[str] = []
    wire.send("Action: Login", "ActionID: login-1", "Username: ringbridge", f"Secret: {state.secrets.reader}", "Events: on")
    commands.send(
        "Action: Login", "ActionID: login-2", "Username: ringbridge-dial", f"Secret: {state.secrets.command}", "Events: off"
    )
    until(lambda: wire.count(b"FullyBooted") and commands.count(b"accepted"))
    pause(0.3)
    lines = originate_lines(attempt, scenario, number)

    def dial(what: str) -> None:
        told.append(f"{wire.now:.2f} another connection {what}")
        commands.send(*lines)

    dial("originates the call")
    if talks(scenario):
        until(lambda: len(lab.witness(attempt=attempt)) >= 2)
        pause(1.0 + 2.0 if scenario.customer != "silent" else 2.0)
        if scenario.again:
            dial("sends the same Originate again, under the same ChannelId")
            pause(1.0)
        if scenario.hung_up_by == "agent":
            told.append(f"{wire.now:.2f} 101 hangs up")
            lab.hang_up_phone("101")
    lab.wait_idle(seconds=30)
    if scenario.again:
        dial("sends the same Originate a third time")
        pause(1.0)
        lab.wait_idle()
    pause(1.2)
    folder = HERE / f"asterisk-{state.installation.major}"
    folder.mkdir(exist_ok=True)
    wire.finish(folder / f"{name}.jsonl")
    commands.finish(Path("/dev/null"))
    invites = lab.witness(attempt=attempt)
    for row in invites:
        at = (row.at - wire.began).total_seconds()
        told.append(f"{at:.2f} an INVITE reaches {row.number} from {row.caller or 'nobody named'}")
    (folder / f"{name}.md").write_text(
        f"# {name}, Asterisk {state.installation.version}\n\n{scenario.told}\n\n"
        f"- Who: 101 is PJSIP/101; the customer is {number}, by PJSIP/trunk; attempt {attempt}; {scenario.first} first.\n"
        f"- Order, as the world saw it (seconds of the trace): {'; '.join(sorted(told, key=lambda line: float(line.split()[0])))}.\n"
        f"- Witness: {len(invites)} INVITE(s) of this attempt, at most one to each of 101 and {number}.\n"
        f"- t = 0 is {wire.began.isoformat(timespec='microseconds').replace('+00:00', 'Z')}.\n",
        encoding="utf-8",
    )
    print(f"{name}: {len(invites)} INVITEs", flush=True)


def talks(scenario: Scenario) -> bool:
    """Whether it waits for somebody to hang up."""
    if scenario.agent is not Behaviour.ANSWER:
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
    names = sys.argv[1:] or list(SCENARIOS)
    with tempfile.TemporaryDirectory(prefix="rb-trace-") as folder:
        lab = Lab(Path(folder))
        lab.up(progress=print)
        try:
            for name in names:
                record(lab, name, SCENARIOS[name])
        finally:
            lab.down()


if __name__ == "__main__":
    main()
