"""An Asterisk of the lab: the world always, the company where it is of that kind."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import ringbridge_dialplan
from ringbridge_lab import places, tones
from ringbridge_lab.ami import Ami
from ringbridge_lab.company import EXTENSIONS, SOFTPHONES, Place
from ringbridge_lab.errors import LabError


def write_asterisk(place: Place, *, phone_sip: int, trunk_sip: int) -> None:
    """Write the configuration of one Asterisk; the two ports are where the company hears phones and trunk."""
    own, ports = place.own, place.ports
    company = place.role == "company"
    rtp = ports.company_rtp if company else ports.world_rtp
    for folder in (own / "etc", own / "var" / "spool", own / "log" / "cdr-csv", place.run, place.lab / "heard"):
        folder.mkdir(parents=True, exist_ok=True)
    _write_data(place)
    places.write_files(
        place.role,
        own / "etc",
        {
            "ETC": own / "etc",
            "MODULES": place.installation.modules,
            "DATA": own / "data",
            "VAR": own / "var",
            "RUN": place.run,
            "LOG": own / "log",
            "RTP_START": rtp[0],
            "RTP_END": rtp[1],
            "SIP_PORT": ports.company_sip if company else ports.world_sip,
            "PHONE_SIP_PORT": phone_sip,
            "TRUNK_SIP_PORT": trunk_sip,
            "WORLD_SIP_PORT": ports.world_sip,
            **{f"SOFTPHONE_{extension}_PORT": ports.softphone(extension) for extension in SOFTPHONES},
            "AMI_PORT": ports.company_ami if company else ports.world_ami,
            "LAB_SECRET": place.secrets.lab,
            "PHONE_SECRET": place.secrets.phone,
            "WITNESS": place.lab / "witness.log",
            "CALLS": place.lab / "callers.log",
            "HEARD": place.lab / "heard",
            "MUSIC": own / "music",
        },
    )


def _write_data(place: Place) -> None:
    """What the installation brings, and sounds of our own: a transfer by code ends where its prompt is missing."""
    data = place.own / "data"
    sounds = data / "sounds" / "en"
    sounds.mkdir(parents=True, exist_ok=True)
    (sounds / "pbx-transfer.ulaw").write_bytes(b"\xff" * 160)
    tones.write(sounds / "lab" / "notice.ulaw", tones.NOTICE, 2.0)
    tones.write(sounds / "lab" / "lesson.ulaw", tones.NOTICE, 60.0)
    tones.write(place.own / "music" / "tone.ulaw", tones.MUSIC, 5.0)
    for brought in place.installation.data.glob("*"):
        if brought.name != "sounds":
            (data / brought.name).symlink_to(brought)


def asterisk_argv(place: Place) -> list[str]:
    """The command that runs an Asterisk in the foreground."""
    return [*place.installation.argv, "-f", "-C", str(place.own / "etc" / "asterisk.conf")]


def asterisk_booted(ami: Ami) -> bool:
    """Whether it has loaded all it will load."""
    ami.action("CoreStatus")
    return "fully booted" in ami.command("core waitfullybooted").lower()


def tidy_asterisk(place: Place) -> None:
    """Delete the control socket, and its folder where it is not the lab's."""
    (place.run / "asterisk.ctl").unlink(missing_ok=True)
    (place.run / "asterisk.pid").unlink(missing_ok=True)
    if place.run.is_dir() and not place.run.is_relative_to(place.lab):
        place.run.rmdir()


class AsteriskCompany:
    """The company as an Asterisk."""

    name: ClassVar[str] = "Asterisk"

    def __init__(self, place: Place) -> None:
        self.place = place

    def write(self) -> None:
        sip = self.place.ports.company_sip
        write_asterisk(self.place, phone_sip=sip, trunk_sip=sip)
        etc, keys = self.place.own / "etc", self.place.secrets
        places.write_secret(etc / ringbridge_dialplan.ASTERISK_DIALPLAN, ringbridge_dialplan.asterisk_dialplan())
        places.write_secret(
            etc / ringbridge_dialplan.ASTERISK_MANAGER,
            ringbridge_dialplan.asterisk_manager(reader_secret=keys.reader, command_secret=keys.command),
        )

    def argv(self) -> list[str]:
        return asterisk_argv(self.place)

    def ami(self) -> Ami:
        """A connection of the lab's own user, who may do anything."""
        return Ami(self.place.ports.company_ami, "lab", self.place.secrets.lab)

    def booted(self) -> bool:
        with self.ami() as ami:
            return asterisk_booted(ami)

    def settle(self) -> None:
        # Of itself Asterisk asks each contact at a random instant of its first period.
        with self.ami() as ami:
            for endpoint in (*EXTENSIONS, "trunk"):
                ami.action("PJSIPQualify", Endpoint=endpoint)

    def reachable(self) -> bool:
        try:
            with self.ami() as ami:
                listing = ami.command("pjsip show contacts")
        except LabError:
            return False
        found = re.findall(r"Contact:\s+([^/\s]+)/\S+\s.*\bAvail\b", listing)
        return {*EXTENSIONS, "trunk"} <= set(found)

    def channels(self) -> int:
        with self.ami() as ami:
            found = re.search(r"(\d+) active channel", ami.command("core show channels count"))
        return int(found[1]) if found else 0

    def facts(self) -> dict[str, Any]:
        ports, keys = self.place.ports, self.place.secrets
        return {
            "kind": "asterisk",
            "host": "127.0.0.1",
            "port": ports.company_ami,
            "ami_port": ports.company_ami,
            "sip_port": ports.company_sip,
            "trunk_sip_port": ports.company_sip,
            "reader": {"username": "ringbridge", "secret": keys.reader},
            "command": {"username": "ringbridge-dial", "secret": keys.command},
            "trunk": "PJSIP/trunk",
            "trunks": ["PJSIP/trunk"],
            "dial": "PJSIP/{number}@trunk",
            "phone": "PJSIP/{extension}",
            "phones": [f"PJSIP/{extension}" for extension in EXTENSIONS],
            "devices": {extension: f"PJSIP/{extension}" for extension in EXTENSIONS},
            "softphones": {extension: ports.softphone(extension) for extension in SOFTPHONES},
            "context": "from-internal",
            "cdr": str(self.place.own / "log" / "cdr-csv" / "Master.csv"),
        }

    def tidy(self) -> None:
        tidy_asterisk(self.place)
