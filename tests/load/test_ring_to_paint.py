"""From a form to a ringing phone, and from the ring to the painted pop: real PBX, real Chromium, one run.

Prints medians and 99th percentiles; asserts only that nothing was lost. Ten callbacks, fifty with deploy/test --long.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from labs import KINDS, raised
from pages import sign_in
from playwright.sync_api import Page
from rig import until
from stack import PASSWORD, QUICK, Stack

from ringbridge_lab.lab import Lab

pytestmark = [pytest.mark.load, pytest.mark.pbx, pytest.mark.browser]
pytest_plugins = ["desk_fixtures"]

AREAS = ("212", "312", "415", "646", "702")
COUNT = 50 if os.environ.get("RINGBRIDGE_LONG") else 10


@pytest.fixture(params=KINDS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with raised(request.param, tmp_path_factory.mktemp("lab")) as made:
        yield made


def told(name: str, values: Sequence[float]) -> str:
    ranked = sorted(values)
    last = ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
    return f"{name}: median {statistics.median(ranked):.1f} ms, p99 {last:.1f} ms, {len(ranked)} values"


def since(row: str, start: datetime) -> float:
    """Milliseconds from `start` to a time as SQLite keeps it."""
    return (datetime.fromisoformat(row).replace(tzinfo=UTC) - start).total_seconds() * 1000


def test_every_pop_is_painted(lab: Lab, page: Page, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = Stack(lab, tmp_path)
    stack.up()
    try:
        stack.sign_in_admin()
        site = stack.make_site(limits=QUICK)
        stack.make_agent("101")
        agent = sign_in(page, f"http://127.0.0.1:{stack.port}", "agent101", PASSWORD, lab.device("101")).live()
        web = stack.sign_in("101")
        agent.expect_state("ready")
        posts, originates = [], []
        for number in range(COUNT):
            start = datetime.now(UTC)
            callback, visitor = stack.ask(site, f"+1{AREAS[number // 10]}555018{number % 10}")
            posts.append((datetime.now(UTC) - start).total_seconds() * 1000)
            stack.wait_status(visitor, callback, "done")
            sent = stack.rows("SELECT sent_at FROM attempts WHERE callback_id = ?", callback)
            originates.append(since(sent[0]["sent_at"], start))
            agent.pop("ended")
            agent.save(1)
            agent.idle()
            web.ok("PUT", "/api/v1/me/state", {"state": "ready"})
            until(lambda: not stack.rows("SELECT 1 FROM agent_states WHERE live_calls > 0 OR reserved_by IS NOT NULL"))
        pops = until(
            lambda: len(rows := stack.rows("SELECT * FROM pops WHERE acked_at IS NOT NULL")) == COUNT and rows,
            what=f"{COUNT} pops to be acknowledged",
        )
        assert pops
        rings = [since(row["acked_at"], datetime.fromisoformat(row["offered_at"]).replace(tzinfo=UTC)) for row in pops]
        with capsys.disabled():
            print()
            print(told("POST", posts))
            print(told("POST to Originate", originates))
            print(told("ring to paint, acknowledged at the server", rings))
            print(told("of which in the page, arrival to paint", [row["painted_ms"] for row in pops]))
    finally:
        assert stack.down() == 0
