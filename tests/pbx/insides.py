"""What a test does to the company's PBX from inside, and what it reads there: each PBX in its own words.

All other tests know the PBX by what the lab says of it, and by what people hear and see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from ringbridge_dialplan import FREESWITCH_USERS
from ringbridge_lab.lab import Lab, wait_until

LONG_SOUND = "lab/lesson"
"""A sound that is long enough to be stopped."""
LEFT_TOGETHER = {"asterisk": 2, "freeswitch": 4}
"""Channels of two who talk once somebody asked one for the other: on FreeSWITCH the wire between them must stay."""


def end_hold(lab: Lab) -> None:
    """Whoever is held by Ringbridge is held no more, without Ringbridge."""
    if lab.pbx == "freeswitch":
        with lab.company_esl() as esl:
            for row in json.loads(esl.api("show channels as json")).get("rows", []):
                if row["callstate"] == "HELD":
                    esl.api(f"uuid_hold off {row['uuid']}")
        return
    with lab.company_ami() as ami:
        names = [line.split("!")[0] for line in ami.command("core show channels concise").splitlines()]
        for name in names:
            if name.startswith("Local/hold@") and name.endswith(";1"):
                ami.action("Hangup", Channel=name)


@contextmanager
def without_trunk(lab: Lab) -> Iterator[None]:
    """The PBX does not know its trunk."""
    take, give = _TRUNK[lab.pbx]
    take(lab)
    try:
        yield
    finally:
        give(lab)


@contextmanager
def without_permission(lab: Lab, command: str) -> Iterator[None]:
    """Our command user may not use that command of a FreeSWITCH; who is signed in already still may."""
    path = lab.dir / "company" / "etc" / "directory" / FREESWITCH_USERS
    before = path.read_text(encoding="utf-8")

    def write(text: str) -> None:
        path.write_text(text, encoding="utf-8")
        with lab.company_esl() as esl:
            esl.api("reloadxml")

    write(before.replace(f" {command}", ""))
    try:
        yield
    finally:
        write(before)


def callers_name(lab: Lab) -> str:
    """The name that the PBX took from the one call of the trunk."""
    if lab.pbx == "freeswitch":
        with lab.company_esl() as esl:
            rows = json.loads(esl.api("show channels as json"))["rows"]
            trunk = next(row["uuid"] for row in rows if row["name"].startswith("sofia/external/"))
            return esl.variable(trunk, "caller_id_name").replace("\\", "")
    with lab.company_ami() as ami:
        listing = ami.command("core show channels concise")
        trunk = next(line.split("!")[0] for line in listing.splitlines() if line.startswith("PJSIP/trunk"))
        return ami.action("Getvar", Channel=trunk, Variable="CALLERID(name)")["Value"].replace("\\", "")


def kept(lab: Lab, name: str) -> str:
    """What this PBX makes of a caller's name: FreeSWITCH decodes it, and breaks what would be a variable."""
    return unquote(name).replace("${", "%{") if lab.pbx == "freeswitch" else name


def sound_file(lab: Lab, name: str) -> Path:
    """Where a sound must lie for the PBX to know it by that name."""
    return lab.dir / "company" / _SOUNDS[lab.pbx] / f"{name}.wav"


def record_file(lab: Lab, name: str) -> Path:
    """A recording, by the name that an outcome gives."""
    return lab.dir / "company" / _RECORDINGS[lab.pbx] / name


_SOUNDS = {"asterisk": "var/sounds", "freeswitch": "var/sounds"}
_RECORDINGS = {"asterisk": "var/spool/monitor", "freeswitch": "var/recordings"}


def _hide_endpoint(lab: Lab) -> None:
    _rewrite_pjsip(lab, "[trunk](leg)", "[elsewhere](leg)")


def _show_endpoint(lab: Lab) -> None:
    _rewrite_pjsip(lab, "[elsewhere](leg)", "[trunk](leg)")


def _rewrite_pjsip(lab: Lab, old: str, new: str) -> None:
    path = lab.dir / "company" / "etc" / "pjsip.conf"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with lab.company_ami() as ami:
        ami.command("module reload res_pjsip.so")


def _kill_gateway(lab: Lab) -> None:
    with lab.company_esl() as esl:
        esl.api("sofia profile external killgw trunk")
        wait_until(
            lambda: "Invalid Gateway" in esl.api("sofia status gateway trunk"), seconds=10, what="the gateway to go"
        )


def _read_gateway(lab: Lab) -> None:
    with lab.company_esl() as esl:
        esl.api("sofia profile external rescan")
    wait_until(lab.company.reachable, seconds=30, what="the gateway to come back")


_TRUNK = {"asterisk": (_hide_endpoint, _show_endpoint), "freeswitch": (_kill_gateway, _read_gateway)}
