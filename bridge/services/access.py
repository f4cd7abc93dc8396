"""Who asks, and which rows they may see: the one place where tenants are kept apart.

A query that reads or changes a tenant's rows passes through `Access.scope`; there is no other way to a row
in `services`, so a view cannot forget it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

from bridge.domain.errors import Forbidden, NotFound

S = TypeVar("S", bound="Select[*tuple[Any, ...]]")


class Role(StrEnum):
    AGENT = "agent"
    SUPERVISOR = "supervisor"
    VIEWER = "viewer"
    ADMINISTRATOR = "administrator"


EVERYONE = frozenset(Role)
STAFF = frozenset({Role.AGENT, Role.SUPERVISOR, Role.ADMINISTRATOR})
LEADERS = frozenset({Role.SUPERVISOR, Role.ADMINISTRATOR})
READERS = frozenset({Role.SUPERVISOR, Role.VIEWER, Role.ADMINISTRATOR})
ADMINISTRATORS = frozenset({Role.ADMINISTRATOR})


@dataclass(frozen=True, slots=True)
class Access:
    """Whoever is signed in. `clients` None means every client; an empty set means none."""

    agent: str
    username: str
    name: str
    role: Role
    clients: frozenset[str] | None
    session: str = ""
    """The hash of the session's secret, which names the session and opens nothing."""
    csrf: str = ""
    device: str | None = None

    def require(self, roles: frozenset[Role]) -> None:
        """Raises Forbidden where the role is none of `roles`."""
        if self.role not in roles:
            raise Forbidden("your role may not do this; ask an administrator")

    def may_see(self, client: str | None) -> bool:
        """Whether rows of this client are in reach. A row of no client is seen by those who see all."""
        return self.clients is None or (client is not None and client in self.clients)

    def check_client(self, client: str | None) -> None:
        """Raises NotFound, never Forbidden: what is out of reach is not there."""
        if not self.may_see(client):
            raise NotFound("there is no such client", field="client_id")

    def scope(self, statement: S, column: InstrumentedAttribute[Any]) -> S:
        """The SELECT, narrowed to the rows whose client (`column`) is in reach."""
        if self.clients is None:
            return statement
        return statement.where(column.in_(self.clients))
