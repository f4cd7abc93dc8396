"""`ringbridge import`: tables of any length, read line by line, into the database."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console
from rich.progress import Progress, TaskID
from sqlalchemy import or_, select

from bridge.domain.csv_lines import LONGEST_LINE, Imported
from bridge.domain.errors import NotFound
from bridge.services import dnc, prices
from bridge.services.access import Access, Role
from bridge.settings import load
from bridge.store.database import Sessions, open_database
from bridge.store.models import Client

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, readable=True))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(name="import")
def importing() -> None:
    """Bring tables as CSV. What is wrong is said by line; the exit code is then 1."""


@importing.command(name="prices")
@_FILE
@click.option("--replace", is_flag=True, help="In the place of the whole table that is there.")
@_JSON
def import_prices(file: Path, replace: bool, as_json: bool) -> None:
    """Take a table of prices by prefix, all of it or, where one line is wrong, nothing.

    Columns: prefix, per_minute, currency, setup, first_seconds, next_seconds, name; the first line may name them.
    """
    database = open_database(load())
    try:
        with _table(file) as lines:
            done = prices.take(database, _operator(), datetime.now(UTC), lines, replace=replace)
    finally:
        database.close()
    _tell(done, "prices", as_json, nothing=bool(done.bad))


@importing.command(name="dnc")
@_FILE
@click.option("--client", required=True, help="Whose list it is: the client's id or name.")
@_JSON
def import_dnc(file: Path, client: str, as_json: bool) -> None:
    """Take numbers that a client must not call; a bad line stops no other, and running it again does no harm.

    Columns: number, note; the first line may name them. National numbers are read in the client's region.
    """
    settings = load()
    database = open_database(settings)
    try:
        whose = _client(database, client)
        with _table(file) as lines:
            done = dnc.take(database, settings, _operator(), datetime.now(UTC), whose, lines)
    finally:
        database.close()
    _tell(done, "numbers", as_json, nothing=False)


@contextmanager
def _table(path: Path) -> Iterator[Iterator[str]]:
    """A file's lines, with a bar where somebody watches."""
    console = Console(stderr=True)
    with path.open(encoding="utf-8-sig", errors="replace") as file, Progress(
        console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        yield _lines(file, bar, bar.add_task(path.name, total=path.stat().st_size))


def _lines(file: TextIO, bar: Progress, task: TaskID) -> Iterator[str]:
    """A line without end is cut, and told as too long."""
    while text := file.readline(LONGEST_LINE + 2):
        size, end = len(text), text
        while not end.endswith("\n") and (end := file.readline(LONGEST_LINE)):
            size += len(end)
        bar.advance(task, size)
        yield text.rstrip("\r\n")


def _client(database: Sessions, named: str) -> str:
    with database.read() as db:
        found = db.scalar(select(Client.id).where(or_(Client.id == named, Client.name == named)))
    if found is None:
        raise NotFound("there is no client of that id or name")
    return found


def _operator() -> Access:
    """Whoever may read the settings and the database."""
    return Access(agent="", username=f"cli:{getpass.getuser()}", name="", role=Role.ADMINISTRATOR, clients=None)


def _tell(done: Imported, what: str, as_json: bool, *, nothing: bool) -> None:
    if as_json:
        faults = [{"line": each.line, "code": each.code, "message": each.message} for each in done.faults]
        told = {"taken": done.taken, "already": done.already, "bad": done.bad, "faults": faults}
        click.echo(json.dumps(told))
    else:
        for each in done.faults:
            click.echo(f"line {each.line}: {each.message}", err=True)
        if done.bad > len(done.faults):
            click.echo(f"... and {done.bad - len(done.faults)} more lines", err=True)
        there = f", {done.already} were there already" if done.already else ""
        end = ": nothing was changed." if nothing else "."
        click.echo(f"{done.taken} {what} taken{there}, {done.bad} lines are wrong{end}")
    if done.bad:
        raise SystemExit(1)
