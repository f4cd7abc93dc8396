"""A process with a dead part ends at once, with one line and a code that a supervisor understands."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import threading
from bridge import log
from bridge.services.last_words import last_words
from bridge.settings import Settings

def fault():
    raise ValueError("+16465550101 is in this text")

log.configure(Settings())
with last_words("test"):
    {start}
    threading.Event().wait(30)
"""


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("fault()", "ended by a fault"),
        ("threading.Thread(target=fault, name='essential').start()", "essential"),
    ],
)
def test_a_fault_anywhere_ends_the_process_with_one_line(start: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{start}", start)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert said in line and "ValueError" in line
    assert "5550101" not in done.stderr


@pytest.mark.parametrize("command", ["listen", "pops", "recorder", "scheduler"])
def test_every_long_running_command_has_last_words(command: str) -> None:
    module = __import__(f"bridge.commands.{command}", fromlist=[command])
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:
        assert f'last_words("{command}")' in file.read()
