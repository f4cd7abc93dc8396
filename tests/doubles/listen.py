"""A listener in a process of its own, on a scripted PBX: `python listen.py SETTINGS PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

from bridge import log, settings
from bridge.services import listener
from bridge.services.last_words import last_words
from doubles.scripted_pbx import ScriptedLink


def main() -> None:
    loaded = settings.load(Path(sys.argv[1]), {})
    log.configure(loaded)
    with last_words("listen"):
        listener.run(loaded, "lab", lambda _pbx, sink: ScriptedLink(int(sys.argv[2]), sink))


if __name__ == "__main__":
    main()
