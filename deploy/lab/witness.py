"""What the world saw: one row per INVITE, written as it arrived."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Invite:
    """One INVITE that reached the world, for a phone (`101`) or a number (`+16465550101`)."""

    at: datetime
    call_id: str
    """SIP Call-ID."""
    number: str
    attempt: str | None
    """From the header X-Ringbridge-Attempt; None where there was none."""
    caller: str
    """The number it came from; empty where it was withheld."""
    leg: str
    """The world's own channel id: names the recording of what this leg heard."""

    @property
    def to_phone(self) -> bool:
        """Whether it was for an agent's phone rather than for an outside number."""
        return self.number.isdigit() and len(self.number) == 3


@dataclass(frozen=True, slots=True)
class CallerStep:
    """One step of a call that the lab placed: `dialing`, `answered`, `ended`."""

    at: datetime
    call: str
    step: str
    detail: str
    """The channel for `dialing` and `answered`, the Q.850 cause for `ended`."""


def read_invites(path: Path) -> list[Invite]:
    """Every whole line of the witness file, in the order of arrival."""
    rows = []
    for line in _lines(path):
        at, call_id, number, attempt, caller, leg = line.split(" ")
        rows.append(
            Invite(
                at=datetime.fromisoformat(at),
                call_id=unquote(call_id),
                number=unquote(number),
                attempt=unquote(attempt.removesuffix("-")) or None,
                caller=unquote(caller.removesuffix("-")),
                leg=leg,
            )
        )
    return rows


def read_steps(path: Path) -> list[CallerStep]:
    """Every whole line of the callers' file."""
    return [
        CallerStep(datetime.fromisoformat(at), call, step, detail)
        for at, call, step, detail in (line.split(" ", 3) for line in _lines(path))
    ]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    # What follows the last line end is a line still being written.
    return [line for line in text.split("\n")[:-1] if line]
