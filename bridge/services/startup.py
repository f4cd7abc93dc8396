"""What `ringbridge up` checks before it starts anything, and which processes it then keeps running."""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from redis.exceptions import RedisError

from bridge.domain.errors import Conflict, SettingsError, Unavailable
from bridge.live.connection import connect
from bridge.services.supervisor import Child
from bridge.settings import Settings

_WEB, _WORK, _RECORD, _LINK, _REDIS = range(10, 60, 10)
"""Ranks of stopping: the web takes no more, the workers finish their job, what was heard is written, the links go, then
Redis."""


def check_settings(settings: Settings) -> None:
    """Raises SettingsError with what is missing for `up`."""
    if not settings.pbx:
        raise SettingsError(
            "the settings name no PBX: run `ringbridge init`, or write a [[pbx]] table into ringbridge.toml"
        )
    for pbx in settings.pbx:
        pbx.read_secret()
        if settings.dialing.mode == "dial":
            pbx.read_command_secret()


def lock_data_dir(settings: Settings) -> int:
    """Make the data directory and lock it. Returns the open lock file. Raises SettingsError and Conflict.

    The lock goes with the last process that has the file open: us, or the guard that outlives us.
    """
    path = settings.data_dir / "up.lock"
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(
            f"the data directory {settings.data_dir} cannot be used: {error.strerror}; set data_dir"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise Conflict(
            f"`ringbridge up` already runs on {settings.data_dir} (process {holder}), or is still stopping; "
            "stop that one first, or set another data_dir"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def split_bind(bind: str) -> tuple[str, int]:
    """The address and port of [http] bind; an IPv6 address may stand in brackets."""
    host, _, port = bind.rpartition(":")
    return host.strip("[]"), int(port)


def check_port(settings: Settings) -> None:
    """Raises Conflict where another program listens on [http] bind, SettingsError where we may not."""
    host, port = split_bind(settings.http.bind)
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror:
        raise SettingsError(f"[http] bind: {host!r} is no address of this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"{settings.http.bind} is taken by another program; stop it, or set another [http] bind"
            ) from None
        raise SettingsError(f"[http] bind {settings.http.bind}: {error.strerror}") from None


def check_redis(settings: Settings) -> None:
    """Raises Unavailable where the Redis that the settings name does not answer."""
    if settings.redis.url is None:
        return
    try:
        connect(settings).ping()
    except (RedisError, OSError) as error:
        raise Unavailable(
            f"the Redis of [redis] url does not answer ({type(error).__name__}); start it, or take the url "
            "out of the settings for a private one"
        ) from None


def redis_child(command: tuple[str, ...]) -> Child:
    return Child("redis", command, _REDIS, 20)


def children(settings: Settings) -> Sequence[Child]:
    """Everything but Redis."""

    def ringbridge(name: str, rank: int, stop_seconds: float, *arguments: str) -> Child:
        # -P: a folder named `bridge` where we happen to stand is not ours.
        command = (sys.executable, "-P", "-m", "bridge.cli", *arguments)
        return Child(name, command, rank, stop_seconds, {"PYTHONUNBUFFERED": "1"})

    # The longest job waits for one command's deadline and reply.
    job_seconds = settings.dialing.command_deadline_seconds + 10
    return (
        *(ringbridge(f"listen {p.name}", _LINK, 10, "listen", "--pbx", p.name) for p in settings.pbx),
        ringbridge("recorder", _RECORD, 15, "recorder"),
        ringbridge("pops", _RECORD, 10, "pops"),
        ringbridge("worker dial", _WORK, job_seconds, "worker", "--queue", "dial"),
        ringbridge("worker default", _WORK, job_seconds, "worker", "--queue", "default"),
        ringbridge("scheduler", _WEB, 10, "scheduler"),
        ringbridge("api", _WEB, 15, "api"),
    )


def web_answers(settings: Settings) -> bool:
    """Whether /healthz says 200 now; waits for at most half a second."""
    host, port = split_bind(settings.http.bind)
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(here, port, timeout=0.5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def redis_answers(settings: Settings) -> bool:
    """Whether Redis answers and has read its file."""
    try:
        return bool(connect(settings).ping())
    except (RedisError, OSError):
        return False


def notify_systemd(state: str) -> None:
    """Tell systemd (Type=notify) that we are ready or stopping; does nothing where it did not ask."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.sendall(state.encode())


def remove_stale(path: Path) -> None:
    """Take away a socket that a killed server left."""
    path.unlink(missing_ok=True)
