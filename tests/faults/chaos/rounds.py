"""Rounds of chaos, one after the other, and what is kept so that a run can be resumed."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.domain.attempts import CALLBACK_ENDED
from bridge.domain.errors import Unavailable

from .floor import Floor
from .judge import Story, Verdict, judge
from .people import watch, work
from .plan import HARM_SHARE, plan

Say = Callable[[str], None]
_ROUND_SLACK = 1.0
"""A look at the end of a round may take so long."""
_REST_SECONDS = 90.0
"""At the very end, how long calls may take to be over and agents to be free, once every callback is settled."""


@dataclass(slots=True)
class Options:
    """What a run is to be."""

    rounds: int
    seed: int
    seconds: float = 20.0
    """The most that a round takes; half of it is harmed."""
    settle: float = 240.0
    """How long, after the last round, callbacks may take to end."""
    later: float = 240.0
    """A try that is due so long after the last round, or later, is not waited for."""
    pbx: str = "asterisk"
    database: str | None = None
    redis: str | None = None


@dataclass(slots=True)
class State:
    """What is kept on disk after each round."""

    seed: int
    done: int = 0
    sites: list[tuple[str, int]] = field(default_factory=list)
    harms: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    last_seen: dict[str, str] = field(default_factory=dict)
    longest: float = 0.0

    def save(self, path: Path) -> None:
        """As a whole or not at all."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> State:
        """Of an earlier run."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class Run:
    """All rounds that are still to do, in one folder."""

    def __init__(self, folder: Path, options: Options, say: Say) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.options, self.say = folder, options, say
        self.path = folder / "state.json"
        self.state = State.load(self.path) if self.path.exists() else State(options.seed)
        if self.state.seed != options.seed:
            raise ValueError(f"the run in {folder} has seed {self.state.seed}, not {options.seed}")
        self.last_seen = {leg: datetime.fromisoformat(at) for leg, at in self.state.last_seen.items()}
        self.before: Counter[str] = Counter(self.state.harms)

    def run(self) -> dict[str, Any]:
        """Do them; the report."""
        options = self.options
        self.floor = Floor(
            self.folder / "floor", options.pbx, options.database, options.redis, {"sites": self.state.sites}
        )
        floor = self.floor
        self.state.sites = floor.sites
        self.state.save(self.path)
        threads = [
            threading.Thread(target=work, args=(floor.agents, floor.over), daemon=True),
            threading.Thread(target=watch, args=(floor.lab, self.last_seen, floor.over), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            for number in range(self.state.done + 1, options.rounds + 1):
                self._round(number)
            self._settle()
            floor.over.set()
            return self._report(threads)
        finally:
            floor.over.set()
            floor.harm.undo(everything=True)
            floor.visitors.leave()
            for thread in threads:
                thread.join()
            floor.down()

    def _round(self, number: int) -> None:
        floor, seconds = self.floor, self.options.seconds
        drawn = plan(self.options.seed, number, seconds, len(floor.sites))
        began = time.monotonic()
        todo: list[tuple[float, Callable[[], None]]] = [
            *((ask.at, lambda ask=ask: floor.visitors.ask(ask)) for ask in drawn.asks),
            *((blow.at, lambda blow=blow: floor.harm.blow(blow)) for blow in drawn.blows),
        ]
        todo.sort(key=lambda entry: entry[0])
        pace = threading.Event()
        first = len(floor.harm.done)
        while todo or time.monotonic() - began < seconds * HARM_SHARE:
            floor.harm.mend()
            if todo and time.monotonic() - began >= todo[0][0]:
                todo.pop(0)[1]()
            else:
                pace.wait(0.05)
        floor.harm.mend(everything=True)
        # What is not settled by then goes on in the next round, and is judged at the end.
        while time.monotonic() - began < seconds - _ROUND_SLACK and self._restless():
            floor.harm.mend()
            pace.wait(0.2)
        took = time.monotonic() - began
        self.state.done = number
        self.state.longest = max(self.state.longest, took)
        self._keep()
        harms = "; ".join(floor.harm.done[first:])
        self.say(f"round {number}/{self.options.rounds}: {took:.1f} s, {self._open()} open; {harms}")

    def _restless(self) -> bool:
        return self.floor.visitors.busy or bool(self._open()) or not self.floor.ready()

    def _keep(self) -> None:
        self.state.harms = dict(self.before + self.floor.harm.counts)
        self.state.errors = [*self.state.errors, *self.floor.visitors.errors]
        self.floor.visitors.errors.clear()
        self.state.last_seen = {leg: at.isoformat() for leg, at in dict(self.last_seen).items()}
        self.state.save(self.path)

    def _open(self, due_before: datetime | None = None) -> int:
        """How many callbacks are held by an attempt, or are due by then."""
        until = due_before or datetime.now(UTC)
        try:
            rows = self.floor.callbacks().values()
        except Unavailable:
            return 1
        alive = [row for row in rows if row["status"] not in CALLBACK_ENDED]
        return sum(1 for row in alive if row["held_by"] is not None or row["due_at"] <= until)

    def _settle(self) -> None:
        """Nothing is harmed any more: everything comes to its end by itself, or waits for a later try."""
        floor = self.floor
        floor.harm.rest()
        end = time.monotonic() + self.options.settle
        last = datetime.fromtimestamp(time.time() + self.options.later, UTC)
        pace = threading.Event()
        while not floor.ready() and time.monotonic() < end + _REST_SECONDS:
            floor.harm.mend()
            pace.wait(0.3)
        while (floor.visitors.busy or self._open(last)) and time.monotonic() < end:
            floor.harm.mend()
            pace.wait(0.3)
        self.say(f"settled: {self._open(last)} open")

    def _report(self, threads: list[threading.Thread]) -> dict[str, Any]:
        floor = self.floor
        for thread in threads:
            thread.join()
        floor.visitors.leave()
        end = time.monotonic() + _REST_SECONDS
        while (leftovers := floor.leftovers()) and time.monotonic() < end:
            threading.Event().wait(0.5)
        self.say(f"at rest, {len(leftovers)} leftovers")
        self._keep()
        story = Story(
            accepted=floor.visitors.accepted,
            invites=floor.invites(),
            last_seen=self.last_seen,
            callbacks=floor.callbacks(),
            attempts=floor.attempts(),
            changes=floor.changes(),
            phones={floor.lab.device(phone): phone for phone in floor.agents},
            now=datetime.now(UTC),
        )
        return report(self.state, story, judge(story), [*leftovers, *_loud(floor)])


def _loud(floor: Floor) -> list[str]:
    return ["the log says a number in clear"] if floor.numbers_in_log() else []


def report(state: State, story: Story, verdict: Verdict, leftovers: list[str]) -> dict[str, Any]:
    """The one object at the end; its counts first."""
    kills = {what.removeprefix("kill "): n for what, n in sorted(state.harms.items()) if what.startswith("kill ")}
    return {
        "seed": state.seed,
        "rounds": state.done,
        "callbacks": len({ask.id for ask in story.accepted}),
        "doubled": len(verdict.doubled),
        "lost": len(verdict.lost),
        "uncertain": len(verdict.uncertain),
        "kills": sum(kills.values()),
        "kills_by_kind": kills,
        "other_harms": {what: n for what, n in sorted(state.harms.items()) if not what.startswith("kill ")},
        "attempts": len(story.attempts),
        "invites": len(story.invites),
        "still_due": len(verdict.due),
        "ended_as": dict(Counter(_end(row) for row in story.callbacks.values()).most_common()),
        "longest_round_seconds": round(state.longest, 1),
        "doubles": verdict.doubled,
        "losses": verdict.lost,
        "uncertain_attempts": verdict.uncertain,
        "errors": state.errors,
        "leftovers": leftovers,
    }


def _end(row: Any) -> str:
    return f"{row['status']} ({row['reason']})" if row["reason"] else str(row["status"])


def clean(told: dict[str, Any]) -> bool:
    """Whether a report is what it should be."""
    return not (told["doubled"] or told["lost"] or told["errors"] or told["leftovers"])
