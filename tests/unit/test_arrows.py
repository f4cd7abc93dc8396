"""The arrows between the rooms, and what the top level may hold."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"bridge", "deploy", "dialplan", "tests", "workers"}
FILES = {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "setup.cfg"}


def tracked() -> list[Path]:
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no git clone")
    return [Path(name) for name in done.stdout.split("\0") if name]


def test_imports_keep_to_the_arrows() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_top_level_is_as_drawn() -> None:
    top = {path.parts[0] for path in tracked() if not path.parts[0].startswith(".")}
    assert top <= FOLDERS | FILES
    assert {path.parts[0] for path in tracked() if len(path.parts) > 1} - {".ci"} <= FOLDERS


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_every_folder_of_the_top_level_has_its_manual(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()


def test_modules_stay_small_enough_to_hold_in_mind() -> None:
    large = {
        str(path): lines
        for path in tracked()
        if path.suffix == ".py" and path.parts[0] in {"bridge", "workers", "deploy"} and "migrations" not in path.parts
        and (lines := len((ROOT / path).read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not large


def test_pyproject_holds_only_the_build_system() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("[")] == ["[build-system]"]


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by name alone: of two with one name the second is not run."""
    names = Counter(path.name for path in tracked() if path.name.startswith("test_") and path.parts[0] == "tests")
    assert not {name for name, count in names.items() if count > 1}
