"""`ringbridge record`: what a PBX says, byte for byte, into a file."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Literal

import click

from bridge.domain.errors import Conflict, SettingsError
from bridge.pbx.recording import Recorder
from bridge.pbx.trace import Row, line
from bridge.settings import load


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--pbx", "name", help="Which PBX of the settings (default: the first).")
@click.option("--seconds", type=click.FloatRange(0), help="Stop after so long (default: at Ctrl-C).")
@click.option("--everything", is_flag=True, help="FreeSWITCH: all its events, for a user who may hear all.")
@click.option(
    "--encoding",
    type=click.Choice(["json", "plain"]),
    default="json",
    show_default=True,
    help="FreeSWITCH: how events are written.",
)
@click.option(
    "--mask-numbers",
    is_flag=True,
    help="Put another number in the place of each of seven digits or more in a row; names and '(646) 555-0101' stay.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line when it begins and one when it ends.")
def record(
    file: Path,
    name: str | None,
    seconds: float | None,
    everything: bool,
    encoding: Literal["json", "plain"],
    mask_numbers: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Record the event socket of a PBX into FILE, with timing; compressed where its name ends in .gz.

    It signs in as the user that reads events, on a connection of its own, and only listens. The secret is never
    written. Anything else that the PBX says is, names and numbers of callers too: keep the file as you keep those.
    """
    settings = load()
    if not settings.pbx:
        raise SettingsError("the settings name no PBX: run `ringbridge init`")
    pbx = settings.pbx[0] if name is None else settings.find_pbx(name)
    if file.exists() and not overwrite:
        raise Conflict(f"{file} is there already; give another name, or --overwrite")
    with ExitStack() as stack:
        early: list[Row] = []
        out: list[Callable[[bytes], object]] = []

        def write(row: Row) -> None:
            # What was there is replaced by a recording only, never by a sign-in that failed.
            if out:
                out[0](line(row))
            else:
                early.append(row)

        def ready() -> None:
            out.append(_opened(file, overwrite, stack))
            for row in early:
                write(row)
            _say_began(file, pbx.name, recorder.began, seconds, as_json)

        recorder = Recorder(pbx, write, everything=everything, encoding=encoding, mask_numbers=mask_numbers)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: recorder.stop())
        recorder.run(seconds, ready)
    result = {"events": recorder.events, "bytes": recorder.bytes, "ended_by_pbx": recorder.ended_by_pbx}
    if as_json:
        click.echo(json.dumps(result))
    else:
        ended = "; the PBX closed the connection" if recorder.ended_by_pbx else ""
        click.echo(f"{recorder.events} events, {recorder.bytes} bytes{ended}")


def _say_began(file: Path, pbx: str, began: datetime, seconds: float | None, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"recording": str(file), "pbx": pbx, "began": began.isoformat()}))
    else:
        ending = "Ctrl-C ends it" if seconds is None else f"for {seconds:g} s"
        click.echo(f"Recording {pbx} into {file}; {ending}. t = 0 is {began.isoformat()}.")


def _opened(file: Path, overwrite: bool, stack: ExitStack) -> Callable[[bytes], object]:
    """Only the owner may read it: it holds names and numbers."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL)
    raw = stack.enter_context(os.fdopen(os.open(file, flags, 0o600), "wb", buffering=0))
    if file.suffix != ".gz":
        return raw.write
    return stack.enter_context(gzip.GzipFile(fileobj=raw, mode="wb")).write
