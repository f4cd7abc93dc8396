"""Everything is killed, frozen, flushed and restarted at random while callbacks come in, on a real PBX.

Believed are the world's witness of INVITEs and how long it saw each leg alive, never what we say of ourselves: no
attempt's INVITE reaches a phone or a number twice, no phone or number rings for two attempts at once, and each callback
that was answered with 201 ends, or is queued and says why.

    RINGBRIDGE_LONG=1            ten minutes of it, with more tries for each callback
    RINGBRIDGE_CHAOS_SEED=123    the same order of harm again (instants differ, as processes do)
    RINGBRIDGE_CHAOS_SECONDS=60  that long
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import signal
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from labs import KINDS, raised
from redis import Redis
from rig import until
from stack import Site, Stack
from web import Web

from bridge.live.connection import DOWN
from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Lab

LONG = bool(os.environ.get("RINGBRIDGE_LONG"))
SECONDS = float(os.environ.get("RINGBRIDGE_CHAOS_SECONDS", "600" if LONG else "15"))
SEED = int(os.environ.get("RINGBRIDGE_CHAOS_SEED", str(time.time_ns() % 1_000_000)))
HEALING_SECONDS = 400 if LONG else 150
PHONES = ("101", "102", "103", "104", "105")
PROCESSES = (
    "listen --pbx",
    "worker --queue dial",
    "worker --queue default",
    "bridge.cli recorder",
    "bridge.cli pops",
    "bridge.cli scheduler",
    "bridge.cli api",
    "redis-server",
)
# Few, so that two callbacks often want the same one: answered at once and late, busy, silent, refused, machine.
NUMBERS = tuple(f"+1415555{line}" for line in ("0100", "0101", "0181", "0182", "0111", "0141", "0151", "0161", "0180"))
# As much as a site may allow.
MOST = {"per_ip_hour": 100_000, "per_number_day": 1000, "per_site_hour": 1_000_000}
ENDED = ("done", "failed", "cancelled", "expired")

pytestmark = [pytest.mark.pbx, pytest.mark.faults, pytest.mark.timeout(SECONDS + HEALING_SECONDS + 200)]


@pytest.fixture(scope="module", params=KINDS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with raised(request.param, tmp_path_factory.mktemp("chaoslab")) as made:
        yield made


@dataclass
class Wish:
    """A visitor's form, sent until somebody answers it for good."""

    key: str
    number: str
    status: int | None = None
    id: str = ""
    token: str = ""


@dataclass
class Sightings:
    """When the world last saw each of its legs alive."""

    lab: Lab
    last: dict[str, datetime] = field(default_factory=dict)

    def look(self) -> None:
        at = datetime.now(UTC)
        with self.lab.world_ami() as ami:
            listing = ami.command("core show channels concise")
        for line in listing.splitlines():
            self.last[line.rpartition("!")[2]] = at


class Chaos:
    """The stack, the people who use it, and the harm done to it."""

    def __init__(self, lab: Lab, stack: Stack, site: Site, agents: dict[str, Web], dice: random.Random) -> None:
        self.lab, self.stack, self.site, self.agents, self.dice = lab, stack, site, agents, dice
        self.wishes: list[Wish] = []
        self.done: list[str] = []
        self.frozen: dict[int, float] = {}
        self.sightings = Sightings(lab)
        self.closing = threading.Event()
        """No more forms are filled in."""
        self.over = threading.Event()
        self.errors: list[Exception] = []
        self.writer: sqlite3.Connection | None = None
        self.unlock_at = 0.0
        self.company_back_at: float | None = None
        self.stopped_until: float | None = None

    # the people

    def visitors(self, dice: random.Random) -> None:
        """Forms come in, some twice at once under one key, and are sent again where nobody answered."""
        while not self.closing.wait(dice.uniform(0.2, 2)):
            wish = Wish(f"key-{len(self.wishes)}-{dice.random()}", dice.choice(NUMBERS))
            self.wishes.append(wish)
            if dice.random() < 0.2:
                twin = threading.Thread(target=self.watched, args=(lambda w=wish: self.send(Wish(w.key, w.number)),))
                twin.start()
                self.send(wish)
                twin.join()
            else:
                self.send(wish)
            if dice.random() < 0.15:
                self.cancel(dice.choice(self.wishes))

    def send(self, wish: Wish) -> None:
        """Until an answer that stands; given up only as the test ends."""
        body = {"number": wish.number, "consent": True, "name": "Ann"}
        headers = {"X_Site_Key": self.site.key, "Idempotency_Key": wish.key}
        while not self.over.is_set():
            try:
                answer = self.stack.public("POST", "/api/v1/callbacks", body, **headers)
            except (OSError, http.client.HTTPException):
                self.over.wait(0.3)
                continue
            if answer.status in (409, 500, 502, 503, 504):
                assert answer.status != 500, answer.body
                self.over.wait(0.3)
                continue
            assert answer.status == 201, (answer.status, answer.body)
            wish.status, wish.id, wish.token = 201, answer.body["id"], answer.body["token"]
            return

    def cancel(self, wish: Wish) -> None:
        if wish.status == 201:
            web = Web(self.stack.port, {"Authorization": f"Bearer {wish.token}"})
            with suppress(OSError, http.client.HTTPException):
                answer = web("DELETE", f"/api/v1/callbacks/{wish.id}")
                assert answer.status in (200, 204, 409, 502, 503, 504), (answer.status, answer.body)

    def workday(self, dice: random.Random) -> None:
        """Agents come back to work whenever something has paused them; now and then one leaves for a moment."""
        while not self.over.wait(0.4):
            for agent in self.agents.values():
                with suppress(OSError, http.client.HTTPException):
                    state = agent("GET", "/api/v1/me/state")
                    if state.status == 200 and state.body["state"] != "ready":
                        agent("PUT", "/api/v1/me/state", {"state": "ready"})
                    elif dice.random() < 0.02:
                        agent("PUT", "/api/v1/me/state", {"state": "offline"})

    def watch(self) -> None:
        while not self.over.wait(0.1):
            with suppress(LabError):
                self.sightings.look()

    def watched(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception as error:  # noqa: BLE001 - judged by the test
            self.errors.append(error)

    # the harm

    def harm(self) -> None:
        """One harm, at random."""
        ways: list[tuple[int, Callable[[], str]]] = [
            (10, self.kill_one),
            (4, self.freeze_one),
            (2, self.flush),
            (1, self.kill_pbx),
            (1, self.stop_pbx),
            (2, self.lock_database),
            (2, self.switch_off),
            (1, self.kill_everything),
            (2, self.cut_redis_clients),
        ]
        way = self.dice.choices([way for _, way in ways], [weight for weight, _ in ways])[0]
        self.done.append(f"{datetime.now(UTC):%H:%M:%S.%f} {way()}")

    def pids(self, part: str) -> list[int]:
        return [pid for pid, line in self.stack.descendants().items() if part in line]

    def kill_one(self) -> str:
        part = self.dice.choice(PROCESSES)
        for pid in self.pids(part):
            self.signal(pid, signal.SIGKILL)
        return f"kill {part}"

    def freeze_one(self) -> str:
        part = self.dice.choice((*PROCESSES, "listen --pbx", "listen --pbx"))
        seconds = self.dice.choice((1, 3, 5, 20 if LONG else 8))
        for pid in self.pids(part):
            self.signal(pid, signal.SIGSTOP)
            self.frozen[pid] = time.monotonic() + seconds
        return f"freeze {part} for {seconds} s"

    def flush(self) -> str:
        with suppress(*DOWN), self.redis() as redis:
            redis.flushall()
        return "flushall"

    def cut_redis_clients(self) -> str:
        with suppress(*DOWN), self.redis() as redis:
            redis.execute_command("CLIENT", "KILL", "SKIPME", "yes")
        return "redis drops its clients"

    def redis(self) -> Redis:
        return Redis(unix_socket_path=str(self.stack.folder / "data" / "redis.sock"), socket_timeout=1)

    def kill_pbx(self) -> str:
        if self.company_back_at is None:
            self.lab.kill_company()
            self.hang_up_orphans()
            self.company_back_at = time.monotonic() + self.dice.uniform(0, 4)
        return "kill the PBX"

    def stop_pbx(self) -> str:
        if self.company_back_at is None:
            self.lab.stop_company()
            self.company_back_at = time.monotonic() + self.dice.uniform(0, 4)
        return "stop the PBX"

    def hang_up_orphans(self) -> None:
        """As a provider does with calls of a PBX that is gone."""
        with self.lab.world_ami() as ami:
            ami.command("channel request hangup all")

    def lock_database(self) -> str:
        if self.writer is None:
            with suppress(sqlite3.OperationalError):
                path = self.stack.folder / "data" / "ringbridge.db"
                writer = sqlite3.connect(path, timeout=1, isolation_level=None)
                writer.execute("BEGIN IMMEDIATE")
                self.writer, self.unlock_at = writer, time.monotonic() + self.dice.uniform(0.5, 7)
        return "lock the database"

    def switch_off(self) -> str:
        self.switch("stop")
        self.stopped_until = time.monotonic() + self.dice.uniform(0.5, 3)
        return "dialing stop"

    def switch(self, way: str) -> None:
        with suppress(AssertionError):
            self.stack.command("dialing", way)

    def kill_everything(self) -> str:
        if self.stack.process is not None:
            self.stack.process.kill()
            self.stack.process.wait()
        return "kill up"

    def mend(self, everything: bool = False) -> None:
        """Whatever outside of Ringbridge was broken long enough."""
        now = float("inf") if everything else time.monotonic()
        for pid in [pid for pid, until_ in self.frozen.items() if until_ <= now]:
            self.signal(pid, signal.SIGCONT)
            del self.frozen[pid]
        if self.writer is not None and self.unlock_at <= now:
            self.writer.execute("ROLLBACK")
            self.writer.close()
            self.writer = None
        if self.company_back_at is not None and self.company_back_at <= now:
            self.lab.start_company()
            self.company_back_at = None
        if self.stopped_until is not None and self.stopped_until <= now:
            self.switch("start")
            self.stopped_until = None
        if self.stack.process is not None and self.stack.process.poll() is not None:
            # Refused as long as what the killed one left is still being ended: then once more, at the next turn.
            self.stack.up(ready=False)

    @staticmethod
    def signal(pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    # what must hold

    def views(self) -> dict[str, dict[str, Any]]:
        rows = self.stack.rows("SELECT id, status, reason, held_by, number, tries FROM callbacks")
        return {row["id"]: row for row in rows}

    def unsettled(self) -> list[dict[str, Any]]:
        return [row for row in self.views().values() if row["status"] not in ENDED]

    def story(self, attempt: str) -> str:
        """All that is known of one attempt."""
        changes = self.stack.rows("SELECT at, old, new, reason FROM attempt_changes WHERE attempt_id = ?", attempt)
        return f"{self.lab.witness(attempt=attempt)}\n{changes}"


def run(chaos: Chaos, seconds: float) -> None:
    """People and harm for that long; then the harm ends."""
    dice = chaos.dice
    threads = [
        threading.Thread(target=chaos.watched, args=(lambda: chaos.visitors(random.Random(SEED + 1)),)),
        threading.Thread(target=chaos.watched, args=(lambda: chaos.visitors(random.Random(SEED + 2)),)),
        threading.Thread(target=chaos.watched, args=(chaos.watch,)),
    ]
    workday = Chaos(chaos.lab, chaos.stack, chaos.site, chaos.agents, dice)
    threads.append(threading.Thread(target=chaos.watched, args=(lambda: workday.workday(random.Random(SEED + 3)),)))
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    pace = threading.Event()
    try:
        harm_at = time.monotonic() + 2
        while time.monotonic() < end and not chaos.errors:
            pace.wait(0.1)
            chaos.mend()
            if time.monotonic() >= harm_at:
                chaos.harm()
                harm_at = time.monotonic() + dice.choice((0.05, 0.5, 1, 2, 4))
        chaos.mend(everything=True)
        chaos.closing.set()
        settle(chaos)
    finally:
        chaos.closing.set()
        chaos.over.set()
        workday.over.set()
        for thread in threads:
            thread.join()
        chaos.mend(everything=True)


def settle(chaos: Chaos) -> None:
    """Nothing is harmed any more: `up` runs again, and every callback comes to its end by itself."""

    def back() -> bool:
        chaos.mend()
        assert chaos.stack.process is not None
        return chaos.stack.process.poll() is None and chaos.stack.ready()

    with suppress(AssertionError):
        until(lambda: back() or chaos.errors, 90, "readyz")
    chaos.switch("start")
    try:
        until(lambda: not chaos.unsettled() or chaos.errors, HEALING_SECONDS, "callbacks to end")
    except AssertionError:
        # Those that say why they wait are judged below.
        return


@pytest.fixture
def chaos(lab: Lab, tmp_path: Path) -> Iterator[Chaos]:
    stack = Stack(lab, tmp_path)
    stack.up()
    try:
        yield staff(lab, stack)
    finally:
        if stack.process is not None and stack.process.poll() is None:
            stack.down()


def staff(lab: Lab, stack: Stack) -> Chaos:
    stack.sign_in_admin()
    tries = {"tries": 3, "retry_minutes": [1]} if LONG else {"tries": 1}
    limits = {**MOST, **tries}
    site = stack.make_site(limits=limits)
    for phone in PHONES:
        stack.make_agent(phone)
        lab.phone(phone, answer_after=0.5, hangup_after=1.5)
    agents = {phone: stack.sign_in(phone) for phone in PHONES}
    return Chaos(lab, stack, site, agents, random.Random(SEED))


def test_no_harm_dials_twice_or_loses_a_callback(chaos: Chaos) -> None:
    # pytest -s shows it; every failure names it too.
    print(f"RINGBRIDGE_CHAOS_SEED={SEED}, {SECONDS:g} s")
    run(chaos, SECONDS)
    told = f"seed {SEED}\n" + "\n".join(chaos.done)
    assert not chaos.errors, (told, chaos.errors)

    lab, stack = chaos.lab, chaos.stack
    attempts = {row["id"]: row for row in stack.rows("SELECT id, number, state, reason, agent_device FROM attempts")}
    invites = [row for row in lab.witness() if row.attempt]
    print(f"{len(chaos.wishes)} wishes, {len(attempts)} attempts, {len(invites)} INVITEs, {len(chaos.done)} harms")

    # Promise 1, first half: at most once for each leg of each attempt, and nothing that no attempt asked for.
    legs = defaultdict(list)
    phones = {lab.device(phone): phone for phone in PHONES}
    for row in invites:
        assert row.attempt in attempts, f"{told}\nno attempt asked for {row}"
        wanted = {attempts[row.attempt]["number"], phones[attempts[row.attempt]["agent_device"]]}
        assert row.number in wanted, f"{told}\n{row} is for neither of {wanted}"
        legs[(row.attempt, row.number)].append(row)
    twice = [rows for rows in legs.values() if len(rows) > 1]
    assert not twice, f"{told}\n{twice}\n{chaos.story(twice[0][0].attempt or '')}\n{stack.log}"

    # Promise 1, second half: a number, or an agent's phone, is in one attempt's call at a time.
    by_number = defaultdict(list)
    for row in invites:
        by_number[row.number].append(row)
    for rows in by_number.values():
        for earlier, later in itertools.pairwise(rows):
            alive = chaos.sightings.last.get(earlier.leg, earlier.at)
            assert alive <= later.at + timedelta(seconds=0.05) or earlier.attempt == later.attempt, (
                f"{told}\n{earlier} was alive at {alive}, when {later} came\n"
                f"{chaos.story(earlier.attempt or '')}\n{chaos.story(later.attempt or '')}\n{stack.log}"
            )

    # Promise 2: what got a 201 has ended, or waits and says why.
    views = chaos.views()
    for wish in chaos.wishes:
        if wish.status == 201:
            assert wish.id in views, f"{told}\n{wish} was accepted and is not there"
    keys = stack.rows("SELECT key, count(DISTINCT callback_id) AS many FROM idempotency_keys GROUP BY key")
    assert all(row["many"] == 1 for row in keys) and len(views) == len(keys), f"{told}\n{len(views)} for {len(keys)}"
    for view in chaos.unsettled():
        waits = f"{told}\n{view}\n{stack.attempts(view['id'])}\n{stack.log}"
        assert view["status"] == "queued" and view["reason"], waits
    for view in views.values():
        assert view["status"] != "failed" or view["reason"], f"{told}\n{view}"

    # And then all is as before: nobody held, nothing open, no line busy.
    lab.wait_idle()
    until(lambda: not stack.rows("SELECT id FROM calls WHERE ended_at IS NULL"), 30, f"{told}\ncalls that never end")
    held = "SELECT agent_id FROM agent_states WHERE reserved_by IS NOT NULL OR live_calls > 0"
    until(lambda: not stack.rows(held), 180, f"{told}\nagents that stay busy")
    until(stack.ready, 30, f"{told}\n{stack.tail()}")
    log = stack.log.read_text(encoding="utf-8", errors="replace")
    assert not [number for number in NUMBERS if number.removeprefix("+1") in log], f"{told}\na number in clear"
