"""`ringbridge api`: the edge in this process, REST in a child that is started again whenever it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

import gevent
import structlog
from gevent.event import Event

import bridge.screen
from bridge.api.edge import Edge
from bridge.api.handover import dump_settings
from bridge.api.server import allow_many_files, listen, make_server
from bridge.api.upstream import Upstream
from bridge.domain.errors import SettingsError
from bridge.settings import Settings

log = structlog.get_logger(__name__)

DRAIN_SECONDS = 4.0
REST_SECONDS = 9.0
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_SECONDS = 30.0
_SOCKET_LIMIT = 100
"""Bytes that a unix socket's path may have, with room for gunicorn's own additions."""


class RestChild:
    """REST as a child process. `running` is false only between its end and the next start."""

    def __init__(self, settings: Settings, path: str) -> None:
        self._settings = settings
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def start(self) -> None:
        """Start it, and keep it running from a greenlet."""
        self._spawn()
        gevent.spawn(self._watch)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def running(self) -> bool:
        return not self._stopping

    def stop(self) -> None:
        """SIGTERM, then SIGKILL past its time."""
        self._stopping = True
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        deadline = monotonic() + REST_SECONDS
        while process.poll() is None and monotonic() < deadline:
            gevent.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()

    def _spawn(self) -> None:
        # -P: a folder named `bridge` where we happen to stand is not ours.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bridge.api.rest", self._path],
            stdin=subprocess.PIPE,
            # Ctrl-C is for the edge, which stops this child in order.
            process_group=0,
        )
        if process.stdin is not None:
            try:
                process.stdin.write(dump_settings(self._settings).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                log.error("REST ended before it read its settings")
        self._process = process

    def _watch(self) -> None:
        failures, began = 0, monotonic()
        while not self._stopping:
            gevent.sleep(0.1)
            process = self._process
            if process is None or process.poll() is None:
                continue
            if process.stdin is not None:
                process.stdin.close()
            if monotonic() - began > _STEADY_SECONDS:
                failures = 0
            log.error("REST ended; it is started again", status=process.returncode)
            gevent.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1
            if not self._stopping:
                began = monotonic()
                self._spawn()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises Conflict where the port is taken, SettingsError where we may not listen."""
    allow_many_files()
    sock = listen(settings.http.bind)
    folder = socket_folder(settings)
    path = folder / f"rest-{os.getpid()}.sock"
    _remove_stale(folder)
    rest = RestChild(settings, str(path))
    edge = Edge(settings, Upstream(str(path), rest.running), Path(bridge.screen.__file__).parent / "static")
    server = make_server(sock, edge)
    stop = Event()
    watchers = [gevent.signal_handler(number, stop.set) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        rest.start()
        edge.start()
        server.start()
        log.info("web is up", address=settings.http.bind)
        stop.wait()
        log.info("web is stopping")
        edge.drain()
        server.stop(timeout=DRAIN_SECONDS)
    finally:
        rest.stop()
        for watcher in watchers:
            watcher.cancel()
        path.unlink(missing_ok=True)
        if folder != settings.data_dir:
            folder.rmdir()


def socket_folder(settings: Settings) -> Path:
    """A folder of ours for the private socket: the data directory, or a short one where its path is too long."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"data_dir {settings.data_dir} cannot be made: {error.strerror}") from None
    if len(os.fsencode(settings.data_dir / "rest-1234567.sock")) < _SOCKET_LIMIT:
        return settings.data_dir
    return Path(tempfile.mkdtemp(prefix="ringbridge-"))


def _remove_stale(folder: Path) -> None:
    """Sockets of edges that were killed; a process that lives keeps its own."""
    for path in folder.glob("rest-*.sock"):
        pid = path.stem.removeprefix("rest-")
        if pid.isdigit():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                path.unlink(missing_ok=True)
            except PermissionError:
                continue
