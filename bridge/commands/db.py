"""`ringbridge db`: the database's shape and its backups."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from bridge import log, settings


@click.group()
def db() -> None:
    """Upgrade, verify, back up or restore the database."""


@db.command()
def upgrade() -> None:
    """Bring the database to this version, all or nothing. Does nothing where it is there already."""
    from bridge.store import migrate

    loaded = settings.load()
    log.configure(loaded)
    before, after = migrate.upgrade(loaded)
    if before == after:
        click.echo(f"The database is up to date ({after}).")
    else:
        click.echo(f"The database went from {before or 'nothing'} to {after}.")


@db.command("verify-consent")
def verify_consent() -> None:
    """Check that no entry of the record of consent was changed, added or removed; exit code 1 where one was.

    The last seal of a site, written down elsewhere, shows later whether the record's end was cut off.
    """
    from bridge.services import consents
    from bridge.store.database import open_database

    loaded = settings.load()
    log.configure(loaded)
    database = open_database(loaded)
    try:
        found = consents.verify(database, loaded.secret_key())
    finally:
        database.close()
    for site in found:
        click.echo(f"site {site.site}: {site.entries} entries, last seal {site.last}: {site.fault or 'as written'}")
    if not found:
        click.echo("Nobody has agreed to anything yet.")
    if any(site.fault for site in found):
        raise SystemExit(1)


@db.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(file: Path) -> None:
    """Write a consistent copy to FILE while Ringbridge runs."""
    from bridge.store import backup as store

    loaded = settings.load()
    log.configure(loaded)
    store.backup(loaded, file)
    size = file.stat().st_size / 1e6
    click.echo(
        f"Written to {file} ({size:.1f} MB). It holds personal data: keep it where only you can read it."
    )


@db.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(file: Path, yes: bool) -> None:
    """Put the backup in FILE in place of the database. Stop Ringbridge first.

    Dialling is stopped afterwards, since the backup does not know who was called after it was made.
    """
    from bridge.store import backup as store

    loaded = settings.load()
    log.configure(loaded)
    if not yes:
        click.confirm("Everything that was written since this backup goes away. Go on?", abort=True)
    kept = store.restore(loaded, file, now=datetime.now(UTC))
    click.echo(f"Restored from {file}." + (f" The former database is kept as {kept}." if kept else ""))
    click.echo(
        "Dialling is stopped: the backup does not know who was called since. Look through the callbacks, "
        "then run: ringbridge dialing start"
    )
