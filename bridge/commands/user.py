"""`ringbridge user`: people who may sign in. No password ever stands on a command line."""

from __future__ import annotations

import getpass
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from sqlalchemy import select

from bridge.domain.errors import Invalid, NotFound
from bridge.live.connection import connect
from bridge.services import audit, changes, people, sessions
from bridge.services.access import Role
from bridge.settings import load
from bridge.store.database import open_database
from bridge.store.models import Agent, Client

_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,99}")
_DEVICE = re.compile(r"(PJSIP|SIP)/[A-Za-z0-9_.-]{1,64}|user/[A-Za-z0-9_.+-]{1,64}(@[A-Za-z0-9_.-]{1,128})?")

_password_file = click.option(
    "--password-file",
    type=click.Path(path_type=Path, allow_dash=True),
    help='Read the password from this file ("-": standard input) instead of asking.',
)


@click.group()
def user() -> None:
    """Add people who may sign in, and change their passwords."""


@user.command()
@click.argument("username")
@click.option("--role", type=click.Choice([str(role) for role in Role]), default="agent", show_default=True)
@click.option("--name", help="As colleagues see it; the username where it is left out.")
@click.option("--device", "devices", multiple=True, help="A phone such as PJSIP/101 or user/101; repeatable.")
@click.option("--extension", help="The internal number.")
@click.option("--client", "client_name", help="The one client company they see, by name or id.")
@_password_file
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def add(
    username: str,
    role: str,
    name: str | None,
    devices: tuple[str, ...],
    extension: str | None,
    client_name: str | None,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Add someone who may sign in."""
    if not _USERNAME.fullmatch(username):
        raise Invalid("a username has letters, digits and _ . @ + - only", field="username")
    for device in devices:
        if not _DEVICE.fullmatch(device) or len(device) > 100:
            raise Invalid(f"{device!r} is no device; write it as in PJSIP/101 or user/101", field="device")
    settings = load()
    password = _read_password(password_file)
    now = datetime.now(UTC)
    database = open_database(settings)
    with database.begin() as db:
        values = {
            "username": username,
            "password": password,
            "role": role,
            "name": name or username,
            "devices": list(devices),
            "extension": extension,
            "client_id": None if client_name is None else _client(db, client_name),
        }
        agent = people.add(db, now, values)
        audit.record(db, now, _actor(), "agents.create", agent.id, agent.client_id, {"role": role})
    changes.announce(connect(settings), "agents")
    _say(as_json, {"id": agent.id, "username": agent.username, "role": agent.role}, f"{agent.username} may sign in.")


@user.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_users(as_json: bool) -> None:
    """Show everyone who may sign in."""
    with open_database(load()).read() as db:
        agents = list(db.scalars(select(Agent).order_by(Agent.username)))
    if as_json:
        rows = [
            {
                "id": agent.id,
                "username": agent.username,
                "name": agent.name,
                "role": agent.role,
                "devices": agent.devices,
                "client_id": agent.client_id,
                "active": agent.active,
            }
            for agent in agents
        ]
        click.echo(json.dumps(rows))
        return
    if not agents:
        click.echo("Nobody may sign in yet; add someone with: ringbridge user add NAME --role administrator")
    for agent in agents:
        note = "" if agent.active else "  (disabled)"
        click.echo(f"{agent.username:<24} {agent.role:<14} {' '.join(agent.devices)}{note}")


@user.command()
@click.argument("username")
@_password_file
def password(username: str, password_file: Path | None) -> None:
    """Set a new password; it ends every session of theirs."""
    settings = load()
    database = open_database(settings)
    with database.read() as db:
        people.by_name(db, username)
    new = _read_password(password_file)
    now = datetime.now(UTC)
    with database.begin() as db:
        agent = people.by_name(db, username)
        people.set_password(db, agent, new)
        audit.record(db, now, _actor(), "agents.password", agent.id, agent.client_id)
    changes.announce(connect(settings), "agents", "sessions")
    click.echo(f"{agent.username} has a new password.")


@user.command()
@click.argument("username")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is valid.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def token(username: str, days: int, as_json: bool) -> None:
    """Make a bearer token for a program. It is shown once."""
    settings = load()
    now = datetime.now(UTC)
    with open_database(settings).begin() as db:
        agent = people.by_name(db, username)
        if not agent.active:
            raise NotFound(f"{username!r} is disabled")
        opened = sessions.open_session(db, now, agent, kind="token", lifetime=timedelta(days=days))
    expires = opened.expires_at.isoformat(timespec="seconds")
    _say(as_json, {"token": opened.token, "expires_at": expires}, opened.token)


@user.command()
@click.argument("username")
def disable(username: str) -> None:
    """Sign someone out everywhere and let them in no more."""
    settings = load()
    now = datetime.now(UTC)
    with open_database(settings).begin() as db:
        agent = people.by_name(db, username)
        people.disable(db, now, agent)
        audit.record(db, now, _actor(), "agents.disable", agent.id, agent.client_id)
    changes.announce(connect(settings), "agents", "sessions")
    click.echo(f"{agent.username} is disabled.")


def _read_password(file: Path | None) -> str:
    if file is None:
        if sys.stdin.isatty():
            return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
        text = sys.stdin.readline()
    elif str(file) == "-":
        text = sys.stdin.readline()
    else:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise Invalid(f"the password file {file} cannot be read: {error.strerror}") from None
    first = text.splitlines()[0] if text.strip() else ""
    if not first:
        raise Invalid("the password is empty; type one, or send it on standard input", field="password")
    return first


def _client(db: Any, name: str) -> str:
    found = db.scalar(select(Client.id).where((Client.name == name) | (Client.id == name)))
    if found is None:
        raise NotFound(f"there is no client company {name!r}")
    return str(found)


def _actor() -> str:
    return f"cli:{getpass.getuser()}"


def _say(as_json: bool, body: dict[str, Any], sentence: str) -> None:
    click.echo(json.dumps(body) if as_json else sentence)


