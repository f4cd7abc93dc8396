"""Commands beside the real PBX of the lab: dialing, bench, and the demo from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
from stack import PASSWORD, Stack, free_port, pbx_table

from ringbridge_lab.lab import EXTENSIONS, Lab

pytestmark = [pytest.mark.pbx, pytest.mark.timeout(300)]


def test_the_switch_and_the_bench_on_a_running_ringbridge(tmp_path: Path, lab: Lab) -> None:
    stack = Stack(lab, tmp_path, tomli_w.dumps({"pbx": [pbx_table(lab)]}))
    stack.up()
    try:
        stack.sign_in_admin()
        stack.command("dialing", "stop")
        assert json.loads(stack.command("dialing", "status", "--json"))["dialing"] == "stopped"
        assert stack.admin.ok("GET", "/api/v1/dialing")["state"] == "stopped"
        stack.command("dialing", "start")
        assert stack.admin.ok("GET", "/api/v1/dialing")["state"] == "on"

        phones = [word for extension in EXTENSIONS for word in ("--device", lab.device(extension))]
        stack.environ["RINGBRIDGE_PASSWORD"] = PASSWORD
        given = ("--count", "3", "--username", "boss", "--json")
        measured = json.loads(stack.command("bench", "callbacks", *given, *phones))
        assert (measured["count"], measured["failed"], measured["dialed"]) == (3, 0, 3)
        for name in ("post", "post_to_originate", "post_to_ring", "ring_to_pop"):
            assert 0 < measured[f"{name}_p50_ms"] <= measured[f"{name}_p99_ms"]
        assert measured["post_to_originate_p50_ms"] < measured["post_to_ring_p50_ms"]
        numbers = {row["number"] for row in stack.rows("SELECT number FROM attempts")}
        seen = [row.number for row in lab.witness() if row.number in numbers]
        assert len(numbers) == 3
        assert sorted(seen) == sorted(numbers)
    finally:
        code = stack.down()
    assert code == 0


def test_the_demo_rings_and_leaves_nothing_behind(lab: Lab, tmp_path: Path) -> None:
    mark = f"DEMO_TEST_MARK={tmp_path.name}"
    place = ("--dir", str(tmp_path / "d"), "--port", str(free_port()))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ringbridge_lab.demo", "--once", "--pbx", lab.pbx, *place],
        env={**os.environ, "DEMO_TEST_MARK": tmp_path.name},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "connected both phones and is done" in done.stdout
    left = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                left.append((entry / "cmdline").read_bytes())
        except OSError:
            continue
    assert not left
