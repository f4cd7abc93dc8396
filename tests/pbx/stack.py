"""The whole of Ringbridge beside the lab, as a person would run it: `ringbridge up` and HTTP, nothing from inside.

`Stack` starts it in a folder of its own and speaks to it as browsers and sites do. Its processes are found below
`up`'s own process, so that a test can take one of them away.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from rig import free_port, until
from web import Web

from ringbridge_lab.lab import Lab

SCRIPT = "# Hello\n\nHello {{customer.name}}, this is {{agent.name}}."
PASSWORD = "a long enough test password"

QUICK = {"per_ip_hour": 1000, "per_number_day": 1000, "per_site_hour": 1000, "retry_minutes": [60]}


def pbx_table(lab: Lab, **other: object) -> dict[str, object]:
    """The `[[pbx]]` table of the lab's company."""
    return {"name": "lab", **lab.pbx_settings(), **other}


def settings(lab: Lab) -> str:
    """Settings for a test: nobody rings for long, and no limit of the PBX's is met."""
    dialing = {"agent_ring_seconds": 10, "customer_ring_seconds": 6}
    return tomli_w.dumps({"dialing": dialing, "pbx": [pbx_table(lab, max_cps=50)]})


@dataclass
class Site:
    """A client with a DID, a script and a web site, made through REST."""

    client: str
    key: str
    id: str


class Stack:
    """`ringbridge up` in a folder of its own."""

    def __init__(self, lab: Lab, folder: Path, settings_: str | None = None) -> None:
        self.lab = lab
        self.folder = folder
        self.port = free_port()
        self.config = folder / "ringbridge.toml"
        head = f'data_dir = "data"\n[http]\nbind = "127.0.0.1:{self.port}"\n'
        self.config.write_text(head + (settings_ or settings(lab)), encoding="utf-8")
        self.environ = {**os.environ, "RINGBRIDGE_CONFIG": str(self.config)}
        self.log = folder / "up.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.admin = Web(self.port)
        self.public = Web(self.port)
        self.asked: list[tuple[str, Web]] = []

    # running

    def command(self, *arguments: str, stdin: str = "") -> str:
        """Run `ringbridge …` to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "bridge.cli", *arguments],
            env=self.environ,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"ringbridge {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, ready: bool = True) -> None:
        """Start, and wait until /readyz agrees."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bridge.cli", "up"],
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if ready:
            self.wait_ready()

    def wait_ready(self, seconds: float = 60) -> None:
        until(self.ready, seconds, f"readyz of {self.folder}; log:\n{self.tail()}")

    def ready(self) -> bool:
        assert self.process is None or self.process.poll() is None, f"up has ended:\n{self.tail()}"
        try:
            return self.public("GET", "/readyz").status == 200
        except OSError:
            return False

    def tail(self, lines: int = 40) -> str:
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def down(self) -> int:
        """Ctrl-C, as a person would; its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process = None

    def descendants(self) -> dict[int, str]:
        """Every process below `up`, with its command line."""
        assert self.process is not None
        parents: dict[int, list[int]] = {}
        lines: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                lines[int(entry.name)] = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
        found: dict[int, str] = {}
        todo = [self.process.pid]
        while todo:
            for child in parents.get(todo.pop(), []):
                found[child] = lines[child]
                todo.append(child)
        return found

    def pid(self, part: str) -> int:
        """The one process below `up` whose command line holds `part`."""
        pids = [pid for pid, line in self.descendants().items() if part in line]
        assert len(pids) == 1, f"{part}: {pids}"
        return pids[0]

    # what people do

    def sign_in_admin(self) -> None:
        """Make an administrator and a token; from then on `admin` speaks as them."""
        self.command(
            "user",
            "add",
            "boss",
            "--name",
            "Boss",
            "--role",
            "administrator",
            "--password-file",
            "-",
            stdin=PASSWORD,
        )
        session = self.public.ok("POST", "/api/v1/session", {"username": "boss", "password": PASSWORD})
        self.admin.headers["Authorization"] = f"Bearer {session['token']}"

    def make_site(self, name: str = "Acme", **site: object) -> Site:
        """A client with one DID and one site, without the limits that a visitor's address would meet here."""
        client = self.admin.ok(
            "POST",
            "/api/v1/clients",
            {
                "name": name,
                "region": "US",
                "timezone": "America/New_York",
                "greeting": f"{name}, how may I help you?",
            },
        )
        script = self.admin.ok(
            "POST",
            "/api/v1/scripts",
            {
                "client_id": client["id"],
                "name": "Welcome",
                "body": "# Hello\n\nHello {{customer.name}}, this is {{agent.name}}.",
            },
        )
        limits = {"per_ip_hour": 1000, "per_number_day": 1000, "per_site_hour": 1000}
        given = {
            "name": f"{name} web",
            "timezone": "America/New_York",
            "script_id": script["id"],
            "limits": limits,
        }
        row = self.admin.ok("POST", "/api/v1/sites", {"client_id": client["id"], **given, **site})
        return Site(client["id"], row["key"], row["id"])

    def make_agent(self, extension: str) -> str:
        """An agent of that extension; the id."""
        row = self.admin.ok(
            "POST",
            "/api/v1/agents",
            {
                "username": f"agent{extension}",
                "password": PASSWORD,
                "name": f"Agent {extension}",
                "role": "agent",
                "devices": [self.lab.device(extension)],
                "extension": extension,
            },
        )
        return str(row["id"])

    def sign_in(self, extension: str, state: str = "ready") -> Web:
        """Sign an agent in at their phone."""
        session = self.public.ok(
            "POST",
            "/api/v1/session",
            {"username": f"agent{extension}", "password": PASSWORD, "device": self.lab.device(extension)},
        )
        web = Web(self.port, {"Authorization": f"Bearer {session['token']}"})
        web.ok("PUT", "/api/v1/me/state", {"state": state})
        return web

    def ask(self, site: Site, number: str, **more: object) -> tuple[str, Web]:
        """A visitor's form: the callback's id, and the web as that visitor sees it."""
        body = {"number": number, "consent": True, **more}
        made = self.public.ok("POST", "/api/v1/callbacks", body, X_Site_Key=site.key)
        visitor = Web(self.port, {"Authorization": f"Bearer {made['token']}"})
        self.asked.append((made["id"], visitor))
        return made["id"], visitor

    def forget(self) -> None:
        """Cancel every callback that still waits, so that none comes due in the next test."""
        while self.asked:
            callback, visitor = self.asked.pop()
            assert visitor("DELETE", f"/api/v1/callbacks/{callback}").status in (200, 409)

    def status(self, visitor: Web, callback: str) -> dict[str, Any]:
        return dict(visitor.ok("GET", f"/api/v1/callbacks/{callback}"))

    def wait_status(self, visitor: Web, callback: str, *wanted: str, seconds: float = 40) -> dict[str, Any]:
        """The callback's view once its status is one of `wanted`."""
        seen: list[str] = []

        def look() -> dict[str, Any] | None:
            view = self.status(visitor, callback)
            if not seen or seen[-1] != view["status"]:
                seen.append(view["status"])
            return view if view["status"] in wanted else None

        try:
            found = until(look, seconds)
        except AssertionError:
            raise AssertionError(
                f"wanted {wanted}, saw {seen}; {self.attempts(callback)}\n{self.tail()}"
            ) from None
        assert found is not None
        return found

    # what the tests may look at behind the scenes

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Read the database, never write it."""
        connection = sqlite3.connect(
            f"file:{self.folder / 'data' / 'ringbridge.db'}?mode=ro", uri=True, timeout=10
        )
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]
        finally:
            connection.close()

    def attempts(self, callback: str) -> list[dict[str, Any]]:
        return self.rows(
            "SELECT id, state, reason, q850, agent_device, call_id FROM attempts WHERE callback_id = ? "
            "ORDER BY created_at",
            callback,
        )

    def tries(self, callback: str) -> int:
        """How many of the customer's tries are used up."""
        return int(self.rows("SELECT tries FROM callbacks WHERE id = ?", callback)[0]["tries"])

    def failed(self, callback: str, seconds: float = 40) -> dict[str, Any]:
        """The callback's first attempt, once it has failed."""
        try:
            return until(lambda: [row for row in self.attempts(callback) if row["state"] == "failed"], seconds)[0]
        except AssertionError:
            raise AssertionError(f"did not fail: {self.attempts(callback)}\n{self.tail()}") from None

    # what the world saw

    def invites(self, callback: str) -> list[str]:
        """What was dialled for a callback, in order."""
        return [row.number for attempt in self.attempts(callback) for row in self.lab.witness(attempt=attempt["id"])]

    def once_each(self, callback: str) -> None:
        """The witness: no attempt's INVITE reached a phone or a number twice."""
        for attempt in self.attempts(callback):
            rows = self.lab.witness(attempt=attempt["id"])
            numbers = [row.number for row in rows]
            assert len(numbers) == len(set(numbers)), rows
