"""The command line: sentences and codes instead of tracebacks, and a fast start."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bridge import __version__, cli
from bridge.domain.errors import Conflict, Invalid, RingbridgeError, SettingsError, Unavailable


def run(*arguments: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RINGBRIDGE_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "bridge.cli", *arguments],
        cwd=folder,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version(tmp_path: Path) -> None:
    assert run("--version", folder=tmp_path).stdout.strip() == f"ringbridge, version {__version__}"


def test_every_command_of_the_table_is_there() -> None:
    for name, (target, line) in cli.COMMANDS.items():
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), name
        assert line.endswith("."), name


def test_help_imports_no_command() -> None:
    code = (
        "import sys, bridge.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith(('bridge.commands', 'sqlalchemy', 'flask', 'redis'))],"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "[]"
    assert "up " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["check"], 3, "the settings name no PBX: run `ringbridge init`"),
        (["up"], 3, "the settings name no PBX: run `ringbridge init`"),
        (["--config", "none.toml", "check"], 3, "cannot be read: No such file"),
    ],
)
def test_a_mistake_is_a_sentence_and_a_code(tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(RingbridgeError(), 1), (Invalid(), 2), (SettingsError(), 3), (Unavailable(), 4), (Conflict(), 6)],
)
def test_exit_codes_say_whose_turn_it_is(error: RingbridgeError, code: int) -> None:
    assert cli.exit_code(error) == code


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    assert cli.sentence(ZeroDivisionError()) is None
    told = cli.sentence(PermissionError(13, "Permission denied", "/etc/x"))
    assert told == ("The system refused: Permission denied (/etc/x).", 1)
