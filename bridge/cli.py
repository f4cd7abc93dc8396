"""The command `ringbridge`: a table of commands, loaded when they are called.

Exit codes: 0 done, 1 something failed (a check, a bench, a child of `up`), 2 the command line or a value on it is
wrong, 3 the settings are wrong, 4 a part that is needed does not answer, 5 not there or not allowed, 6 it is in
another state than the command needs (such as already running).
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from bridge import __version__
from bridge.domain.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    RingbridgeError,
    SettingsError,
    StateError,
    Unavailable,
)

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("bridge.commands.init:init", "Write the settings and what the PBX needs, after asking."),
    "check": ("bridge.commands.check:check", "Inspect a live PBX and say what to change there."),
    "uninstall": ("bridge.commands.uninstall:uninstall", "Take out of the PBX what init put in."),
    "dialing": ("bridge.commands.dialing:dialing", "Stop all dialling at once, or allow it again."),
    "calls": ("bridge.commands.calls:calls", "Show the calls in progress, and the history of one."),
    "user": ("bridge.commands.user:user", "Add people who may sign in, and change their passwords."),
    "import": ("bridge.commands.importing:importing", "Bring prices, or numbers not to call, as CSV."),
    "up": ("bridge.commands.up:up", "Run everything in one foreground process tree."),
    "listen": ("bridge.commands.listen:listen", "Run the link to one PBX."),
    "pops": ("bridge.commands.pops:pops", "Run the builder of screen pops."),
    "recorder": ("bridge.commands.recorder:recorder", "Run the writer of calls into the database."),
    "scheduler": ("bridge.commands.scheduler:scheduler", "Run the clock that finds what is due."),
    "worker": ("bridge.commands.worker:worker", "Run a worker of one job queue."),
    "api": ("bridge.commands.api:api", "Run the web: pages, REST and event streams."),
    "lab": ("ringbridge_lab.commands:lab", "Bring up a real PBX on this machine to try things on."),
    "record": ("bridge.commands.record:record", "Record what a PBX says into a file."),
    "replay": ("bridge.commands.replay:replay", "Serve a recording as the PBX would."),
    "db": ("bridge.commands.db:db", "Upgrade, back up or restore the database."),
    "bench": ("bridge.commands.bench:bench", "Measure a running Ringbridge."),
}

EXIT_CODES: tuple[tuple[type[RingbridgeError], int], ...] = (
    (SettingsError, 3),
    (Unavailable, 4),
    (Invalid, 2),
    (NotFound, 5),
    (Forbidden, 5),
    (Conflict, 6),
    (StateError, 6),
)
"""The first class that fits decides; any other RingbridgeError is 1."""


def exit_code(error: RingbridgeError) -> int:
    """What the process ends with when this error stops it."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def sentence(error: BaseException) -> tuple[str, int] | None:
    """One sentence for people and an exit code; None where it is a fault of ours that needs its traceback."""
    if isinstance(error, RingbridgeError):
        return error.message, exit_code(error)
    home = type(error).__module__.partition(".")[0]
    name = type(error).__name__
    if home == "redis" and name in {"ConnectionError", "TimeoutError", "BusyLoadingError"}:
        return "Redis does not answer; is `ringbridge up` running, and is [redis] url right?", 4
    if home == "sqlalchemy" and name == "OperationalError":
        return f"The database does not answer or refuses: {getattr(error, 'orig', None) or name}", 4
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("ringbridge_lab"):
        return "The lab is not part of this installation; run it from a clone of Ringbridge.", 5
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"The system refused: {error.strerror}{where}.", 1
    return None


class Commands(click.Group):
    """Knows the names and one line of each; imports a command only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ringbridge")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The settings file; else $RINGBRIDGE_CONFIG, ./ringbridge.toml, /etc/ringbridge/ringbridge.toml.",
)
def cli(config: Path | None) -> None:
    """An internet call centre beside the Asterisk or FreeSWITCH you already run."""
    if config is not None:
        # Processes that a command starts must read the same file.
        os.environ["RINGBRIDGE_CONFIG"] = str(config.resolve())


def main(args: list[str] | None = None) -> Any:
    """Run and exit; a person's mistake is one sentence on stderr and never a traceback."""
    try:
        result = cli.main(args=args, prog_name="ringbridge", standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.Abort:
        click.echo("Stopped; nothing more was done.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        told = sentence(error)
        if told is None:
            raise
        click.echo(f"ringbridge: {told[0]}", err=True)
        sys.exit(told[1])
    sys.exit(result if isinstance(result, int) else 0)


if __name__ == "__main__":
    main()
