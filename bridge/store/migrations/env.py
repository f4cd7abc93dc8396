"""How Alembic runs here: always on the connection that `bridge.store.migrate` hands over."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from bridge.store.models import Base, UtcTime


def _render(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """A migration must not change when a model's class does, so it names SQLAlchemy's own types."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcTime) else False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    render_item=_render,
    # SQLite's DDL takes part in transactions once the driver lets it: a half-done upgrade leaves nothing.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
