"""The lab as an object: what tests, the demo and the commands use."""

from __future__ import annotations

import base64
import json
import os
import re
import time
import uuid
from pathlib import Path
from typing import Any

from ringbridge_lab import freeswitch_installation, places, processes
from ringbridge_lab.ami import Ami
from ringbridge_lab.asterisk import (
    AsteriskCompany,
    asterisk_argv,
    asterisk_booted,
    tidy_asterisk,
    write_asterisk,
)
from ringbridge_lab.company import EXTENSIONS, Company
from ringbridge_lab.errors import LabError
from ringbridge_lab.esl import Esl
from ringbridge_lab.freeswitch import FreeSwitchCompany
from ringbridge_lab.installation import Progress, find
from ringbridge_lab.people import Behaviour as Behaviour
from ringbridge_lab.people import Caller as Caller
from ringbridge_lab.people import wait_until as wait_until
from ringbridge_lab.state import KINDS, State
from ringbridge_lab.witness import Invite, read_invites

BOOT_SECONDS = 30.0
"""A boot takes about two seconds; a busy machine may take longer."""


class Lab:
    """One lab in one folder. `up` is idempotent; an object may be made anew for a lab that runs.

    `pbx` is the kind of the company's PBX, `asterisk` or `freeswitch`; None means that of the lab which is up in
    the folder, else Asterisk.
    """

    def __init__(self, directory: Path | None = None, pbx: str | None = None) -> None:
        if pbx is not None and pbx not in KINDS:
            raise LabError(f"the lab has the PBXs {' and '.join(KINDS)}, not {pbx}")
        self.dir = places.check_dir(directory or places.default_dir())
        self._pbx = pbx
        self._state: State | None = None

    @property
    def state(self) -> State:
        """Raises LabError where the lab was never brought up, or was taken down."""
        if self._state is None:
            try:
                raw = json.loads((self.dir / "lab.json").read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise LabError(f"no lab is up in {self.dir}; bring one up with `ringbridge lab up`") from None
            try:
                self._state = State.from_dict(raw)
            except (KeyError, TypeError):
                raise LabError(
                    f"{self.dir / 'lab.json'} is of another version of the lab; end the processes that it names "
                    "under `pids`, then delete it"
                ) from None
        return self._state

    @property
    def info(self) -> dict[str, Any]:
        """The contents of `lab.json`."""
        return self.state.as_dict(self.dir)

    @property
    def pbx(self) -> str:
        """The kind of the company's PBX: `asterisk` or `freeswitch`."""
        if self._pbx is None and (self._state is not None or (self.dir / "lab.json").exists()):
            self._pbx = self.state.kind
        return self._pbx or "asterisk"

    @property
    def company(self) -> Company:
        """The company's PBX."""
        return self.state.company(self.dir)

    def device(self, extension: str) -> str:
        """An agent's phone as this PBX names it, also one that it does not know."""
        return str(self.info["company"]["phone"]).format(extension=extension)

    def pbx_settings(self) -> dict[str, Any]:
        """The `[[pbx]]` table that speaks to the company's PBX; a name is yours to add."""
        company = self.info["company"]
        return {
            "kind": company["kind"],
            "host": company["host"],
            "port": company["port"],
            "username": company["reader"]["username"],
            "secret": company["reader"]["secret"],
            "command_username": company["command"]["username"],
            "command_secret": company["command"]["secret"],
            "context": company["context"],
            "dial": company["dial"],
            "trunks": company["trunks"],
        }

    def running(self) -> dict[str, bool]:
        """Which of `company` and `world` runs; empty where no lab was brought up."""
        if not (self.dir / "lab.json").exists():
            return {}
        return {role: processes.alive(who) for role, who in self.state.processes.items()}

    def up(
        self,
        *,
        asterisk: Path | None = None,
        freeswitch: Path | None = None,
        progress: Progress = lambda text: None,
    ) -> bool:
        """Bring both processes up and wait until calls can be made; False where they already were.

        Raises LabError; then nothing is left running.
        """
        running = self.running()
        if running and self.state.kind != self.pbx:
            if any(running.values()):
                raise LabError(
                    f"a lab with {self.company.name} is up in {self.dir}; take it down first (ringbridge lab down)"
                )
            self.down()
        elif running and all(running.values()):
            return False
        elif running:
            self.down()
        # The company's first: a missing FreeSWITCH is said before an Asterisk is fetched.
        own = freeswitch_installation.find(freeswitch) if self.pbx == "freeswitch" else None
        world = find(asterisk, progress=progress)
        places.clear(self.dir)
        self.dir.mkdir(parents=True, exist_ok=True)
        with places.free_ports() as ports:
            run = {role: str(places.run_dir(self.dir, role)) for role in ("company", "world")}
            found = {"company": own or world, "world": world}
            self._state = State(self.pbx, ports, places.Secrets.generate(), found, run, {})
            company = self.company
            progress(
                f"Starting {company.name} {found['company'].version} as the company, "
                f"Asterisk {world.version} as the world."
            )
            company.write()
            # An Asterisk hears phones and trunk on one port.
            trunk = ports.company_trunk if self.pbx == "freeswitch" else ports.company_sip
            write_asterisk(self.state.place(self.dir, "world"), phone_sip=ports.company_sip, trunk_sip=trunk)
            try:
                for role in ("world", "company"):
                    self._start(role)
                self._wait_booted("world")
                self._wait_booted("company")
                self._wait_reachable()
            except BaseException:
                self.down()
                raise
        progress("The lab is up.")
        return True

    def down(self) -> None:
        """End both processes and whatever they hold. The recordings and the witness's file stay."""
        if self._state is None and not (self.dir / "lab.json").exists():
            return
        state = self.state
        # The company first: its calls end before the world that saw them.
        for role in ("company", "world"):
            if role in state.processes:
                processes.end(state.processes[role], grace=3.0)
        self.company.tidy()
        tidy_asterisk(state.place(self.dir, "world"))
        (self.dir / "lab.json").unlink(missing_ok=True)
        self._state = None

    def kill_company(self) -> None:
        """kill -9: no goodbye, no CDR."""
        processes.end(self.state.processes["company"], grace=0)

    def stop_company(self) -> None:
        """An orderly end that hangs up every call."""
        processes.end(self.state.processes["company"], grace=20.0)

    def start_company(self) -> None:
        """Start the company's PBX again on the same ports and wait until calls can be made."""
        if processes.alive(self.state.processes["company"]):
            return
        self._start("company")
        self._wait_booted("company")
        self._wait_reachable()

    def restart_company(self, *, kill: bool = False) -> None:
        """Stop or kill the company's PBX and start it again. The world is never stopped."""
        self.kill_company() if kill else self.stop_company()
        self.start_company()

    def company_ami(self) -> Ami:
        """A connection of the lab's own user, who may do anything. Raises LabError where it is no Asterisk."""
        company = self.company
        if not isinstance(company, AsteriskCompany):
            raise LabError(f"the company is a {company.name} and has no AMI")
        return company.ami()

    def company_esl(self) -> Esl:
        """A connection with the lab's own password. Raises LabError where the company is no FreeSWITCH."""
        company = self.company
        if not isinstance(company, FreeSwitchCompany):
            raise LabError(f"the company is an {company.name} and has no ESL")
        return company.esl()

    def world_ami(self) -> Ami:
        return Ami(self.state.ports.world_ami, "lab", self.state.secrets.lab)

    def phone(
        self,
        extension: str,
        behaviour: Behaviour = Behaviour.ANSWER,
        *,
        answer_after: float = 1.0,
        hangup_after: float | None = None,
    ) -> None:
        """Say what a phone does from now on; `hangup_after` counts seconds of talk."""
        _check_extension(extension)
        with self.world_ami() as ami:
            ami.set(f"phone/{extension}", "mode", behaviour.value)
            ami.set(f"phone/{extension}", "ring", f"{answer_after:g}")
            ami.set(f"phone/{extension}", "talk", "" if hangup_after is None else f"{hangup_after:g}")

    def reset_phones(self) -> None:
        """Every phone answers after a second, as when the lab came up."""
        with self.world_ami() as ami:
            for extension in EXTENSIONS:
                for key in ("mode", "ring", "talk"):
                    ami.set(f"phone/{extension}", key, "")

    def hang_up_phone(self, extension: str) -> int:
        """The agent puts the phone down; returns how many of its calls that ended."""
        _check_extension(extension)
        with self.world_ami() as ami:
            ended = 0
            for channel in self._phone_channels(ami, extension):
                try:
                    ami.action("Hangup", Channel=channel, Cause="16")
                except LabError as error:
                    # The call may have ended by itself since.
                    if "No such channel" not in str(error):
                        raise
                else:
                    ended += 1
        return ended

    def press_phone(self, extension: str, digits: str) -> None:
        """Press keys on a phone that is in a call. Raises LabError where it is in none."""
        _check_extension(extension)
        with self.world_ami() as ami:
            channels = self._phone_channels(ami, extension)
        if not channels:
            raise LabError(f"phone {extension} is in no call")
        self.press(channels[0], digits)

    def press(self, channel: str, digits: str) -> None:
        """Send DTMF from a channel of the world to the company."""
        if not re.fullmatch(r"[0-9A-D*#]{1,40}", digits):
            raise LabError("keys are 0-9, A-D, * and #")
        with self.world_ami() as ami:
            for digit in digits:
                ami.action("PlayDTMF", Channel=channel, Digit=digit, Duration="120")
                time.sleep(0.2)

    def call(
        self,
        to: str,
        *,
        caller: str = "+16465550111",
        name: str = "",
        withheld: bool = False,
        hangup_after: float | None = None,
        ring: float = 120.0,
        phone: str | None = None,
    ) -> Caller:
        """Place a call from the world: from an outside number by the trunk, or from an agent's phone.

        `name` and `caller` go out as they are, however hostile; a NUL or a line end cannot. `ring` is how long the
        caller waits for an answer, `hangup_after` how long the talk lasts.
        """
        if not re.fullmatch(r"[+0-9A-Za-z*#]{1,40}", to):
            raise LabError("a call goes to digits, letters, +, * and # only")
        line = "trunk"
        if phone is not None:
            _check_extension(phone)
            line, caller = f"phone-{phone}", phone
        call = uuid.uuid4().hex
        variables = {
            "LAB_CALL": call,
            "LAB_TO": to,
            "LAB_LINE": line,
            "LAB_FROM": base64.b64encode(caller.encode()).decode(),
            "LAB_NAME": base64.b64encode(name.encode()).decode(),
            "LAB_HIDE": "1" if withheld else "0",
            "LAB_RING": f"{ring:g}",
        }
        with self.world_ami() as ami:
            if hangup_after is not None:
                ami.set(f"call/{call}", "talk", f"{hangup_after:g}")
            ami.action(
                "Originate",
                Channel="Local/s@caller/n",
                Context="idle",
                Exten="s",
                Priority="1",
                Timeout="3600000",
                Async="true",
                Variable=[f"{key}={value}" for key, value in variables.items()],
            )
        return Caller(self, call)

    def witness(self, *, attempt: str | None = None) -> list[Invite]:
        """Every INVITE that reached the world, or those of one attempt, in the order of arrival."""
        rows = read_invites(self.dir / "witness.log")
        return [row for row in rows if attempt is None or row.attempt == attempt]

    def recording(self, of: str) -> Path:
        """What was heard by `caller-<call>`, or by the phone or number of a witness row's `leg`. Raises LabError."""
        found = sorted((self.dir / "heard").glob(f"*{of}*.ulaw"))
        if not found:
            raise LabError(f"nothing was recorded for {of}")
        return found[-1]

    def recordings(self) -> list[Path]:
        """Every recording of what someone heard, oldest first."""
        return sorted((self.dir / "heard").glob("*.ulaw"), key=lambda path: path.stat().st_mtime)

    def channels(self) -> int:
        """How many channels the company's PBX has now."""
        return self.company.channels()

    def wait_idle(self, *, seconds: float = 20.0) -> None:
        """Wait until the company has no call left. Raises LabError."""
        wait_until(lambda: self.channels() == 0, seconds=seconds, what="the company's calls to end")

    def hang_up_all(self) -> None:
        """End every call of the world, and so of the company, if it runs. Raises LabError."""
        # Together: the company may call a phone back for an attended transfer that came to nothing.
        wait_until(lambda: self._world_silenced() and self._company_idle(), seconds=60, what="all calls to end")

    def _company_idle(self) -> bool:
        """Whether it has no call. One that crashes meanwhile has none: Asterisk 22 now and then does, where everybody
        leaves an attended transfer at once.
        """
        try:
            return not self.running().get("company") or self.channels() == 0
        except LabError:
            if self.running().get("company"):
                raise
            return True

    def _world_silenced(self) -> bool:
        with self.world_ami() as ami:
            if not ami.command("core show channels concise").strip():
                return True
            # Again each time: one may have come just after the last.
            ami.command("channel request hangup all")
            return False

    def _phone_channels(self, ami: Ami, extension: str) -> list[str]:
        listing = ami.command("core show channels concise")
        rows = [line.split("!") for line in listing.splitlines() if line.startswith("PJSIP/")]
        wanted = f"PJSIP/phone-{extension}-"
        # An incoming call's channel is the company's; its dialled extension tells whose phone it is.
        with_variable = [
            row[0]
            for row in rows
            if row[0].startswith(wanted) or self._who(ami, row[0]) == f"phone-{extension}"
        ]
        return with_variable

    @staticmethod
    def _who(ami: Ami, channel: str) -> str:
        try:
            return ami.action("Getvar", Channel=channel, Variable="LAB_PHONE").get("Value", "")
        except LabError:
            return ""

    def _start(self, role: str) -> None:
        own = self.dir / role
        argv = self.company.argv() if role == "company" else asterisk_argv(self.state.place(self.dir, role))
        identity = processes.spawn(
            argv,
            cwd=own,
            output=own / "log" / "output.log",
            environ={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(own),
                "TZ": "UTC",
                "LANG": "C.UTF-8",
            },
        )
        self.state.processes[role] = identity
        self._save()

    def _save(self) -> None:
        path = self.dir / "lab.json"
        part = path.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(json.dumps(self.info, indent=2) + "\n", encoding="utf-8")
        part.replace(path)

    def _wait_booted(self, role: str) -> None:
        name = self.company.name if role == "company" else "Asterisk"

        def booted() -> bool:
            if not processes.alive(self.state.processes[role]):
                raise LabError(f"the {role}'s {name} ended while starting; {self.dir / role / 'log'} says why")
            try:
                if role == "company":
                    return self.company.booted()
                with self.world_ami() as ami:
                    return asterisk_booted(ami)
            except LabError:
                return False

        wait_until(booted, seconds=BOOT_SECONDS, what=f"the {role}'s {name} to start")

    def _wait_reachable(self) -> None:
        self.company.settle()
        wait_until(self.company.reachable, seconds=BOOT_SECONDS, what="the phones and the trunk to be reachable")


def _check_extension(extension: str) -> None:
    if extension not in EXTENSIONS:
        raise LabError(f"the lab has the phones {', '.join(EXTENSIONS)}, not {extension}")
