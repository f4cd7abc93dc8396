"""The supervisor restarts, stops in order, kills what does not stop, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import until

from bridge.services import guard
from bridge.services.supervisor import Child, Supervisor

Lines = list[tuple[str, str]]


def child(name: str, code: str, rank: int = 10, stop_seconds: float = 5) -> Child:
    return Child(name, (sys.executable, "-I", "-u", "-c", code), rank, stop_seconds)


@pytest.fixture
def lines() -> Lines:
    return []


@pytest.fixture
def supervisor(lines: Lines) -> Supervisor:
    return Supervisor(lambda name, line: lines.append((name, line)))


def said(lines: Lines, text: str, count: int = 1) -> Callable[[], bool]:
    return lambda: sum(text in line for _, line in lines) >= count


STAYS = """
import signal, sys, time
def leave(*_):
    print("leaving"); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("here")
while True: time.sleep(0.05)
"""


def test_a_child_that_ends_is_started_again(supervisor: Supervisor, lines: Lines) -> None:
    supervisor.start(child("brief", "print('once more')"))
    assert supervisor.run(said(lines, "once more", 2), timeout=60)
    assert ("up", "brief ended with code 0; starting it again in 0.5 s") in lines
    supervisor.stop()


def test_children_stop_in_the_order_of_their_ranks(supervisor: Supervisor, lines: Lines) -> None:
    for name, rank in (("last", 30), ("first", 10), ("middle", 20)):
        supervisor.start(child(name, STAYS, rank))
    assert supervisor.run(said(lines, "here", 3), timeout=60)
    assert supervisor.stop()
    assert [name for name, line in lines if line == "leaving"] == ["first", "middle", "last"]


def test_a_child_that_does_not_stop_is_killed_with_what_it_started(
    supervisor: Supervisor, lines: Lines
) -> None:
    supervisor.start(
        child(
            "stubborn",
            """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"])
print("grandchild", grandchild.pid)
time.sleep(600)
""",
            stop_seconds=0.3,
        )
    )
    assert supervisor.run(said(lines, "grandchild"), timeout=60)
    grandchild = int(next(line.split()[1] for _, line in lines if line.startswith("grandchild")))
    assert not supervisor.stop()
    assert ("up", "stubborn did not stop in time and is killed") in lines
    wait_gone(grandchild)


def test_lines_come_whole_and_the_last_needs_no_end(supervisor: Supervisor, lines: Lines) -> None:
    supervisor.start(
        child(
            "writer",
            "import sys, time\n"
            "for piece in ('a', 'b\\nc', 'd'):\n"
            "    sys.stdout.write(piece); sys.stdout.flush(); time.sleep(0.05)",
        )
    )
    assert supervisor.run(said(lines, "cd"), timeout=60)
    assert [line for name, line in lines if name == "writer"][:2] == ["ab", "cd"]
    supervisor.stop()


def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        f"""
import sys
from bridge.services.supervisor import Child, Supervisor
supervisor = Supervisor(lambda name, line: print(name, line, flush=True))
supervisor.start(Child("one", (sys.executable, "-I", "-u", "-c", {STAYS!r}), 10, 5))
supervisor.start(Child("two", (sys.executable, "-I", "-u", "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here'); time.sleep(600)"), 10, 5))
for run in supervisor._runs:
    print("pid", run.process.pid, flush=True)
supervisor.run()
""",
        encoding="utf-8",
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    seen = [next(parent.stdout).split() for _ in range(4)]
    pids = [int(words[1]) for words in seen if words[0] == "pid"]
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait(30)
    parent.stdout.close()
    for pid in pids:
        wait_gone(pid, seconds=guard.GRACE_SECONDS + 10)


def wait_gone(pid: int, seconds: float = 30) -> None:
    until(lambda: is_gone(pid), seconds, f"the end of process {pid}")


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
