"""Fixtures shared by all tests: a real Redis server, a migrated database, settings in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.listening import Stage, staged
from hypothesis import HealthCheck
from hypothesis import settings as examples
from redis import Redis
from rig import RedisServer, make_settings

from bridge.live.connection import connect
from bridge.settings import Database, Settings
from bridge.store.database import Sessions, open_database, upgrade

# How long an example takes is the machine's matter, not the code's.
examples.register_profile(
    "any machine", parent=examples.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
examples.load_profile("any machine")

LOG_LINES = 60
"""A failure shows so many lines of what was logged or printed, so that the report's end is never buried."""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Cut what was captured of a failed test to its last lines."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        report.sections = [(name, last_lines(text)) for name, text in report.sections]


def last_lines(text: str) -> str:
    """At most LOG_LINES lines from the end, and how many there were before."""
    lines = text.splitlines()
    cut = len(lines) - LOG_LINES
    return text if cut <= 0 else "\n".join([f"({cut} lines before)", *lines[cut:]])


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for all tests that do it no harm."""
    server = RedisServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server with an append-only file, for a test that does it harm."""
    server = RedisServer(durable=True)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    folder = tmp_path_factory.mktemp("database")
    upgrade(Settings(data_dir=folder, database=Database(url=f"sqlite:///{folder / 'empty.db'}")))
    return folder / "empty.db"


@pytest.fixture
def settings(tmp_path: Path, migrated_database: Path, shared_redis: RedisServer) -> Settings:
    """Settings for one test; its Redis is empty."""
    made = make_settings(tmp_path / "data", migrated_database, shared_redis.url)
    client = connect(made)
    client.flushall()
    client.close()
    return made


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    """A client of the test's Redis."""
    client = connect(settings)
    yield client
    client.close()


@pytest.fixture
def sessions(settings: Settings) -> Iterator[Sessions]:
    """The test's database."""
    opened = open_database(settings)
    yield opened
    opened.close()


@pytest.fixture
def stage(tmp_path: Path, migrated_database: Path, own_redis: RedisServer) -> Iterator[Stage]:
    """Listeners to harm, on a scripted PBX."""
    made = make_settings(tmp_path / "data", migrated_database, own_redis.url)
    with staged(tmp_path, made, own_redis) as found:
        yield found
