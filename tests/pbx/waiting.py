"""Who waits in the queue that offers a key, as each kind of PBX lists it."""

from __future__ import annotations

import re

from ringbridge_lab.lab import Lab

OFFERED = "+12125550125"
"""The DID by which callers enter it."""


def shown(lab: Lab) -> list[tuple[str, int]]:
    """Who waits in the queue, in its order, and for how many seconds."""
    if lab.pbx == "freeswitch":
        return _of_freeswitch(lab)
    with lab.company_ami() as ami:
        text = ami.command("queue show offer")
    found = re.findall(r"^\s+\d+\. (\S+) \(wait: (\d+):(\d+)", text, re.MULTILINE)
    return [(name, int(minutes) * 60 + int(seconds)) for name, minutes, seconds in found]


def _of_freeswitch(lab: Lab) -> list[tuple[str, int]]:
    with lab.company_esl() as esl:
        head, *lines = esl.api("callcenter_config queue list members offer@company").splitlines()
    rows = [dict(zip(head.split("|"), line.split("|"), strict=False)) for line in lines]
    return [(row["session_uuid"], int(row["score"])) for row in rows if row.get("state") in ("Waiting", "Trying")]


def types(lab: Lab, name: str, times: int) -> bool:
    """Whether that caller is asked for a number for the so-manieth time. What an Asterisk asks may be typed ahead."""
    if lab.pbx != "freeswitch":
        return True
    with lab.company_esl() as esl:
        return esl.variable(name, "rb_tries") == str(times)


def line(lab: Lab) -> list[str]:
    """The names alone."""
    return [name for name, _ in shown(lab)]
