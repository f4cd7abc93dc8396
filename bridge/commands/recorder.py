"""`ringbridge recorder`: the writer of calls into the database."""

from __future__ import annotations

import click

from bridge import log, settings


@click.command()
def recorder() -> None:
    """Run the writer of calls into the database.

    Reads call events from Redis, writes them to SQL, and moves attempts and callbacks on. Nothing is lost while it
    is stopped: it goes on where it left off.
    """
    from bridge.services import recorder as service
    from bridge.services.last_words import last_words

    loaded = settings.load()
    log.configure(loaded)
    with last_words("recorder"):
        service.run(loaded)
