"""`ringbridge check` against the real Asterisk of the lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from labs import asterisk_only
from stack import pbx_table

from ringbridge_lab.lab import Lab

pytestmark = [pytest.mark.pbx, asterisk_only, pytest.mark.timeout(300)]


def check(folder: Path, lab: Lab, *arguments: str, mode: str = "dial", **other: object) -> tuple[int, dict[str, Any]]:
    """Exit code, and finding by what it is about."""
    path = folder / "ringbridge.toml"
    settings = {"dialing": {"mode": mode}, "pbx": [pbx_table(lab, **other)]}
    path.write_text(tomli_w.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bridge.cli", "check", "--json", "--watch", "0.2", *arguments],
        env={**os.environ, "RINGBRIDGE_CONFIG": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    answer = json.loads(done.stdout)
    return done.returncode, {finding["about"]: finding for finding in answer["pbx"][0]["findings"]}


def test_a_pbx_as_init_leaves_it_has_nothing_to_mend(tmp_path: Path, lab: Lab) -> None:
    code, found = check(tmp_path, lab)
    assert code == 0
    assert {about for about, finding in found.items() if finding["verdict"] != "ok"} <= {"events"}
    looked_at = {"context ringbridge-leg", "context ringbridge-go", "trunk PJSIP/trunk", "command user's classes"}
    assert looked_at <= set(found)


@pytest.mark.parametrize(
    ("change", "about", "line"),
    [
        ({"context": "nowhere"}, "context nowhere", "context of this PBX"),
        ({"dial": "PJSIP/{number}@nowhere"}, "trunk PJSIP/nowhere", "pjsip show endpoints"),
        ({"secret": "wrong"}, "event user", "manager.conf, [ringbridge]"),
        ({"command_secret": "wrong"}, "command user", "manager.conf, [ringbridge-dial]"),
        ({"port": 1}, "reachable", "enabled = yes"),
    ],
)
def test_what_is_missing_is_named_with_the_line_to_change(
    tmp_path: Path, lab: Lab, change: dict[str, object], about: str, line: str
) -> None:
    code, found = check(tmp_path, lab, **change)
    assert code == 1
    assert found[about]["verdict"] == "fail"
    assert line in found[about]["change"]


def test_an_older_dialplan_is_named_with_what_to_do(tmp_path: Path, lab: Lab) -> None:
    path = lab.dir / "company" / "etc" / "ringbridge.conf"
    whole = path.read_text(encoding="utf-8")
    assert "Ringbridge dialplan" in whole
    try:
        older = whole.partition("\n[ringbridge-act]\n")[0].replace("exten => version,1", "exten => other,1")
        path.write_text(older, encoding="utf-8")
        with lab.company_ami() as ami:
            ami.command("dialplan reload")
        code, found = check(tmp_path, lab)
    finally:
        path.write_text(whole, encoding="utf-8")
        with lab.company_ami() as ami:
            ami.command("dialplan reload")
    assert code == 1
    assert found["ringbridge.conf"]["verdict"] == "fail"
    assert "ringbridge init --mode dial" in found["ringbridge.conf"]["change"]
    # It is included, so what is missing is not the include.
    assert "ringbridge init --mode dial" in found["context ringbridge-act"]["change"]
    assert check(tmp_path, lab)[0] == 0


def test_users_with_too_much_power_are_named(tmp_path: Path, lab: Lab) -> None:
    lab_user = {"username": "lab", "secret": lab.state.secrets.lab}
    _, found = check(tmp_path, lab, **lab_user)
    assert found["event user's classes"]["verdict"] == "warn"
    assert "Originate" in found["event user's classes"]["meaning"]


def test_observe_needs_no_command_user(tmp_path: Path, lab: Lab) -> None:
    code, found = check(tmp_path, lab, mode="observe", command_secret="wrong")
    assert code == 0
    assert found["command user"]["verdict"] == "ok"
    assert "context ringbridge-leg" not in found
