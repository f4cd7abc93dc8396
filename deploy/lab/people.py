"""Who takes part in the lab's calls: how a phone behaves, and a call that somebody placed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ringbridge_lab.errors import LabError
from ringbridge_lab.witness import CallerStep, read_steps

if TYPE_CHECKING:
    from ringbridge_lab.lab import Lab

T = TypeVar("T")


class Behaviour(StrEnum):
    """What a phone does when it is called."""

    ANSWER = "answer"
    NO_ANSWER = "no-answer"
    BUSY = "busy"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Caller:
    """A call that the lab placed."""

    lab: Lab
    id: str

    def steps(self) -> list[CallerStep]:
        """What it did so far: `dialing`, `answered`, `ended`."""
        return [step for step in read_steps(self.lab.dir / "callers.log") if step.call == self.id]

    def wait_for(self, step: str, *, seconds: float = 30.0) -> CallerStep:
        """Wait for a step and return it. Raises LabError."""
        return wait_until(
            lambda: next((row for row in self.steps() if row.step == step), None),
            seconds=seconds,
            what=f"the call to be {step}",
        )

    def hang_up(self) -> None:
        """The caller hangs up, or gives up before the answer."""
        channel = self.steps()[-1].detail
        with self.lab.world_ami() as ami:
            ami.action("Hangup", Channel=channel, Cause="16")

    def send(self, digits: str) -> None:
        """Press keys, such as `##102`."""
        self.lab.press(self.wait_for("answered").detail, digits)

    def recording(self) -> Path:
        """What the caller heard; whole once the call has ended."""
        return self.lab.recording(f"caller-{self.id}")


def wait_until(probe: Callable[[], T | None], *, seconds: float, what: str) -> T:
    """Ask until the answer is something true, and return it. Raises LabError once the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.05)
