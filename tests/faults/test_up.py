"""`ringbridge up`: refuses clearly, restarts what falls, stops in order, leaves nothing running, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rig import free_port, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]
START_SECONDS = 120.0


class Up:
    """One `ringbridge up` in a folder of its own, beside a PBX that does not answer."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.mark = f"{folder.name}-{self.port}"
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        (folder / "ringbridge.toml").write_text(
            f'[http]\nbind = "127.0.0.1:{self.port}"\n'
            f'[[pbx]]\nname = "lab"\nport = {free_port()}\nsecret = "a"\ncommand_secret = "b"\n',
            encoding="utf-8",
        )

    def environ(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RINGBRIDGE_")}
        # Every process of the tree inherits it, so that what is left can be found.
        return {**clean, "UP_TEST_MARK": self.mark}

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bridge.cli", "up"],
            cwd=self.folder,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                self.lines.append(line)

    def wait_up(self) -> None:
        until(lambda: "is up." in self.text or self.ended, START_SECONDS, "the summary")
        assert not self.ended, self.text

    def run(self) -> subprocess.CompletedProcess[str]:
        """For a start that is refused."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "bridge.cli", "up"],
            cwd=self.folder,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def end(self, number: signal.Signals, seconds: float = 60) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def processes(self) -> dict[int, str]:
        """Process id -> command line, of all that carry our mark."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if f"UP_TEST_MARK={self.mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def child(self, words: str) -> int | None:
        return next((pid for pid, command in self.processes().items() if words in command), None)

    def get(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def clean(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    made = Up(tmp_path)
    yield made
    made.clean()


def test_it_runs_beside_a_pbx_that_is_down_and_stops_in_order(up: Up) -> None:
    up.start()
    up.wait_up()
    assert f"address   http://127.0.0.1:{up.port}" in up.text
    assert up.get("/healthz")[0] == 200
    status, body = up.get("/readyz")
    assert status == 503
    assert any("lab" in name for name in body["reasons"])

    socket_path = up.folder / "data" / "redis.sock"
    client = Redis(unix_socket_path=str(socket_path), protocol=2, decode_responses=True)
    assert client.config_get("appendonly")["appendonly"] == "yes"
    assert client.config_get("port")["port"] == "0"
    client.close()

    # A second one on the same data is refused before it touches anything.
    second = up.run()
    assert second.returncode == 6
    assert "already runs on" in second.stderr and str(up.process.pid if up.process else "") in second.stderr
    assert "Traceback" not in second.stderr

    # A child that dies comes back.
    first = until(lambda: up.child("cli pops"), what="pops")
    os.kill(first, signal.SIGKILL)
    until(lambda: (pid := up.child("cli pops")) and pid != first, 30, "pops again")
    assert re.search(r"pops was ended by SIGKILL; starting it again in 0.5 s", up.text)

    assert up.end(signal.SIGTERM) == 0, up.text
    until(lambda: not up.processes(), what="nothing left")
    assert "Traceback" not in up.text


def test_nothing_is_left_when_it_is_killed_and_it_starts_again_after(up: Up) -> None:
    up.start()
    up.wait_up()
    assert up.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not up.processes(), 30, "nothing left")
    again = Up(up.folder, up.port)
    try:
        again.start()
        again.wait_up()
        assert again.end(signal.SIGINT) == 0, again.text
        until(lambda: not again.processes(), what="nothing left")
    finally:
        again.clean()


def test_a_port_that_is_taken_is_said_before_anything_starts(up: Up) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", up.port))
        other.listen()
        refused = up.run()
    assert refused.returncode == 6
    assert refused.stderr == (
        f"ringbridge: 127.0.0.1:{up.port} is taken by another program; stop it, or set another [http] bind\n"
    )
    assert not (up.folder / "data" / "redis.sock").exists()


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ('[[pbx]]\nname = "lab"\n', 3, "PBX 'lab' has neither secret nor secret_file"),
        ('[[pbx]]\nname = "lab"\nsecret = "a"\n', 3, "neither command_secret nor command_secret_file"),
        ('[[pbx]]\nname = "lab"\nkind = "freeswitch"\nsecret = "ClueCon"\n', 3, "every FreeSWITCH is installed with"),
        ('data_dir = "/proc/none"\n[[pbx]]\nname = "l"\nsecret = "a"\ncommand_secret = "b"\n', 3, "cannot be used"),
        (
            '[redis]\nurl = "redis://127.0.0.1:1/0"\n[[pbx]]\nname = "l"\nsecret = "a"\ncommand_secret = "b"\n',
            4,
            "the Redis of [redis] url does not answer",
        ),
        (
            '[http]\nbind = "192.0.2.1:80"\n[[pbx]]\nname = "l"\nsecret = "a"\ncommand_secret = "b"\n',
            3,
            "[http] bind 192.0.2.1:80",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(up: Up, text: str, code: int, told: str) -> None:
    if "bind" not in text:
        text = text.replace("[[pbx]]", f'[http]\nbind = "127.0.0.1:{up.port}"\n[[pbx]]', 1)
    (up.folder / "ringbridge.toml").write_text(text, encoding="utf-8")
    refused = up.run()
    assert refused.returncode == code, refused.stderr
    assert told in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not up.processes()
