"""Migrations there and back: each leaves the shape that was before it, and the rows that were there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from doubles.company import NOW
from doubles.postgres import new_database, postgres  # noqa: F401 - fixture
from sqlalchemy import Connection, Engine, inspect, text

from bridge.settings import Database, Settings
from bridge.store import migrate
from bridge.store.database import WRITES, open_engine
from bridge.store.models import Base

OLDEST = "0003"
"""What is older is not gone back to."""


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Engine]:
    """An empty database."""
    url = f"sqlite:///{tmp_path / 'm.db'}"
    if request.param == "postgresql":
        url = new_database(request.getfixturevalue("postgres"))
    made = open_engine(Settings(database=Database(url=url)))
    yield made
    made.dispose()


def move(engine: Engine, revision: str, *, up: bool) -> None:
    with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        (command.upgrade if up else command.downgrade)(migrate._config(connection), revision)


def shape(engine: Engine) -> dict[str, Any]:
    """Every table's columns, keys and indexes."""
    with engine.connect() as connection:
        look = inspect(connection)
        return {name: _table(look, name) for name in sorted(look.get_table_names()) if name != "alembic_version"}


def _table(look: Any, name: str) -> dict[str, Any]:
    columns = {each["name"]: (str(each["type"]), each["nullable"], each["default"]) for each in look.get_columns(name)}
    indexes = {each["name"]: (each["column_names"], bool(each["unique"])) for each in look.get_indexes(name)}
    uniques = sorted(each["column_names"] for each in look.get_unique_constraints(name))
    keys = sorted((each["constrained_columns"], each["referred_table"]) for each in look.get_foreign_keys(name))
    return {"columns": columns, "indexes": indexes, "uniques": uniques, "keys": keys,
            "primary": look.get_pk_constraint(name)["constrained_columns"]}  # fmt: skip


def revisions() -> list[str]:
    """From the oldest that is gone back to, to the newest."""
    every = [each.revision for each in ScriptDirectory.from_config(migrate._config()).walk_revisions()][::-1]
    return every[every.index(OLDEST) :]


def fill(connection: Connection) -> None:
    """A client and its site, by the columns that the oldest revision has."""
    connection.execute(
        text(
            "INSERT INTO clients (id, name, region, timezone, greeting, card, active, created_at)"
            " VALUES ('c', 'Acme', 'US', 'UTC', '', '{}', true, :now)"
        ),
        {"now": NOW.isoformat(" ")},
    )
    connection.execute(
        text(
            "INSERT INTO sites (id, client_id, key, name, origins, timezone, regions, dial_order, consent_text,"
            " test_mode, limits, active, created_at) VALUES ('s', 'c', 'k', 'Shop', '[]', 'UTC', '[]',"
            " 'agent_first', '', false, '{\"per_ip_hour\": 7}', true, :now)"
        ),
        {"now": NOW.isoformat(" ")},
    )
    connection.execute(
        text(
            "INSERT INTO callbacks (id, client_id, site_id, number, name, note, page_url, due_at, expires_at, status,"
            " tries, consent_text, ip_hash, created_at) VALUES ('b', 'c', 's', '+12125550123', '', '', '', :now, :now,"
            " 'queued', 0, '', '', :now)"
        ),
        {"now": NOW.isoformat(" ")},
    )


def test_each_migration_is_undone_whole(engine: Engine) -> None:
    chain = revisions()
    move(engine, chain[0], up=True)
    with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        fill(connection)
    shapes = {chain[0]: shape(engine)}
    for revision in chain[1:]:
        move(engine, revision, up=True)
        shapes[revision] = shape(engine)
        assert shapes[revision] != shapes[chain[chain.index(revision) - 1]], f"{revision} changes nothing"
    for revision in chain[-2::-1]:
        move(engine, revision, up=False)
        assert shape(engine) == shapes[revision]
    move(engine, "head", up=True)
    with engine.connect() as connection:
        assert migrate.differences(connection) == []
        limits = connection.execute(text("SELECT limits, number FROM sites, callbacks")).one()
    assert "7" in str(limits[0]) and limits[1] == "+12125550123"
    assert set(shape(engine)) == set(Base.metadata.tables)
