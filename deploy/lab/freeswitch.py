"""The company as a FreeSWITCH."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from ringbridge_lab import places
from ringbridge_lab.company import EXTENSIONS, Place
from ringbridge_lab.errors import LabError
from ringbridge_lab.esl import Esl

_FOLDERS = (
    "cache",
    "certs",
    "db",
    "grammar",
    "htdocs",
    "recordings",
    "run",
    "scripts",
    "sounds",
    "storage",
    "temp",
)
"""Every folder that FreeSWITCH would else look for beside its own installation."""


class FreeSwitchCompany:
    """The company as a FreeSWITCH."""

    name: ClassVar[str] = "FreeSWITCH"

    def __init__(self, place: Place) -> None:
        self.place = place

    def write(self) -> None:
        own, ports, keys = self.place.own, self.place.ports, self.place.secrets
        for folder in (own / "etc", own / "log" / "cdr-csv", *(own / "var" / name for name in _FOLDERS)):
            folder.mkdir(parents=True, exist_ok=True)
        places.write_files(
            "freeswitch",
            own / "etc",
            {
                "VAR": own / "var",
                "LOG": own / "log",
                "RTP_START": ports.company_rtp[0],
                "RTP_END": ports.company_rtp[1],
                "SIP_PORT": ports.company_sip,
                "TRUNK_SIP_PORT": ports.company_trunk,
                "WORLD_SIP_PORT": ports.world_sip,
                "ESL_PORT": ports.company_ami,
                "LAB_SECRET": keys.lab,
                "PHONE_SECRET": keys.phone,
            },
        )

    def argv(self) -> list[str]:
        own, var = self.place.own, self.place.own / "var"
        folders = {"conf": own / "etc", "log": own / "log", "mod": self.place.installation.modules}
        folders |= {name: var / name for name in _FOLDERS}
        options = [word for name, folder in folders.items() for word in (f"-{name}", str(folder))]
        return [*self.place.installation.argv, "-nf", "-nc", "-nonat", "-np", *options]

    def esl(self) -> Esl:
        """A connection with the lab's own password, which may do anything."""
        return Esl(self.place.ports.company_ami, self.place.secrets.lab)

    def booted(self) -> bool:
        with self.esl() as esl:
            return "is ready" in esl.api("status")

    def look_for_phones(self) -> None:
        """Nothing: every phone has a fixed address, and the trunk's gateway asks as it starts."""

    def reachable(self) -> bool:
        try:
            with self.esl() as esl:
                profiles = esl.api("sofia status")
                gateway = esl.api("sofia status gateway trunk")
                queues = esl.api("callcenter_config queue list")
        except LabError:
            return False
        running = re.findall(r"^\s*(\S+)\s+profile\s.*RUNNING", profiles, re.MULTILINE)
        up = re.search(r"^Status\s+UP\b", gateway, re.MULTILINE)
        return {"internal", "external"} <= set(running) and bool(up) and "sales@company" in queues

    def channels(self) -> int:
        with self.esl() as esl:
            found = re.search(r"(\d+) total", esl.api("show channels count"))
        return int(found[1]) if found else 0

    def facts(self) -> dict[str, Any]:
        ports, keys = self.place.ports, self.place.secrets
        return {
            "kind": "freeswitch",
            "host": "127.0.0.1",
            "port": ports.company_ami,
            "esl_port": ports.company_ami,
            "sip_port": ports.company_sip,
            "reader": {"username": "", "secret": keys.lab},
            "command": {"username": "", "secret": keys.lab},
            "trunk": "sofia/gateway/trunk",
            "trunks": ["sofia/gateway/trunk", "sofia/external"],
            "dial": "sofia/gateway/trunk/{number}",
            "phone": "user/{extension}",
            "phones": [f"user/{extension}" for extension in EXTENSIONS],
            "context": "default",
            "cdr": str(self.place.own / "log" / "cdr-csv" / "Master.csv"),
        }

    def tidy(self) -> None:
        """Nothing: all of it is in the lab's folder."""
