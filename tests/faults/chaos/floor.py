"""One lab and one Ringbridge in a folder that outlives the run, so that a run that was killed can go on in it."""

from __future__ import annotations

import http.client
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w
from proxy import Proxy
from sqlalchemy import select
from stack import Stack, pbx_table

from bridge.settings import Database, Settings
from bridge.store.database import open_database
from bridge.store.models import AgentState, Attempt, AttemptChange, Call, Callback, NumberLock
from ringbridge_lab import processes
from ringbridge_lab.lab import Lab
from ringbridge_lab.witness import Invite, read_invites

from .harm import Harm
from .people import AWAY, Visitors
from .plan import NUMBERS

PHONES = ("101", "102", "103", "104", "105")
# As much as a site may allow. The first kind of site gives up after one try.
_MOST = {
    "per_ip_hour": 100_000, "per_network_hour": 1_000_000, "per_number_day": 1000, "per_site_hour": 1_000_000,
}  # fmt: skip
SITES = ({"tries": 1}, {"tries": 3, "retry_minutes": [1]})


class Floor:
    """Lab, stack, people and harm of one run."""

    def __init__(self, folder: Path, pbx: str, database: str | None, redis: str | None, known: dict[str, Any]) -> None:
        """Brings everything up. `known` is what an earlier run of that folder kept; empty for a new one."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._end_leftovers()
        self.lab = Lab(folder / "lab", pbx=pbx)
        self.stack: Stack | None = None
        self.proxy: Proxy | None = None
        try:
            self._up(database, redis, known)
        except BaseException:
            self.down()
            raise

    def _up(self, database: str | None, redis: str | None, known: dict[str, Any]) -> None:
        self.lab.up()
        table = pbx_table(self.lab, max_cps=50)
        self.proxy = Proxy(int(str(table["port"])))
        sections: dict[str, Any] = {
            "dialing": {"agent_ring_seconds": 10, "customer_ring_seconds": 6},
            "pbx": [{**table, "port": self.proxy.port}],
        }
        if database:
            sections["database"] = {"url": database}
        if redis:
            sections["redis"] = {"url": redis}
        self.stack = _Stack(self.lab, self.folder, tomli_w.dumps(sections))
        file = None if database else self.folder / "data" / "ringbridge.db"
        url = database or f"sqlite:///{file}"
        self._sessions = open_database(Settings(data_dir=self.folder / "data", database=Database(url=url)))
        self.stack.up()
        self.sites: list[tuple[str, int]] = [(key, tries) for key, tries in known.get("sites", [])]
        if not self.sites:
            self._found()
        for phone in PHONES:
            self.lab.phone(phone, answer_after=0.5, hangup_after=3)
        self.agents = {phone: self.stack.sign_in(phone) for phone in PHONES}
        self.over = threading.Event()
        self.visitors = Visitors(self.stack, self.sites, self.folder / "accepted.jsonl", self.over)
        self.harm = Harm(self.lab, self.stack, self.proxy, redis, file)

    def _found(self) -> None:
        """A company, made once."""
        assert self.stack is not None
        self.stack.sign_in_admin()
        for index, kind in enumerate(SITES):
            site = self.stack.make_site(f"Shop {index}", limits={**_MOST, **kind})
            self.sites.append((site.key, int(str(kind["tries"]))))
        for phone in PHONES:
            self.stack.make_agent(phone)

    def _end_leftovers(self) -> None:
        """What a run that was killed left behind: `up`, the lab, and the world's record of it."""
        path = self.folder / "up.pid"
        if path.exists():
            pid, began = map(int, path.read_text(encoding="utf-8").split())
            processes.end(processes.Identity(pid, began), grace=10)
        lab = self.folder / "lab"
        if lab.exists():
            Lab(lab).down()
            shutil.move(lab, self.folder / f"lab-before-{len(list(self.folder.glob('lab-before-*')))}")

    def down(self) -> None:
        """End all of it; the folder stays."""
        if self.stack is not None and self.stack.process is not None and self.stack.process.poll() is None:
            self.stack.down()
        if self.proxy is not None:
            self.proxy.close()
        self.lab.down()

    # what can be seen

    def invites(self) -> list[Invite]:
        """Every INVITE that reached the world on our behalf, in this run and in those before it."""
        places = [*sorted(self.folder.glob("lab-before-*")), self.lab.dir]
        return [row for place in places for row in read_invites(place / "witness.log") if row.attempt]

    def callbacks(self) -> dict[str, dict[str, Any]]:
        """All of them, by id."""
        return {row["id"]: row for row in self._rows(
            Callback.id, Callback.status, Callback.reason, Callback.held_by, Callback.due_at, Callback.expires_at
        )}  # fmt: skip

    def attempts(self) -> dict[str, dict[str, Any]]:
        """All of them, by id, and until when each keeps its number locked."""
        held = self._rows(NumberLock.attempt_id, NumberLock.expires_at)
        locks = {row["attempt_id"]: row["expires_at"] for row in held}
        rows = self._rows(
            Attempt.id, Attempt.callback_id, Attempt.number, Attempt.agent_device, Attempt.state, Attempt.reason,
            Attempt.claimed_at, Attempt.ended_at,
        )  # fmt: skip
        return {row["id"]: {**row, "locked_until": locks.get(row["id"])} for row in rows}

    def changes(self) -> list[dict[str, Any]]:
        """Every change of every attempt, in order."""
        return self._rows(
            AttemptChange.id, AttemptChange.attempt_id, AttemptChange.at, AttemptChange.old, AttemptChange.new,
            AttemptChange.reason,
        )  # fmt: skip

    def _rows(self, *columns: Any) -> list[dict[str, Any]]:
        with self._sessions.read() as session:
            return [dict(row._mapping) for row in session.execute(select(*columns).order_by(columns[0]))]

    def leftovers(self) -> list[str]:
        """What should be over once all is at rest, and is not."""
        calls = self._rows(Call.id, Call.ended_at)
        found = [f"call {row['id']} never ends" for row in calls if row["ended_at"] is None]
        now = datetime.now(UTC)
        attempts = self.attempts()
        for row in self._rows(AgentState.agent_id, AgentState.reserved_by, AgentState.live_calls):
            held = attempts.get(row["reserved_by"] or "")
            # Who was with an attempt of unknown outcome waits as its number does.
            if row["live_calls"] or (row["reserved_by"] and (held is None or (held["locked_until"] or now) <= now)):
                found.append(f"agent {row['agent_id']} stays busy")
        if channels := self.lab.channels():
            found.append(f"{channels} channels of the PBX stay up")
        return found

    def numbers_in_log(self) -> bool:
        """Whether the log says a number in clear."""
        assert self.stack is not None
        log = self.stack.log.read_text(encoding="utf-8", errors="replace")
        return any(number.removeprefix("+1") in log for number in NUMBERS)

    def ready(self) -> bool:
        """`up` runs, and all its parts are well."""
        assert self.stack is not None
        process = self.stack.process
        if process is None or process.poll() is not None:
            return False
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except AWAY:
            return False
        finally:
            connection.close()


class _Stack(Stack):
    """Says on disk which `up` runs, for a run that goes on after a kill."""

    def up(self, ready: bool = True) -> None:
        super().up(ready=False)
        assert self.process is not None
        who = processes.identify(self.process.pid)
        if who is not None:
            (self.folder / "up.pid").write_text(f"{who.pid} {who.began}\n", encoding="utf-8")
        if ready:
            self.wait_ready()
