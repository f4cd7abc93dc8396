"""The company as a FreeSWITCH."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import ringbridge_dialplan
from ringbridge_lab import places, tones
from ringbridge_lab.company import EXTENSIONS, SOFTPHONES, Place
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


def kept_certificate(environ: Mapping[str, str] = os.environ) -> Path:
    """Where labs keep the certificate that FreeSWITCH makes for itself: its keys take it up to ten seconds."""
    cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ringbridge" / "lab-freeswitch.pem"


class FreeSwitchCompany:
    """The company as a FreeSWITCH."""

    name: ClassVar[str] = "FreeSWITCH"

    def __init__(self, place: Place) -> None:
        self.place = place

    def write(self) -> None:
        own, ports, keys = self.place.own, self.place.ports, self.place.secrets
        for folder in (own / "etc", own / "log" / "cdr-csv", *(own / "var" / name for name in _FOLDERS)):
            folder.mkdir(parents=True, exist_ok=True)
        tones.write(own / "var" / "sounds" / "lab" / "notice.wav", tones.NOTICE, 2.0)
        tones.write(own / "var" / "sounds" / "lab" / "lesson.wav", tones.NOTICE, 60.0)
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
                **{f"SOFTPHONE_{extension}_PORT": ports.softphone(extension) for extension in SOFTPHONES},
                "ESL_PORT": ports.company_ami,
                "LAB_SECRET": keys.lab,
                "PHONE_SECRET": keys.phone,
            },
        )
        places.write_secret(
            own / "etc" / "dialplan" / ringbridge_dialplan.FREESWITCH_DIALPLAN,
            ringbridge_dialplan.freeswitch_dialplan(),
        )
        places.write_secret(
            own / "etc" / "directory" / ringbridge_dialplan.FREESWITCH_USERS,
            ringbridge_dialplan.freeswitch_users(reader_secret=keys.reader, command_secret=keys.command),
        )
        if kept_certificate().is_file():
            for certificate in self._certificates():
                shutil.copy(kept_certificate(), certificate)

    def argv(self) -> list[str]:
        own, var = self.place.own, self.place.own / "var"
        folders = {"conf": own / "etc", "log": own / "log", "mod": self.place.installation.modules}
        folders |= {name: var / name for name in _FOLDERS}
        options = [word for name, folder in folders.items() for word in (f"-{name}", str(folder))]
        return [*self.place.installation.argv, "-nf", "-nc", "-nonat", "-np", *options]

    def _certificates(self) -> list[Path]:
        return [self.place.own / "var" / "certs" / name for name in ("dtls-srtp.pem", "wss.pem")]

    def esl(self) -> Esl:
        """A connection with the lab's own password, which may do anything."""
        return Esl(self.place.ports.company_ami, self.place.secrets.lab)

    def booted(self) -> bool:
        with self.esl() as esl:
            return "is ready" in esl.api("status")

    def settle(self) -> None:
        """Keep the certificate for the next lab."""
        made, kept = self._certificates()[0], kept_certificate()
        if made.is_file() and not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f"{kept.name}.{os.getpid()}")
            part.touch(mode=0o600)
            part.write_bytes(made.read_bytes())
            part.replace(kept)

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
        domain = ringbridge_dialplan.FREESWITCH_DOMAIN
        return {
            "kind": "freeswitch",
            "host": "127.0.0.1",
            "port": ports.company_ami,
            "esl_port": ports.company_ami,
            "sip_port": ports.company_sip,
            "trunk_sip_port": ports.company_trunk,
            "reader": {"username": f"ringbridge@{domain}", "secret": keys.reader},
            "command": {"username": f"ringbridge-dial@{domain}", "secret": keys.command},
            "trunk": "sofia/gateway/trunk",
            "trunks": ["sofia/gateway/trunk", "sofia/external"],
            "dial": "sofia/gateway/trunk/{number}",
            "phone": "user/{extension}",
            "phones": [f"user/{extension}" for extension in EXTENSIONS],
            "devices": {extension: f"user/{extension}" for extension in EXTENSIONS},
            "softphones": {extension: ports.softphone(extension) for extension in SOFTPHONES},
            "context": "default",
            "cdr": str(self.place.own / "log" / "cdr-csv" / "Master.csv"),
        }

    def tidy(self) -> None:
        """Nothing: all of it is in the lab's folder."""
