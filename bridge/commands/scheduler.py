"""`ringbridge scheduler`: the clock that finds what is due."""

from __future__ import annotations

import click

from bridge import log, settings


@click.command()
def scheduler() -> None:
    """Run the clock that finds what is due.

    Once a second it asks a worker of the queue `default` to look for callbacks that are due and for whatever a
    crash left behind. Two of them do no harm.
    """
    from bridge.services import scheduler as service
    from bridge.services.last_words import last_words

    loaded = settings.load()
    log.configure(loaded)
    with last_words("scheduler"):
        service.run(loaded)
