"""The REST process: gunicorn with threads, on a private unix socket, started by the edge.

Run as `python -m bridge.api.rest SOCKET`. The first line of standard input is the settings as JSON; when the input
ends, the edge is gone, and so are we.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from gunicorn.app.base import BaseApplication

from bridge import log
from bridge.api.app import create_app
from bridge.api.handover import read_settings
from bridge.settings import Settings

GRACE_SECONDS = 8
KEEP_SECONDS = 75
"""How long the edge's idle connections are kept; it drops them sooner."""
_STUCK_SECONDS = 60


class Rest(BaseApplication):  # type: ignore[misc]  # gunicorn's class is untyped
    """gunicorn, told what to do by arguments instead of by its command line."""

    def __init__(self, settings: Settings, path: str) -> None:
        self._settings = settings
        self._path = path
        super().__init__()

    def load_config(self) -> None:
        for name, value in {
            "bind": f"unix:{self._path}",
            "umask": 0o177,
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._settings.http.threads,
            "timeout": _STUCK_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "keepalive": KEEP_SECONDS,
            "loglevel": "warning",
            "accesslog": None,
            "control_socket_disable": True,
            "proc_name": "ringbridge-rest",
            "limit_request_line": 8190,
            "post_worker_init": _begin,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        log.configure(self._settings)
        return create_app(self._settings)


def _begin(_worker: Any) -> None:
    # The worker ends with its master; the edge's pipe is none of its business.
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)
    # A request lets go of the interpreter at each statement of its transaction, while others wait for the database: it
    # must not wait for the usual 5 ms to get it back.
    sys.setswitchinterval(0.001)


def _end_with_the_edge() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            sys.exit("rest: the edge sent no settings")
        line += piece
    settings = read_settings(line.decode())
    log.configure(settings)
    threading.Thread(target=_end_with_the_edge, daemon=True).start()
    Rest(settings, sys.argv[1]).run()


if __name__ == "__main__":
    main()
