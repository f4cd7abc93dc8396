"""A real PostgreSQL cluster in a folder of its own, for the time of a test run."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path

import psycopg
import pytest
from rig import RedisServer, make_settings, until

from bridge.live.connection import connect
from bridge.settings import Database, Pbx, RedisSection, Settings
from bridge.store.database import upgrade

_numbers = count(1)
_PR_SET_PDEATHSIG = 1


def _programs() -> Path | None:
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    # Debian keeps the server's programs off the PATH.
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


def _user() -> str | None:
    """PostgreSQL refuses to run as root; None where we are somebody else anyway."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The folder of the server's socket."""
    programs, user = _programs(), _user()
    if programs is None:
        pytest.skip("no PostgreSQL server programs on this machine (Debian: apt install postgresql)")
    if os.geteuid() == 0 and user is None:
        pytest.skip("PostgreSQL does not run as root, and there is no other user to run it as")
    folder = Path(tempfile.mkdtemp(prefix="rb-pg-", dir="/tmp"))
    if user is not None:
        shutil.chown(folder, user)

    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)}
    data = folder / "data"
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", "ringbridge", "--auth=trust", "--no-sync", "-E", "UTF8"],
        user=user,
        cwd="/tmp",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    settings = ("listen_addresses=", f"unix_socket_directories={folder}", "fsync=off")
    # A child of ours and no daemon: a test run that is killed takes the server along.
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, *(word for value in settings for word in ("-c", value))],
        user=user,
        cwd="/tmp",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,
    )
    try:
        until(lambda: server.poll() is not None or _answers(folder), 60, "PostgreSQL")
        assert server.poll() is None
        yield str(folder)
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    """Linux only; elsewhere the server outlives a run that is killed."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _answers(folder: Path) -> bool:
    try:
        psycopg.connect(f"host={folder} user=ringbridge dbname=postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def url(folder: str, database: str) -> str:
    """An SQLAlchemy URL of a database in that cluster."""
    return f"postgresql://ringbridge@/{database}?host={folder}"


def new_database(folder: str, template: str = "template1") -> str:
    """Make a database, empty or a copy of another one; returns its URL."""
    name = f"test{next(_numbers)}"
    with psycopg.connect(f"host={folder} user=ringbridge dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[call-overload, unused-ignore]
    return url(folder, name)


@cache
def _migrated(folder: str) -> str:
    """The name of a migrated database to copy: the migrations themselves take longer than most tests."""
    made = new_database(folder)
    upgrade(Settings(database=Database(url=made)))
    return made.partition("@/")[2].partition("?")[0]


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, shared_redis: object, migrated_database: Path
) -> Settings:
    """As the common fixture of that name, once on each database."""
    assert isinstance(shared_redis, RedisServer)
    if request.param == "sqlite":
        made = make_settings(tmp_path / "data", migrated_database, shared_redis.url)
    else:
        folder = request.getfixturevalue("postgres")
        made = Settings(
            data_dir=tmp_path / "data",
            redis=RedisSection(url=shared_redis.url),
            database=Database(url=new_database(folder, _migrated(folder))),
            pbx=(Pbx(name="lab", secret="test-secret", command_secret="test-command-secret"),),
        )
    client = connect(made)
    client.flushall()
    client.close()
    return made
