"""Ends the children of a supervisor that died without doing so itself.

Run as a program of its own with a pipe as stdin whose other end only the supervisor holds: `+<pid>` and `-<pid>` lines
say which children (each the leader of its own session) are there. End of file means that the supervisor is gone, in
whatever way: then every process of those sessions gets SIGTERM, and after a while SIGKILL.

Only the standard library, so that it starts at once and stays small.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

GRACE_SECONDS = 8.0


def session_members(sessions: Iterable[int]) -> list[int]:
    """The processes of these sessions that still run; where there is no /proc, the leaders of those that do."""
    wanted = set(sessions)
    if not Path("/proc/self/stat").exists():
        return [pid for pid in wanted if _answers(pid)]
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # The name in parentheses may hold spaces; after it come state, parent, group, session.
        fields = stat.rpartition(")")[2].split()
        if int(fields[3]) in wanted and fields[0] not in "ZX":
            found.append(int(entry))
    return found


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end_sessions(sessions: Iterable[int], grace_seconds: float) -> bool:
    """SIGTERM, then after the grace SIGKILL, to all processes of these sessions. True where none had to be killed."""
    sessions = list(sessions)
    send(session_members(sessions), signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while members := session_members(sessions):
        if time.monotonic() > deadline:
            send(members, signal.SIGKILL)
            return False
        time.sleep(0.05)
    return True


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    children: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            children.add(pid)
        else:
            children.discard(pid)
    if children:
        end_sessions(children, GRACE_SECONDS)


if __name__ == "__main__":
    main()
