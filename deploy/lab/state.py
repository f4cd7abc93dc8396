"""What `lab.json` holds: all that another process needs to use or end a lab."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ringbridge_lab import places, processes
from ringbridge_lab.asterisk import AsteriskCompany
from ringbridge_lab.company import Company, Place
from ringbridge_lab.freeswitch import FreeSwitchCompany
from ringbridge_lab.installation import Installation

KINDS: dict[str, type[AsteriskCompany] | type[FreeSwitchCompany]] = {
    "asterisk": AsteriskCompany,
    "freeswitch": FreeSwitchCompany,
}


@dataclass(frozen=True, slots=True)
class State:
    """A lab that was brought up."""

    kind: str
    """The company's PBX: a key of KINDS."""
    ports: places.Ports
    secrets: places.Secrets
    installations: dict[str, Installation]
    """By role: `company`, `world`."""
    run: dict[str, str]
    processes: dict[str, processes.Identity]

    @property
    def installation(self) -> Installation:
        """The company's."""
        return self.installations["company"]

    def place(self, lab: Path, role: str) -> Place:
        return Place(lab, role, Path(self.run[role]), self.installations[role], self.ports, self.secrets)

    def company(self, lab: Path) -> Company:
        return KINDS[self.kind](self.place(lab, "company"))

    def as_dict(self, lab: Path) -> dict[str, Any]:
        """The file's shape, with what others ask for most spelled out."""
        return {
            "dir": str(lab),
            "version": self.installation.version,
            "company": self.company(lab).facts(),
            "world": {
                "host": "127.0.0.1",
                "ami_port": self.ports.world_ami,
                "sip_port": self.ports.world_sip,
            },
            "witness": str(lab / "witness.log"),
            "callers": str(lab / "callers.log"),
            "heard": str(lab / "heard"),
            "secrets": asdict(self.secrets),
            "ports_base": self.ports.base,
            "run": self.run,
            "pids": {role: asdict(identity) for role, identity in self.processes.items()},
            "installations": {
                role: {
                    "argv": list(found.argv),
                    "modules": str(found.modules),
                    "data": str(found.data),
                    "version": found.version,
                }
                for role, found in self.installations.items()
            },
        }

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> State:
        return cls(
            kind=raw["company"]["kind"],
            ports=places.Ports(raw["ports_base"]),
            secrets=places.Secrets(**raw["secrets"]),
            installations={
                role: Installation(tuple(one["argv"]), Path(one["modules"]), Path(one["data"]), one["version"])
                for role, one in raw["installations"].items()
            },
            run=raw["run"],
            processes={role: processes.Identity(**values) for role, values in raw["pids"].items()},
        )
