"""`ringbridge calls`: what goes on now, and why Ringbridge takes a call for what it takes it."""

from __future__ import annotations

import json
import re
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console
from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from bridge.api.shapes import CallEventShape, CallFull, CallRow, CallState
from bridge.commands import call_views
from bridge.commands.call_views import Known
from bridge.domain.errors import Invalid, NotFound, SettingsError, Unavailable
from bridge.domain.numbers import parse_number
from bridge.services import board, history, people
from bridge.services.access import Access, Role
from bridge.services.call_watch import CallWatch, Told
from bridge.services.stopping import stop_event
from bridge.settings import Settings, load
from bridge.store import migrate
from bridge.store.database import Sessions, open_database
from bridge.store.models import Agent, Call, Client

_LOOK_SECONDS = 1.0
_KEEP = timedelta(seconds=15)
"""How long the live table shows a call that has ended, so that its cause can be read."""
_WIDEST = 1000
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@click.command()
@click.argument("call_id", metavar="[ID]", required=False)
@click.option("--follow", "-f", is_flag=True, help="Until Ctrl-C: a live table, or in a pipe each event.")
@click.option("--all", "everything", is_flag=True, help="Also calls that are over; today's, unless --since.")
@click.option("--since", help='Calls that began since then: "2h", "3d", or a time such as "2026-03-01 09:00".')
@click.option("--until", help="Calls that began before then.")
@click.option("--state", type=click.Choice(get_args(CallState)), help="Only calls in this state.")
@click.option("--pbx", help="Only calls of this PBX of the settings.")
@click.option("--client", help="Only calls for this client company, by name or id.")
@click.option("--agent", help="Only calls that this agent talked in last, by username.")
@click.option("--number", help="Only calls from or to this customer's number.")
@click.option("--limit", type=click.IntRange(1, 200), default=100, show_default=True, help="The latest so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON as the API answers; with --follow one object a line.")
def calls(
    call_id: str | None,
    follow: bool,
    everything: bool,
    since: str | None,
    until: str | None,
    state: str | None,
    pbx: str | None,
    client: str | None,
    agent: str | None,
    number: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show the calls in progress, or with an ID, the whole history of one call in words.

    It reads the database, as everything else does, so it shows what Ringbridge takes a call for. Times without an
    offset are of this machine's time zone.
    """
    past = everything or since is not None or until is not None or state in ("ended", "merged")
    if follow and (past or call_id is not None):
        raise click.UsageError("--follow shows calls in progress; leave out the ID and what asks for calls of the past")
    if call_id is not None and (past or any((state, pbx, client, agent, number))):
        raise click.UsageError("an ID names one call; leave out what chooses among calls")
    now = datetime.now(UTC)
    begin, end = _time(since, now, "since"), _time(until, now, "until")
    settings, sessions = _open()
    try:
        if call_id is not None:
            return _one(sessions, call_id, as_json)
        with sessions.read() as db:
            columns = _columns(db, settings, state, pbx, client, agent, number)
        if follow:
            return _Following(settings, sessions, columns).run(as_json)
        if past and begin is None:
            begin = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        _list(settings, sessions, history.Wanted(begin, end, None if past else True, columns), limit, as_json)
    finally:
        sessions.close()


def _open() -> tuple[Settings, Sessions]:
    """The database, which must be there and of this version. Raises SettingsError, Unavailable."""
    settings = load()
    if not settings.pbx:
        raise SettingsError("the settings name no PBX: run `ringbridge init`, or say where they are with --config")
    try:
        url = make_url(settings.database_url)
    except ArgumentError:
        raise SettingsError("[database] url in the settings is no database URL") from None
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and not Path(file).exists():
        raise Unavailable(f"there is no database yet at {file}; `ringbridge up` makes it", part="database")
    migrate.check_current(settings)
    return settings, open_database(settings)


def _access() -> Access:
    """Whoever may read the settings and the database sees all calls."""
    return Access(agent="", username="cli", name="", role=Role.ADMINISTRATOR, clients=None)


def _columns(
    db: Session,
    settings: Settings,
    state: str | None,
    pbx: str | None,
    client: str | None,
    agent: str | None,
    number: str | None,
) -> dict[str, Any]:
    found: dict[str, Any] = {"state": state}
    if pbx is not None:
        found["pbx"] = settings.find_pbx(pbx).name
    if client is not None:
        found["client_id"] = db.scalar(select(Client.id).where((Client.name == client) | (Client.id == client)))
        if found["client_id"] is None:
            raise NotFound(f"there is no client company {client!r}")
    if agent is not None:
        found["agent_id"] = people.by_name(db, agent).id
    if number is not None:
        found["customer_number"] = _number(settings, number)
    return found


def _number(settings: Settings, text: str) -> str:
    """As the recorder writes it."""
    try:
        return parse_number(text, settings.dialing.regions[0] if settings.dialing.regions else "US")
    except Invalid:
        return text.strip()[:20]


def _time(text: str | None, now: datetime, option: str) -> datetime | None:
    if text is None:
        return None
    ago = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(
            f"--{option} {text!r} is no time; write 2h, 3d, 2026-03-01 or 2026-03-01T09:00", field=option
        ) from None


def _known(db: Session) -> Known:
    agents = {row.id: row.name for row in db.execute(select(Agent.id, Agent.name))}
    clients = {row.id: row.name for row in db.execute(select(Client.id, Client.name))}
    return Known(agents, clients)


def _console() -> Console:
    # A name in letters that this terminal lacks must not end the command.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # Into a file or a pipe a line is as long as it needs to be.
    width = None if sys.stdout.isatty() else _WIDEST
    return Console(highlight=False, markup=False, emoji=False, width=width)


def _list(settings: Settings, sessions: Sessions, wanted: history.Wanted, limit: int, as_json: bool) -> None:
    with sessions.read() as db:
        page = history.find(db, _access(), limit, None, wanted)
        known, down = _known(db), _down(db, settings)
    if as_json:
        click.echo(json.dumps([CallRow.model_validate(row).model_dump(mode="json") for row in page.rows]))
        return
    console = _console()
    if page.rows:
        # The terminal's last line is what is read first.
        console.print(call_views.table(reversed(page.rows), known, datetime.now(UTC), _width(console)))
    else:
        console.print("No call is in progress." if wanted.live else "There is no such call.")
    if page.cursor:
        console.print(f"There are more; these are the latest {len(page.rows)}.")
    for link in down:
        click.echo(f"ringbridge: {link}; what is shown may be old", err=True)


def _one(sessions: Sessions, call_id: str, as_json: bool) -> None:
    access = _access()
    with sessions.read() as db:
        try:
            call = history.get(db, access, call_id)
        except NotFound:
            shown = call_views.plain(call_id)
            raise NotFound(f"there is no call {shown}; `ringbridge calls --all` shows today's") from None
        events, changes = history.events(db, call), history.attempt_changes(db, call)
        merged, known = history.merged_calls(db, access, call), _known(db)
    if as_json:
        click.echo(json.dumps(CallFull.of(call, events, merged).model_dump(mode="json")))
        return
    _console().print(call_views.story(call, events, changes, merged, known, datetime.now(UTC)))


def _width(console: Console) -> int:
    """Of the terminal; 0 where there is none."""
    return console.width if console.is_terminal else 0


def _down(db: Session, settings: Settings) -> list[str]:
    links = board.links(db, settings, datetime.now(UTC))
    return [call_views.plain(f"{link['pbx']}: {link['detail']}") for link in links if not link["up"]]


class _Following:
    """Looks once a second until Ctrl-C; a database that is away is waited for."""

    def __init__(self, settings: Settings, sessions: Sessions, columns: dict[str, Any]) -> None:
        self._settings = settings
        self._sessions = sessions
        self._watch = CallWatch(columns, _KEEP)
        self._known = Known()
        self._notes: list[str] = []

    def run(self, as_json: bool) -> None:
        """In a terminal a live table, else a line for each event."""
        console = _console()
        stop = stop_event()
        if as_json or not console.is_terminal:
            self._lines(stop, as_json)
        else:
            self._table(stop, console)

    def _look(self) -> list[Told]:
        try:
            with self._sessions.read() as db:
                told = self._watch.look(db, datetime.now(UTC))
                self._known = _known(db)
                self._notes = _down(db, self._settings)
        except Unavailable as error:
            told, self._notes = [], [error.message]
        return told

    def _lines(self, stop: threading.Event, as_json: bool) -> None:
        said: list[str] = []
        while not stop.is_set():
            for call, event in self._look():
                click.echo(_event_json(call, event) if as_json else call_views.line(call, event, self._known))
            for note in self._notes:
                if note not in said:
                    click.echo(f"ringbridge: {note}", err=True)
            said = self._notes
            stop.wait(_LOOK_SECONDS)

    def _table(self, stop: threading.Event, console: Console) -> None:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            while not stop.is_set():
                self._look()
                live.update(self._picture(console.width, console.height), refresh=True)
                stop.wait(_LOOK_SECONDS)

    def _picture(self, width: int, height: int) -> Any:
        now = datetime.now(UTC)
        rows = self._watch.calls()
        room = max(1, height - 6 - len(self._notes))
        count = sum(row.ended_at is None for row in rows)
        words = f"{call_views.clock(now)}  {count or 'No'} call{'' if count == 1 else 's'} in progress"
        if len(rows) > room:
            words += f", the latest {room} are shown"
        return call_views.picture(rows[-room:], self._known, now, width, words, self._notes)


def _event_json(call: Call, event: Any) -> str:
    """The event as `rb:calls` has it, and the call as it is by now."""
    told = CallEventShape.model_validate(event).model_dump(mode="json")
    now = CallRow.model_validate(call).model_dump(mode="json")
    return json.dumps({"call": call.id, "pbx": call.pbx, **told, "now": now})
