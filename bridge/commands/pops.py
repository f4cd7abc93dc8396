"""`ringbridge pops`: the builder of screen pops."""

from __future__ import annotations

import click

from bridge import log, settings


@click.command()
def pops() -> None:
    """Run the builder of screen pops.

    Reads call events from Redis and tells each agent's page who is calling, for which client company,
    and what to say. One process builds at a time; a second one waits and takes over within seconds.
    """
    from bridge.services import screen_pop
    from bridge.services.last_words import last_words

    loaded = settings.load()
    log.configure(loaded)
    with last_words("pops"):
        screen_pop.run(loaded)
