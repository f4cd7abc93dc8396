"""`ringbridge api`: pages, REST and event streams."""

from __future__ import annotations

import click

from bridge import log
from bridge.settings import load


@click.command()
def api() -> None:
    """Run the web: pages, REST and event streams. Ends in order on Ctrl-C or SIGTERM."""
    settings = load()
    log.configure(settings)
    # Imported here: `--help` should not wait for gevent.
    from bridge.api.serve import serve

    serve(settings)
