"""`ringbridge dialing`: the one switch that stops every dial of ours."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime

import click

from bridge.live.connection import connect
from bridge.services import audit, changes
from bridge.settings import Settings, load
from bridge.store.database import open_database
from bridge.store.models import Switch
from bridge.store.queries import switches


@click.group()
def dialing() -> None:
    """Stop all dialling at once, or allow it again. Calls in progress go on."""


def _set(stopped: bool) -> None:
    settings = load()
    now = datetime.now(UTC)
    actor = f"cli:{getpass.getuser()}"
    with open_database(settings).begin() as session:
        switches.set_dialing(session, stopped=stopped, by=actor, now=now)
        audit.record(session, now, actor, "dialing.stop" if stopped else "dialing.start", switches.DIALING)
    # The database decides, Redis up or not; this only makes caches reload sooner.
    changes.announce(connect(settings), "switches")


def _state(settings: Settings) -> tuple[str, Switch | None]:
    with open_database(settings).read() as session:
        row = session.get(Switch, switches.DIALING)
        if switches.dialing_stopped(session):
            return "stopped", row
    return ("observe" if settings.dialing.mode == "observe" else "allowed"), row


@dialing.command()
def stop() -> None:
    """Nothing is dialled from now on; what is due waits."""
    _set(stopped=True)
    click.echo("Dialling is stopped. `ringbridge dialing start` allows it again.")


@dialing.command()
def start() -> None:
    """Allow dialling again; what is due is dialled."""
    _set(stopped=False)
    click.echo("Dialling is allowed.")


@dialing.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Say whether dialling is allowed, and who changed it when."""
    state, row = _state(load())
    if as_json:
        told = {"dialing": state, "by": row.by if row else None, "at": row.at.isoformat() if row else None}
        click.echo(json.dumps(told))
        return
    words = {
        "stopped": "Dialling is stopped",
        "allowed": "Dialling is allowed",
        "observe": 'The settings say [dialing] mode = "observe": nothing is dialled',
    }[state]
    click.echo(f"{words} ({row.by}, {row.at:%Y-%m-%d %H:%M} UTC)." if row else f"{words}.")
