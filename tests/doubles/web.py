"""A REST application on a database of its own, and people signed in to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bridge.api.app import create_app
from bridge.api.limits import limiter
from bridge.services import people, sessions
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Agent, Client

PASSWORD = "correct horse battery"


@dataclass
class Web:
    """The app, and one client per person."""

    app: Flask
    settings: Settings
    database: Sessions
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> FlaskClient:
        """A browser without cookies."""
        return self.app.test_client()

    def person(self, username: str, role: str = "administrator", client: str | None = None, **more: Any) -> str:
        """Add someone, and return a bearer token of theirs."""
        now = datetime.now(UTC)
        with self.database.begin() as db:
            values = {"username": username, "password": PASSWORD, "name": username, "role": role}
            agent = people.add(db, now, {**values, "client_id": client, **more})
            token = sessions.open_session(db, now, agent, kind="token").token
        self.tokens[username] = token
        return token

    def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> TestResponse:
        """One request, as a program sends it."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return self.client.open(path, method=method, headers=headers, **more)

    def company(self, name: str) -> str:
        """Add a client company; its id."""
        with self.database.begin() as db:
            row = Client(created_at=datetime.now(UTC), name=name)
            db.add(row)
        return row.id

    def agent_id(self, username: str) -> str:
        with self.database.read() as db:
            found = db.query(Agent).filter_by(username=username).one()
        return found.id


@pytest.fixture
def web(settings: Settings, sessions: Sessions) -> Iterator[Web]:
    """The app; limits start anew with each test's empty Redis."""
    app = create_app(settings)
    with app.app_context():
        limiter.reset()
    yield Web(app, settings, sessions)
    app.extensions["ringbridge"].database.close()
    app.extensions["ringbridge"].redis.close()


def code(response: TestResponse) -> tuple[int, str | None, str | None]:
    """Status, code and field of a problem; checks that it is one."""
    assert response.content_type == "application/problem+json", response.data[:300]
    body = response.get_json()
    assert body["status"] == response.status_code
    assert body["title"] and body["detail"] and body["type"]
    return response.status_code, body["code"], body.get("field")
