"""The stage: a lab with either PBX, the people who act on it, and the witness's diary of what they saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rig import until

from bridge.pbx.port import PbxLink
from ringbridge_lab import tones
from ringbridge_lab.company import SOFTPHONES
from ringbridge_lab.lab import Behaviour, Caller, Lab
from scenarios import Scenario
from scenarios.diary import Diary, Line
from scenarios.expected import AGENTS, CLIENTS, Expected, Talk
from scenarios.softphone import CALLER_TONE, Softphone, phone_of

TOLERANCE_MS = 150
SLOW_MS = 2000
"""How far seconds of waiting and talking may be from the witness's where the machine does other things beside."""
PHONES = ("101", "102", "103", "104", "105")
_PHONE_HZ = {str(101 + place): 330 + 40 * place for place in range(8)}
_CALLER_HZ = 800


@dataclass
class Customer:
    """Somebody outside who calls, or an agent's phone that dials."""

    stage: Stage
    handle: str
    name: str
    """As the story calls it."""
    call: Caller
    dials: Line

    def sees(self, what: str, nth: int = 1) -> Line:
        """Wait until it saw or did that."""
        return self.stage.sees(self.name, what, nth)

    def hangs_up(self) -> Line:
        """Puts the phone down, in the talk or before; the line of it."""
        self.call.hang_up()
        seen = self.stage.diary.lines(self.name)
        return self.sees("hangs up" if any(line.what == "is answered" for line in seen) else "gives up")

    def presses(self, digits: str) -> None:
        """Keys, such as `##102`."""
        self.call.send(digits)


class Stage:
    """One scenario being played.

    `looker`, if any, is called as it begins, asks the PBX meanwhile what a resync asks, and gives back what ends that.
    `tolerance_ms` is how far the tracker's seconds may be from the witness's.
    """

    def __init__(
        self, lab: Lab, scenario: Scenario, *, zero: datetime | None = None, tolerance_ms: int = TOLERANCE_MS
    ) -> None:
        self.lab = lab
        self.scenario = scenario
        self.tolerance_ms = tolerance_ms
        self.diary = Diary(lab, zero or datetime.now(UTC))
        self.looker: Callable[[Stage], Callable[[], object]] | None = None
        self.people: dict[str, dict[str, Any]] = {}
        self.talked: list[Talk] = []
        self.notes: list[str] = []
        """Facts for the story that belong to no second, such as what the PBX's own records say."""
        self.after: list[Callable[[], object]] = []
        """What is to be undone once it is over, such as a softphone's socket."""
        self.link: PbxLink | None = None
        """What hears this scenario, where one does, for calls that Ringbridge places."""
        self.presentation: dict[str, str] = {}
        self.tones: dict[str, int] = {}
        """What somebody plays, by handle, where it is not what that phone or number always does."""
        self._ears: dict[str, str] = {}
        """By what the recording of a caller is known."""
        self._heard_before = set(lab.recordings())
        self._cdr_before = len(self._cdr())

    @property
    def pbx(self) -> str:
        """`asterisk` or `freeswitch`."""
        return self.lab.pbx

    # --- the people ---

    def phones(self, behaviour: Behaviour, *extensions: str, answer_after: float = 0.5) -> None:
        """What phones do from now on; all, where none is named."""
        for extension in extensions or PHONES:
            self.lab.phone(extension, behaviour, answer_after=answer_after)

    def answers(self, extension: str, after: float = 0.5, hangup_after: float | None = None) -> None:
        """That phone answers so many seconds after it begins to ring."""
        self.lab.phone(extension, Behaviour.ANSWER, answer_after=after, hangup_after=hangup_after)

    def call(
        self,
        to: str,
        handle: str = "caller",
        *,
        number: str = "+16465550111",
        name: str = "Caller Ünï",
        phone: str | None = None,
        withheld: bool = False,
        **more: Any,
    ) -> Customer:
        """Somebody calls: from outside by the trunk, or from an agent's phone."""
        placed = self.lab.call(to, caller=number, name=name, phone=phone, withheld=withheld, **more)
        told = phone or (f"{handle} who withholds the number" if withheld else f"{handle} {number}")
        step = placed.wait_for("dialing")
        self.diary.is_person(step.detail, told)
        self.tones.setdefault(phone or handle, _CALLER_HZ)
        self._ears[phone or handle] = f"caller-{placed.id}"
        line = self.diary.add(told, f"dials {to}", step.at)
        if phone is not None:
            self.knows(phone)
        else:
            who: dict[str, Any] = {"number": number, "extension": None, "name": name or None, "outside": True}
            if withheld:
                who |= {"number": None, "name": None, "withheld": True}
            self.people[handle] = {**who, "evidence": f"{told} dials {to}"}
        return Customer(self, phone or handle, told, placed, line)

    def outside(self, number: str, handle: str) -> str:
        """A number outside that somebody calls; its handle."""
        self.people[handle] = {"number": number, "extension": None, "outside": True, "evidence": number}
        return handle

    def hangs_up(self, extension: str, nth: int = 1) -> Line:
        """The agent puts the phone down; the line of it."""
        self.lab.hang_up_phone(extension)
        return self.sees(extension, "hangs up", nth)

    def sees(self, who: str, what: str, nth: int = 1) -> Line:
        """Wait until that person saw or did that for the nth time."""
        if who in PHONES:
            self.knows(who)
        return self.diary.wait(who, what, nth)

    def knows(self, extension: str) -> None:
        """That phone takes part."""
        evidence = f"{extension} is {self.lab.device(extension)}"
        self.people.setdefault(extension, {"extension": extension, "evidence": evidence})

    def over(self) -> None:
        """Wait until the PBX and everybody has ended what there was."""
        self.diary.idle()
        self.lab.wait_idle(seconds=30)

    def first(self, what: str, *, among: tuple[str, ...] = PHONES, after: Line | None = None) -> Line:
        """Wait until one of those phones saw or did that, whichever it is."""

        def found() -> Line | None:
            lines = self.diary.lines()
            later = lines[lines.index(after) + 1 :] if after else lines
            return next((line for line in later if line.who in among and line.what == what), None)

        line = until(found, what=f"{what}: one of {', '.join(among)}")
        self.sees(line.who, what)
        return line

    def softphone(self, extension: str) -> Softphone:
        """A phone of the company that does to the millisecond what it is told; it rings, unless told otherwise."""
        self.people[extension] = {
            "extension": extension,
            "evidence": f"{extension} is {self.lab.device(extension)}",
        }
        phone = phone_of(self.lab, extension, self.diary.add)
        self.after.append(phone.close)
        return phone

    def ask_presentation(self) -> None:
        """Ask Asterisk whether the callers of its trunk may be shown, as a link does: its events do not say."""
        if self.pbx != "asterisk":
            return
        with self.lab.company_ami() as ami:
            listing = ami.command("core show channels concise").splitlines()
            for channel in (row.split("!")[0] for row in listing if row.startswith("PJSIP/trunk")):
                value = ami.action("Getvar", Channel=channel, Variable="CALLERID(pres)")["Value"]
                self.presentation[channel] = value
                self.notes.append(f"asked for CALLERID(pres) of {channel}, the PBX says {value}")

    def talk(self, seconds: float = 1.0) -> None:
        """The scenario's own time passes: people talk, or wait."""
        time.sleep(seconds)

    def talks(self, one: Customer | str, two: Customer | str, since: Line, until: Line) -> Talk:
        """Two people heard each other between those lines; what each recorded must hold the other's tone."""
        handles = tuple(person if isinstance(person, str) else person.handle for person in (one, two))
        names = tuple(person if isinstance(person, str) else person.name for person in (one, two))
        assert len(handles) == 2 and len(names) == 2
        talk = Talk(handles, since, until, names)
        self.talked.append(talk)
        return talk

    # --- before and after ---

    def play(self) -> dict[str, Any]:
        """Play it to its end; what must come of it, as in `expected.json`. Once over, `story` tells it."""
        self.lab.reset_phones()
        stop = self.looker(self) if self.looker else None
        try:
            expected = self.scenario.play(self)
            self.over()
        finally:
            if stop is not None:
                stop()
            for undo in reversed(self.after):
                undo()
        self._hear()
        return self._spec(expected)

    def close(self) -> None:
        """The diary is written no more."""
        self.diary.close()

    def _hear(self) -> None:
        """Whether those who are said to have talked heard each other: a second witness, their recordings."""
        ours = [path for path in self.lab.recordings() if path not in self._heard_before]
        for talk in self.talked:
            if talk.ms < 800:
                continue
            for one, two in (talk.who, talk.who[::-1]):
                tone, path = self._tone(two), self._recorded(one, ours)
                if tone is None or not path:
                    continue
                if not any(tones.has_tone(file, tone) for file in path):
                    if self.tolerance_ms > TOLERANCE_MS and (two in SOFTPHONES or tone == CALLER_TONE):
                        # A softphone's tone is sent by this process, which a busy machine may hold up for long.
                        continue
                    raise AssertionError(
                        f"{one} is said to have talked with {two}, and did not hear {tone} Hz"
                    )
                self.notes.append(f"{one} heard the tone of {two}")

    def _tone(self, handle: str) -> int | None:
        if handle in self.tones:
            return self.tones[handle]
        if handle in _PHONE_HZ:
            return _PHONE_HZ[handle]
        number = self.people.get(handle, {}).get("number")
        return 1000 + 10 * int(number[-2:]) if number else None

    def _recorded(self, handle: str, ours: list[Path]) -> list[Path]:
        number = self.people.get(handle, {}).get("number")
        known = self._ears.get(handle) or (f"number-{number[-2:]}-" if number else f"phone-{handle}-")
        return [path for path in ours if known in path.name]

    def _cdr(self) -> list[str]:
        path = Path(self.lab.info["company"]["cdr"])
        return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []

    # --- what is written ---

    def _patient(self, spec: Any) -> Any:
        """What is played for a test and not for the corpus may run on a slow machine, where the PBX is late too."""
        if self.tolerance_ms <= TOLERANCE_MS:
            return spec
        if isinstance(spec, dict):
            return {
                key: max(value, SLOW_MS) if key == "within" else self._patient(value) for key, value in spec.items()
            }
        return [self._patient(value) for value in spec] if isinstance(spec, list | tuple) else spec

    def _spec(self, expected: Expected) -> dict[str, Any]:
        return {
            "pbx": self.folder,
            "scenario": self.scenario.name,
            "what": self.scenario.what,
            "zero": _text(self.diary.zero),
            "tolerance_ms": self.tolerance_ms,
            "directory": {"agents": AGENTS, "clients": CLIENTS},
            "people": self.people,
            **({"presentation": self.presentation} if self.presentation else {}),
            "calls": [self._patient(call.spec()) for call in expected.calls],
            "never": expected.never,
            "notes": expected.notes,
        }

    @property
    def folder(self) -> str:
        """The corpus's name of this PBX and version."""
        version = self.lab.state.installation.version.split(".")
        return (
            f"asterisk-{version[0]}-lab"
            if self.pbx == "asterisk"
            else f"freeswitch-{'.'.join(version[:2])}-lab"
        )

    def story(self) -> str:
        """What the witness says, as it stands in `story.md`."""
        lines = self.diary.lines()
        order = "; ".join(line.text for line in lines)
        who = "; ".join(dict.fromkeys(str(person["evidence"]) for person in self.people.values()))
        joined = "; ".join(talk.text for talk in self.talked) or "nobody"
        heard = "; ".join(dict.fromkeys(self.notes)) or "nothing"
        records = [f"    {row}" for row in self._cdr()[self._cdr_before :]]
        return "\n".join(
            [
                f"# {self.scenario.name}, {self.folder}",
                "",
                self.scenario.what,
                "",
                f"- Who: {who}.",
                f"- Order, as phones and outside saw it (seconds of the trace): {order}.",
                f"- Joined by the PBX (a hold does not part them): {joined}.",
                f"- Besides: {heard}.",
                f"- t = 0 is {_text(self.diary.zero)}.",
                f"- The PBX's own records (CDR): {len(records)}" + (":" if records else "."),
                *(["", *records] if records else []),
                "",
            ]
        )


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
