"""`ringbridge check`, `init` and `uninstall` against the real FreeSWITCH of the lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from labs import freeswitch_only
from stack import pbx_table

import ringbridge_dialplan as dialplan
from ringbridge_lab.errors import LabError
from ringbridge_lab.esl import Esl
from ringbridge_lab.lab import Lab, wait_until

pytestmark = [pytest.mark.pbx, freeswitch_only, pytest.mark.timeout(300)]

SOCKET = "autoload_configs/event_socket.conf.xml"


def ringbridge(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bridge.cli", *arguments],
        env={**os.environ, "RINGBRIDGE_CONFIG": str(folder / "ringbridge.toml")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def look(folder: Path) -> tuple[int, dict[str, Any]]:
    """Exit code, and finding by what it is about."""
    done = ringbridge(folder, "check", "--json", "--watch", "0.2")
    answer = json.loads(done.stdout)
    return done.returncode, {finding["about"]: finding for finding in answer["pbx"][0]["findings"]}


def check(folder: Path, lab: Lab, *, mode: str = "dial", **other: object) -> tuple[int, dict[str, Any]]:
    settings = {"dialing": {"mode": mode}, "pbx": [pbx_table(lab, **other)]}
    (folder / "ringbridge.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    return look(folder)


def reload(lab: Lab) -> None:
    with lab.company_esl() as esl:
        esl.api("reloadxml")


@contextmanager
def rewritten(lab: Lab, name: str, *pairs: tuple[str, str]) -> Iterator[None]:
    """A file of the PBX is another for a while."""
    path = lab.dir / "company" / "etc" / name
    whole = path.read_text(encoding="utf-8")
    text = whole
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    try:
        path.write_text(text, encoding="utf-8")
        reload(lab)
        yield
    finally:
        path.write_text(whole, encoding="utf-8")
        if name != SOCKET:
            reload(lab)


def test_a_pbx_as_init_leaves_it_has_nothing_to_mend(tmp_path: Path, lab: Lab) -> None:
    code, found = check(tmp_path, lab)
    assert code == 0
    # The lab's queue `sales` rings its agents through loopbacks on purpose.
    assert {about for about, finding in found.items() if finding["verdict"] != "ok"} <= {
        "events",
        *(about for about in found if about.startswith("queue agent ")),
    }
    assert {
        "version",
        "modules",
        "default password",
        "event user's permissions",
        "command user's permissions",
        "context ringbridge-go",
        "context default",
        "trunk sofia/gateway/trunk",
        "listening",
    } <= set(found)


@pytest.mark.parametrize(
    ("change", "about", "line"),
    [
        ({"context": "nowhere"}, "context nowhere", "context of this PBX"),
        ({"dial": "sofia/gateway/nowhere/{number}"}, "trunk sofia/gateway/nowhere", "sofia status"),
        ({"dial": "sofia/nowhere/{number}@192.0.2.1"}, "trunk sofia/nowhere", "sofia status"),
        ({"secret": "wrong"}, "event user", "directory/ringbridge-users.xml"),
        ({"command_secret": "wrong"}, "command user", "directory/ringbridge-users.xml"),
        ({"port": 1}, "reachable", "mod_event_socket"),
    ],
)
def test_what_is_missing_is_named_with_the_line_to_change(
    tmp_path: Path, lab: Lab, change: dict[str, object], about: str, line: str
) -> None:
    code, found = check(tmp_path, lab, **change)
    assert code == 1
    assert found[about]["verdict"] == "fail"
    assert line in found[about]["change"]


@pytest.mark.parametrize(
    ("file", "old", "new", "about", "line"),
    [
        (
            f"dialplan/{dialplan.FREESWITCH_DIALPLAN}",
            "Ringbridge dialplan 5",
            "Ringbridge dialplan 0",
            "ringbridge.xml",
            "ringbridge init --mode dial",
        ),
        (
            f"dialplan/{dialplan.FREESWITCH_DIALPLAN}",
            'context name="ringbridge-go"',
            'context name="elsewhere"',
            "context ringbridge-go",
            "ringbridge init --mode dial",
        ),
        (
            f"directory/{dialplan.FREESWITCH_USERS}",
            "show status strepoch",
            "show strepoch",
            "event user's permissions",
            "esl-allowed-api",
        ),
        (
            f"directory/{dialplan.FREESWITCH_USERS}",
            "CHANNEL_CREATE ",
            "",
            "event user's permissions",
            "esl-allowed-events",
        ),
        (
            f"directory/{dialplan.FREESWITCH_USERS}",
            "expand originate hash",
            "expand originate",
            "command user's permissions",
            "esl-allowed-api",
        ),
    ],
)
def test_what_is_wrong_in_the_pbx_is_named(
    tmp_path: Path, lab: Lab, file: str, old: str, new: str, about: str, line: str
) -> None:
    with rewritten(lab, file, (old, new)):
        code, found = check(tmp_path, lab)
    assert code == 1
    assert found[about]["verdict"] == "fail"
    assert line in found[about]["change"]
    assert check(tmp_path, lab)[0] == 0


def test_a_module_that_is_not_loaded_is_named(tmp_path: Path, lab: Lab) -> None:
    with lab.company_esl() as esl:
        esl.api("unload mod_hash")
    try:
        code, found = check(tmp_path, lab)
    finally:
        with lab.company_esl() as esl:
            esl.api("load mod_hash")
    assert code == 1
    assert "load mod_hash" in found["mod_hash"]["change"]


def test_a_user_with_too_much_power_is_named(tmp_path: Path, lab: Lab) -> None:
    _, found = check(tmp_path, lab, username="", secret=lab.state.secrets.lab)
    assert found["event user's permissions"]["verdict"] == "warn"
    users = f"directory/{dialplan.FREESWITCH_USERS}"
    with rewritten(lab, users, ("show status", "show status originate")):
        _, found = check(tmp_path, lab)
    assert "originate" in found["event user's permissions"]["meaning"]


def test_the_default_password_is_named(tmp_path: Path, lab: Lab) -> None:
    """One more event socket would need one more FreeSWITCH: this one is told to take the default for a moment."""
    port, secret = lab.info["company"]["port"], lab.state.secrets.lab
    with rewritten(lab, SOCKET, (secret, "ClueCon")):
        reread(port, secret, "ClueCon")
        code, found = check(tmp_path, lab)
        allowed = check(tmp_path, lab, allow_default_password=True)[1]
    reread(port, "ClueCon", secret)
    assert code == 1
    assert found["default password"]["verdict"] == "fail"
    assert "event_socket.conf.xml" in found["default password"]["change"]
    assert allowed["default password"]["verdict"] == "warn"


def reread(port: int, old: str, new: str) -> None:
    """Have the event socket read its password again. A module that is busy is not reloaded: ask again then."""

    def taken() -> bool:
        try:
            Esl(port, new).close()
        except LabError:
            return False
        return True

    for last in (False, False, True):
        with Esl(port, old) as esl:
            esl.api("reloadxml")
            esl.api("bgapi reload mod_event_socket")
        try:
            wait_until(taken, seconds=10, what="the event socket to take its password")
            return
        except LabError:
            if last:
                raise


def test_observe_needs_no_command_user(tmp_path: Path, lab: Lab) -> None:
    code, found = check(tmp_path, lab, mode="observe", command_secret="wrong")
    assert code == 0
    assert found["command user"]["verdict"] == "ok"
    assert "context ringbridge-go" not in found


def test_init_and_uninstall_are_what_check_looks_at(tmp_path: Path, lab: Lab) -> None:
    """On the lab's own files: taken out, put in by init with secrets of its own, and as they were."""
    etc = lab.dir / "company" / "etc"
    paths = [etc / "directory" / dialplan.FREESWITCH_USERS, etc / "dialplan" / dialplan.FREESWITCH_DIALPLAN]
    before = {path: path.read_text(encoding="utf-8") for path in paths}
    nowhere = str(tmp_path / "none")
    where = ("--freeswitch-dir", str(etc), "--asterisk-dir", nowhere, "--yes")
    try:
        assert ringbridge(tmp_path, "uninstall", *where).returncode == 0
        assert not any(path.exists() for path in paths)
        port = str(lab.info["company"]["port"])
        done = ringbridge(tmp_path, "init", *where, "--mode", "dial", "--port", port, "--kind", "freeswitch")
        assert done.returncode == 0, done.stderr
        reload(lab)
        code, found = look(tmp_path)
        assert code == 0, found
    finally:
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")
        reload(lab)
    assert check(tmp_path, lab)[0] == 0
