"""The database's shape: bring it to this version, or say that it is not."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from bridge.domain.errors import Unavailable
from bridge.settings import Settings
from bridge.store import spending  # noqa: F401 - its tables belong to the metadata
from bridge.store.database import WRITES, open_engine
from bridge.store.models import Base

_UPGRADE_LOCK = 0x52425F31
"""PostgreSQL advisory lock: two processes that start at once upgrade one after the other."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "bridge.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def latest() -> str:
    """The revision that this version of Ringbridge needs."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def upgrade(settings: Settings) -> tuple[str | None, str]:
    """Bring the database to this version, all or nothing; returns the revisions before and after.

    Safe to run from several processes at once. Raises Unavailable.
    """
    engine = open_engine(settings)
    try:
        with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            before = MigrationContext.configure(connection).get_current_revision()
            _refuse_newer(before)
            command.upgrade(_config(connection), "head")
        return before, latest()
    finally:
        engine.dispose()


def check_current(settings: Settings) -> None:
    """Raises Unavailable unless the database has exactly this version's shape."""
    engine = open_engine(settings)
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    _refuse_newer(found)
    if found != latest():
        raise Unavailable(
            "the database is not set up for this version; run: ringbridge db upgrade", part="database"
        )


def differences(connection: Connection) -> list[object]:
    """What autogenerate would still change; empty where models and migrations agree."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))


def _refuse_newer(found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise Unavailable(
            "the database was made by a newer Ringbridge; install that version or restore a backup",
            part="database",
        )
