"""`ringbridge listen`: the link to one PBX."""

from __future__ import annotations

import click

from bridge import log, settings


@click.command()
@click.option("--pbx", "name", required=True, help="Name of the PBX in the settings.")
def listen(name: str) -> None:
    """Run the link to one PBX.

    Publishes its calls and carries out dials and hang-ups. A second one for the same PBX stands by, and takes over
    within five seconds when the first is gone.
    """
    from bridge.services import listener
    from bridge.services.last_words import last_words

    loaded = settings.load()
    log.configure(loaded)
    with last_words("listen"):
        listener.run(loaded, name)
