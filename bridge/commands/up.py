"""`ringbridge up`: everything on one machine, in one foreground process tree."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable

import click

from bridge import __version__
from bridge.domain.errors import Unavailable
from bridge.log import mask_text
from bridge.services import private_redis, startup
from bridge.services.supervisor import Supervisor
from bridge.settings import Settings, load, settings_path

REDIS_START_SECONDS = 120.0
"""Reading a long append-only file takes time."""
WEB_START_SECONDS = 90.0
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")


def _printer(as_json: bool, width: int) -> Callable[[str, str], None]:
    """Prints a child's line: behind its name, or as JSON as it is."""
    colours: dict[str, str] = {}
    supply = itertools.cycle(_COLOURS)

    def say(name: str, line: str) -> None:
        if as_json:
            # A child's own JSON line is masked already; anything else it printed is wrapped.
            text = line if line.startswith("{") else json.dumps({"process": name, "event": mask_text(line)})
        else:
            colour = colours.setdefault(name, next(supply))
            text = f"{click.style(name.ljust(width), fg=colour)} | {mask_text(line)}"
        try:
            click.echo(text)
        except OSError:
            # The terminal is gone; stopping in order matters more than saying so.
            return

    return say


def _summary(settings: Settings) -> str:
    mode = "observe only: nothing is dialled" if settings.dialing.mode == "observe" else "on"
    links = ", ".join(f"{pbx.name} ({pbx.kind} at {pbx.host}:{pbx.port})" for pbx in settings.pbx)
    rows = {
        "address": settings.http.url,
        "PBX": links,
        "dialling": mode,
        "data": str(settings.data_dir),
        "settings": str(settings_path() or "environment"),
        "to stop": "Ctrl-C; calls in progress go on, for they belong to the PBX",
    }
    lines = [f"Ringbridge {__version__} is up.", *(f"  {name:<9} {value}" for name, value in rows.items())]
    return "\n".join(["", *lines, ""])


@click.command()
@click.option("--check-only", is_flag=True, help="Check what can be checked before starting, then end.")
def up(check_only: bool) -> int:
    """Run the listener, the web, the workers and the scheduler, and a private Redis where no [redis] url is set.

    Ctrl-C (or SIGTERM) stops them in order. Ends with 0 when all stopped by themselves, 1 when one had to be killed or
    the web never came up; what is missing or taken is said before anything starts.
    """
    settings = load()
    startup.check_settings(settings)
    lock = startup.lock_data_dir(settings)
    startup.check_port(settings)
    startup.check_redis(settings)
    redis_command = private_redis.prepare(settings) if settings.redis.url is None else None
    if check_only:
        click.echo("Nothing stands in the way of `ringbridge up`.")
        return 0
    path = settings_path()
    if path is not None:
        os.environ["RINGBRIDGE_CONFIG"] = str(path.resolve())

    children = startup.children(settings)
    width = max(len(child.name) for child in children)
    say = _printer(settings.log.format == "json", width)
    supervisor = Supervisor(say, lock_fd=lock)
    supervisor.catch_signals()
    try:
        web_up = _start(settings, supervisor, redis_command, say)
        if web_up or supervisor.asked_to_stop:
            supervisor.run()
    finally:
        if supervisor.asked_to_stop:
            say("up", "stopping; once more to stop at once")
        startup.notify_systemd("STOPPING=1")
        in_order = supervisor.stop()
    say("up", "stopped" if in_order else "stopped, but not all in order")
    return 0 if in_order and supervisor.asked_to_stop else 1


def _start(
    settings: Settings,
    supervisor: Supervisor,
    redis_command: tuple[str, ...] | None,
    say: Callable[[str, str], None],
) -> bool:
    """Start everything in order. True once the web answers, or when asked to stop before. Raises Unavailable."""
    # Imported here: SQLAlchemy and Alembic take a while, and the checks before need neither.
    from bridge.store.database import upgrade

    if redis_command is not None:
        startup.remove_stale(settings.redis_socket)
        supervisor.start(startup.redis_child(redis_command))
        if not supervisor.run(lambda: startup.redis_answers(settings), REDIS_START_SECONDS):
            if supervisor.asked_to_stop:
                return False
            raise Unavailable(f"the private Redis does not start: {private_redis.last_words(settings)}")
    upgrade(settings)
    for child in startup.children(settings):
        supervisor.start(child)
    if not supervisor.run(lambda: startup.web_answers(settings), WEB_START_SECONDS):
        if not supervisor.asked_to_stop:
            say("up", f"the web did not answer on {settings.http.bind} within {WEB_START_SECONDS:g} s")
        return False
    click.echo(_summary(settings))
    startup.notify_systemd("READY=1")
    return True
