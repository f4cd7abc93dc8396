"""Where a lab keeps its state, which ports it takes, and the files written for its two processes."""

from __future__ import annotations

import fcntl
import os
import random
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ringbridge_lab.errors import LabError

_FIRST_PORT, _SLOT_PORTS, _SLOTS = 12000, 1000, 20
"""Below the range from which systems give ports to outgoing connections."""
_LONGEST_SOCKET_PATH = 90
"""A UNIX socket's path holds 107 bytes; Asterisk cuts a longer one without a word."""


@dataclass(frozen=True, slots=True)
class Ports:
    """One slot of a thousand ports on 127.0.0.1: a lab's whole share."""

    base: int

    @property
    def company_sip(self) -> int:
        return self.base

    @property
    def world_sip(self) -> int:
        return self.base + 1

    @property
    def company_ami(self) -> int:
        """AMI, or ESL where the company is a FreeSWITCH."""
        return self.base + 2

    @property
    def world_ami(self) -> int:
        return self.base + 3

    @property
    def company_trunk(self) -> int:
        """SIP of the trunk, where the PBX hears phones and trunk on different ports."""
        return self.base + 4

    def softphone(self, extension: str) -> int:
        """SIP of a phone that a test plays."""
        return self.base + int(extension) - 100

    @property
    def company_rtp(self) -> tuple[int, int]:
        return self.base + 100, self.base + 549

    @property
    def world_rtp(self) -> tuple[int, int]:
        return self.base + 550, self.base + 999


@dataclass(frozen=True, slots=True)
class Secrets:
    """Generated for one lab."""

    lab: str
    reader: str
    command: str
    phone: str

    @classmethod
    def generate(cls) -> Secrets:
        return cls(*(secrets.token_hex(16) for _ in range(4)))


def default_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`$RINGBRIDGE_LAB_DIR`, else `ringbridge/lab` in the user's state folder."""
    if environ.get("RINGBRIDGE_LAB_DIR"):
        return Path(environ["RINGBRIDGE_LAB_DIR"])
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "ringbridge" / "lab"


@contextmanager
def free_ports() -> Iterator[Ports]:
    """A slot in which nothing listens. Held until both processes have taken their ports. Raises LabError."""
    lock = Path(tempfile.gettempdir()) / f"ringbridge-lab-ports-{os.getuid()}.lock"
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LabError(f"the lock {lock} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        slots = list(range(_SLOTS))
        random.shuffle(slots)
        for slot in slots:
            ports = Ports(_FIRST_PORT + slot * _SLOT_PORTS)
            if _free(ports):
                yield ports
                return
        raise LabError(f"no {_SLOT_PORTS} free ports were found on 127.0.0.1; `lab down` other labs first")
    finally:
        os.close(handle)


def check_dir(path: Path) -> Path:
    """The folder's absolute path, if Asterisk's configuration can name it. Raises LabError."""
    path = path.resolve()
    if not re.fullmatch(r"[A-Za-z0-9_./+@-]+", str(path)):
        raise LabError(
            f"the lab's folder {path} may hold letters, digits and . _ / + @ - only; choose another --dir"
        )
    return path


def run_dir(lab: Path, role: str) -> Path:
    """Where the control socket goes: in the lab's folder, unless that path is too long for a socket."""
    inside = lab / role / "run"
    if len(str(inside)) <= _LONGEST_SOCKET_PATH:
        return inside
    return Path(tempfile.mkdtemp(prefix="rb-lab-"))


def write_files(kind: str, etc: Path, values: Mapping[str, object]) -> None:
    """Write the configuration of that kind, its placeholders filled in."""
    templates = Path(__file__).parent / kind
    for template in sorted(path for path in templates.rglob("*") if path.suffix in {".conf", ".xml"}):
        text = re.sub(
            r"@([A-Z][A-Z0-9_]+)@", lambda found: str(values[found[1]]), template.read_text(encoding="utf-8")
        )
        target = etc / template.relative_to(templates)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_secret(target, text)


def clear(lab: Path) -> None:
    """Delete what a former lab left in this folder, and nothing that a lab did not make."""
    for name in ("company", "world", "heard"):
        shutil.rmtree(lab / name, ignore_errors=True)
    for name in ("lab.json", "witness.log", "callers.log"):
        (lab / name).unlink(missing_ok=True)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


def _free(ports: Ports) -> bool:
    for port, kind in (
        (ports.company_sip, socket.SOCK_DGRAM),
        (ports.company_sip, socket.SOCK_STREAM),
        (ports.company_trunk, socket.SOCK_DGRAM),
        (ports.company_trunk, socket.SOCK_STREAM),
        (ports.world_sip, socket.SOCK_DGRAM),
        *((ports.softphone(extension), socket.SOCK_DGRAM) for extension in ("106", "107", "108")),
        (ports.company_ami, socket.SOCK_STREAM),
        (ports.world_ami, socket.SOCK_STREAM),
    ):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
