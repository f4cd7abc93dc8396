"""Those who ask for callbacks, those who take the calls, and an eye on the world's legs."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from stack import Stack
from web import Web

from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Lab

from .plan import Ask

AWAY = (OSError, http.client.HTTPException)
"""What a web that is killed, or not there yet, raises."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A form that was answered with 201."""

    key: str
    number: str
    site: str
    id: str
    tries: int
    """How many tries its site allows."""


class Visitors:
    """Forms are sent until they are answered for good; each 201 is on disk before anybody goes on."""

    def __init__(self, stack: Stack, sites: list[tuple[str, int]], journal: Path, over: threading.Event) -> None:
        """`sites` are their keys and allowed tries."""
        self.stack, self.sites, self.over = stack, sites, over
        self.accepted: list[Accepted] = read_journal(journal)
        self.errors: list[str] = []
        self._journal = journal
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def ask(self, ask: Ask) -> None:
        """Send a form, in threads of its own."""
        for _ in range(1 + ask.twice):
            self._spawn(self._ask, ask)

    @property
    def busy(self) -> bool:
        """Somebody still waits for an answer."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        return bool(self._threads)

    def leave(self) -> None:
        """Wait for all, once `over` is set."""
        for thread in self._threads:
            thread.join()

    def _spawn(self, what: Callable[[Ask], None], ask: Ask) -> None:
        def watched() -> None:
            try:
                what(ask)
            except Exception as error:  # noqa: BLE001 - told in the report
                self.errors.append(f"{ask.key}: {error!r}")

        thread = threading.Thread(target=watched, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _ask(self, ask: Ask) -> None:
        site, tries = self.sites[ask.site]
        body = {"number": ask.number, "consent": True, "name": "Ann"}
        headers = {"X_Site_Key": site, "Idempotency_Key": ask.key}
        while not self.over.is_set():
            try:
                answer = self.stack.public("POST", "/api/v1/callbacks", body, **headers)
            except AWAY:
                self.over.wait(0.3)
                continue
            # 409: the first of two is still in work; the others: something is away.
            if answer.status in (409, 502, 503, 504):
                self.over.wait(0.3)
                continue
            if answer.status != 201:
                raise AssertionError(f"a form was answered with {answer.status} {answer.body!r}")
            self._note(Accepted(ask.key, ask.number, site, answer.body["id"], tries))
            if ask.cancel_after is not None and not self.over.wait(ask.cancel_after):
                self._cancel(answer.body["id"], answer.body["token"])
            return

    def _note(self, accepted: Accepted) -> None:
        with self._lock, self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(asdict(accepted)) + "\n")
            self.accepted.append(accepted)

    def _cancel(self, callback: str, token: str) -> None:
        web = Web(self.stack.port, {"Authorization": f"Bearer {token}"})
        with suppress(*AWAY):
            answer = web("DELETE", f"/api/v1/callbacks/{callback}")
            if answer.status not in (200, 204, 409, 502, 503, 504):
                raise AssertionError(f"a cancel was answered with {answer.status} {answer.body!r}")


def read_journal(path: Path) -> list[Accepted]:
    """What earlier rounds were promised; a line cut by a kill is none."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Accepted(**json.loads(line)) for line in lines]


def work(agents: dict[str, Web], over: threading.Event) -> None:
    """Agents come back to work whenever something has paused them."""
    while not over.wait(0.8):
        for agent in agents.values():
            with suppress(*AWAY):
                state = agent("GET", "/api/v1/me/state")
                if state.status == 200 and state.body["state"] != "ready":
                    agent("PUT", "/api/v1/me/state", {"state": "ready"})


def watch(lab: Lab, last: dict[str, datetime], over: threading.Event) -> None:
    """Note when the world last saw each of its legs alive."""
    while not over.wait(0.15):
        at = datetime.now(UTC)
        with suppress(LabError), lab.world_ami() as ami:
            for line in ami.command("core show channels concise").splitlines():
                last[line.rpartition("!")[2]] = at
