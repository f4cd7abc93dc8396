"""Processes that outlive the command that started them, and that are only killed when they are ours."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringbridge_lab.errors import LabError


@dataclass(frozen=True, slots=True)
class Identity:
    """One process: its id, and when it began in clock ticks since boot, since ids are used again."""

    pid: int
    began: int


def spawn(argv: Sequence[str], *, cwd: Path, output: Path, environ: Mapping[str, str]) -> Identity:
    """Start a process in a session of its own, its output appended to a file. Raises LabError."""
    try:
        with output.open("ab") as sink:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise LabError(f"{argv[0]} cannot be started: {error.strerror}") from None
    # Not waited for by Popen: `reap` does, where this process is the parent.
    process.returncode = 0
    began = _began(process.pid)
    if began is None:
        raise LabError(f"{argv[0]} ended as soon as it was started; {output} says why")
    return Identity(process.pid, began)


def identify(pid: int) -> Identity | None:
    """The process that has this id now; None where there is none."""
    began = _began(pid)
    return None if began is None else Identity(pid, began)


def alive(identity: Identity) -> bool:
    """Whether that very process runs; a zombie does not."""
    reap(identity.pid)
    return _began(identity.pid) == identity.began


def end(identity: Identity, *, grace: float, kill_after: float = 5.0) -> None:
    """Ask the process to end, kill it after `grace` seconds (at once where 0), wait until it is gone.

    Raises LabError where it is still there after `kill_after` more seconds.
    """
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, kill_after)):
        if patience <= 0:
            continue
        if not alive(identity):
            return
        try:
            os.kill(identity.pid, number)
        except ProcessLookupError:
            return
        if _until(lambda: not alive(identity), patience):
            return
    raise LabError(f"process {identity.pid} does not end; look at what holds it")


def reap(pid: int) -> None:
    """Take the exit status of a child of this process, so that it is no zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _began(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything; the state and the rest come after its end.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX" and not _has_threads(pid):
        return None
    return int(fields[19])


def _has_threads(pid: int) -> bool:
    """A killed process is a zombie while its other threads still end, and until then it holds its sockets."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
