"""How the lab finds its Asterisk and its FreeSWITCH; debootstrap is played by a script, so that nothing is fetched."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ringbridge_lab import freeswitch_installation, installation
from ringbridge_lab.errors import LabError
from ringbridge_lab.installation import SUITES, Installation, apt_mirror, find, make_root

WHOLE = r"""
root=$2
mkdir -p "$root/usr/sbin" "$root/lib64" "$root/usr/lib/asterisk/modules"
touch "$root/usr/sbin/asterisk"
printf '#!/bin/sh\necho Asterisk 22.9.1~test\n' > "$root/lib64/ld-linux-x86-64.so.2"
chmod +x "$root/lib64/ld-linux-x86-64.so.2"
echo "I: Base system installed successfully."
"""


@pytest.fixture(autouse=True)
def quiet() -> None:
    """No lab is needed here."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without asterisk, whose debootstrap is the script that a test writes."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("RINGBRIDGE_LAB_ROOT", str(tmp_path / "cache" / "root"))
    monkeypatch.delenv("RINGBRIDGE_LAB_ASTERISK", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(installation, "apt_mirror", lambda: "mirror:")
    (tmp_path / "bin").mkdir()
    return tmp_path


def debootstrap(machine: Path, body: str) -> None:
    script = machine / "bin" / "debootstrap"
    script.write_text(f'#!/bin/sh\nset -eu\nshift 2\necho "$@" >> {machine}/runs\n{body}', encoding="utf-8")
    script.chmod(0o755)


def runs(machine: Path) -> list[list[str]]:
    return [line.split() for line in (machine / "runs").read_text(encoding="utf-8").splitlines()]


def test_the_root_is_made_once_and_then_kept(machine: Path) -> None:
    debootstrap(machine, WHOLE)
    said: list[str] = []
    found = find(progress=said.append)
    assert (found.version, found.major) == ("22.9.1", 22)
    assert find(progress=said.append) == found
    ((suite, _, mirror, script),) = runs(machine)
    assert (suite, mirror, script) == (SUITES[0], "mirror:", "sid")
    assert any("minutes" in line for line in said) and "Base system installed successfully." in said


def test_the_next_suite_is_tried_where_one_fails(machine: Path) -> None:
    debootstrap(machine, f'if [ "$1" != bullseye ]; then echo "E: no such suite"; exit 1; fi\n{WHOLE}')
    assert find(progress=print).major == 22
    assert [run[0] for run in runs(machine)] == list(SUITES)


def test_what_was_interrupted_is_not_taken_for_whole(machine: Path) -> None:
    debootstrap(machine, f"{WHOLE}\nkill -9 $$")
    with pytest.raises(LabError, match="could not fetch"):
        find(progress=print)
    cache = machine / "cache"
    assert not (cache / "root").exists()

    (cache / "root.part-left" / "usr" / "sbin").mkdir(parents=True)
    debootstrap(machine, WHOLE)
    assert find(progress=print).version == "22.9.1"
    assert sorted(path.name for path in cache.iterdir()) == ["root", "root.lock"]


def test_a_root_without_an_asterisk_that_runs_is_refused(machine: Path) -> None:
    debootstrap(machine, WHOLE.replace("echo Asterisk 22.9.1~test", "exit 127"))
    with pytest.raises(LabError, match="does not run"):
        make_root(machine / "cache" / "root", progress=print)
    assert not (machine / "cache" / "root").exists()


def test_what_is_missing_is_said(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "which", lambda name, path=None: None)
    with pytest.raises(LabError, match="apt install debootstrap"):
        find(progress=print)
    with pytest.raises(LabError, match="--asterisk"):
        find(machine / "nothing", progress=print)


def test_only_root_can_make_a_root(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    debootstrap(machine, WHOLE)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="sudo"):
        find(progress=print)


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        (
            "debian.sources",
            "Types: deb\nURIs: https://a.example/debian/\nSuites: x\n",
            "https://a.example/debian",
        ),
        ("a.list", "# no\ndeb [arch=amd64] http://b.example/debian x main\n", "http://b.example/debian"),
        ("a.list", "deb http://c.example/debian-security x main\ndeb http://d.example/ubuntu x main\n", None),
        ("off.disabled", "deb http://b.example/debian x main\n", None),
    ],
)
def test_the_mirror_is_that_of_the_machine(tmp_path: Path, name: str, text: str, mirror: str | None) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / name).write_text(text, encoding="utf-8")
    assert apt_mirror(tmp_path) == mirror


def test_a_link_with_an_absolute_target_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "real").touch()
    (tmp_path / "link").symlink_to("/lib/real")
    assert installation._inside(tmp_path, tmp_path / "link") == tmp_path / "lib" / "real"


def freeswitch(prefix: Path, *, version: str = "FreeSWITCH version: 1.10.12-release", modules: str = "mod") -> Path:
    """A folder that looks like an installed FreeSWITCH."""
    (prefix / "bin").mkdir(parents=True)
    binary = prefix / "bin" / "freeswitch"
    binary.write_text(f"#!/bin/sh\necho '{version}'\n", encoding="utf-8")
    binary.chmod(0o755)
    (prefix / modules).mkdir(parents=True)
    for name in freeswitch_installation.MODULES:
        (prefix / modules / f"{name}.so").touch()
    return prefix


def find_freeswitch(named: Path | None = None, **environ: str) -> Installation:
    return freeswitch_installation.find(named, environ={"PATH": "/nowhere", **environ})


@pytest.mark.parametrize("modules", ["mod", "lib/freeswitch/mod", "lib/x86_64-linux-gnu/freeswitch/mod"])
def test_a_freeswitch_is_found_by_prefix_binary_variable_and_path(tmp_path: Path, modules: str) -> None:
    prefix = freeswitch(tmp_path / "fs", modules=modules)
    found = find_freeswitch(prefix)
    assert (found.version, found.modules) == ("1.10.12", prefix / modules)
    assert find_freeswitch(prefix / "bin" / "freeswitch") == found
    assert find_freeswitch(RINGBRIDGE_LAB_FREESWITCH=str(prefix)) == found
    assert find_freeswitch(PATH=str(prefix / "bin")) == found


def test_a_machine_without_freeswitch_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeswitch_installation, "USUAL_PREFIX", tmp_path / "none")
    with pytest.raises(LabError, match=r"no FreeSWITCH; install it .* --freeswitch or \$RINGBRIDGE_LAB_FREESWITCH"):
        find_freeswitch()
    freeswitch(tmp_path / "none")
    assert find_freeswitch().version == "1.10.12"
    with pytest.raises(LabError, match="holds no FreeSWITCH"):
        find_freeswitch(tmp_path)


def test_a_freeswitch_that_lacks_something_is_refused(tmp_path: Path) -> None:
    prefix = freeswitch(tmp_path / "fs")
    (prefix / "mod" / "mod_callcenter.so").unlink()
    with pytest.raises(LabError, match="lacks mod_callcenter"):
        find_freeswitch(prefix)
    with pytest.raises(LabError, match="does not run"):
        find_freeswitch(freeswitch(tmp_path / "mute", version=""))


def test_a_freeswitch_that_was_moved_is_told_where_its_library_is(tmp_path: Path) -> None:
    prefix = freeswitch(tmp_path / "fs")
    (prefix / "lib").mkdir()
    (prefix / "lib" / "libfreeswitch.so.1").touch()
    (prefix / "bin" / "freeswitch").write_text(
        '#!/bin/sh\n[ -n "$LD_LIBRARY_PATH" ] && echo FreeSWITCH version: 1.11.3-dev\n', encoding="utf-8"
    )
    found = find_freeswitch(prefix)
    assert found.version == "1.11.3"
    assert f"LD_LIBRARY_PATH={prefix / 'lib'}" in found.argv


def test_every_module_of_the_company_is_asked_for() -> None:
    text = (Path(freeswitch_installation.__file__).parent / "freeswitch/autoload_configs/modules.conf.xml").read_text(
        encoding="utf-8"
    )
    assert sorted(re.findall(r'module="(\w+)"', text)) == sorted(freeswitch_installation.MODULES)
