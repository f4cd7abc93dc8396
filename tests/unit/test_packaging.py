"""What is installed is what the clone holds: packages, templates, static files, dialplan, lab, migrations."""

from __future__ import annotations

import configparser
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = {".html", ".css", ".js", ".conf", ".xml", ".j2", ".mako", ".svg", ".png", ".ico", ".woff2"}
PLACES = {"ringbridge_lab": ROOT / "deploy" / "lab", "ringbridge_dialplan": ROOT / "dialplan"}


def packages() -> dict[str, Path]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    names = setup["options"]["packages"].split()
    return {name: PLACES.get(name, ROOT.joinpath(*name.split("."))) for name in names}


def test_every_folder_with_python_in_it_is_a_package_of_setup_cfg() -> None:
    listed = set(packages().values())
    there = {
        path.parent
        for room in (ROOT / "bridge", ROOT / "workers", ROOT / "deploy" / "lab", ROOT / "dialplan")
        for path in room.rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert there == listed


def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    # Built from a copy: setuptools would leave a folder in the clone.
    source = tmp_path / "source"
    waste = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "data")
    shutil.copytree(ROOT, source, ignore=waste)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and "onnection" in done.stderr:
        pytest.skip("the build backend cannot be fetched: no package index answers")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    missing = []
    for name, folder in packages().items():
        for path in folder.rglob("*"):
            inner = path.relative_to(folder).parts
            nested = folder.joinpath(*inner[:-1]) in packages().values() and len(inner) > 1
            if path.suffix not in DATA | {".py"} or "__pycache__" in inner or nested:
                continue
            if "/".join([*name.split("."), *inner]) not in held and "/".join(inner) != "agent.png":
                missing.append("/".join([*name.split("."), *inner]))
    assert not missing


@pytest.fixture(scope="module")
def dependencies() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / "deploy" / "dependencies.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FINE: dict[str, Any] = {"name": "click", "version": "8.1", "vulns": []}
OURS = {"name": "ringbridge", "skip_reason": "not on the index"}
SKIPPED = {"name": "redis", "skip_reason": "not found"}
HOLE = {"name": "flask", "version": "3", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1"]}]}


@pytest.mark.parametrize(
    ("entries", "fine", "told"),
    [
        ([FINE, OURS], True, "1 packages, no known vulnerability"),
        ([FINE, OURS, SKIPPED], False, "skipped redis"),
        ([SKIPPED, OURS], True, "audit: not run"),
        ([FINE, HOLE], False, "PYSEC-1, fixed in 3.1"),
    ],
)
def test_the_audit_is_never_a_clean_bill_for_what_it_skipped(
    dependencies: ModuleType, entries: list[dict[str, Any]], fine: bool, told: str
) -> None:
    text, verdict = dependencies.judge({"dependencies": entries})
    assert verdict is fine
    assert told in text
