"""`ringbridge replay`: a recording, served as the PBX would."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import click

from bridge.pbx.replaying import Replay, read

_NAMES = {"asterisk": "Asterisk", "freeswitch": "FreeSWITCH"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on (default: a free one).")
@click.option("--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="Times as fast.")
@click.option("--fast", is_flag=True, help="As fast as it goes.")
@click.option("--chunk", type=click.IntRange(1), default=65536, help="Send so many bytes at a time; 1 is byte by byte.")
@click.option("--repeat", type=click.IntRange(1), default=1, show_default=True, help="Play it so many times.")
@click.option("--exit", "leave", is_flag=True, help="End with the recording (default: serve on until Ctrl-C).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line when it serves and one when it has played.")
def replay(
    file: Path,
    host: str,
    port: int,
    speed: float,
    fast: bool,
    chunk: int,
    repeat: int,
    leave: bool,
    as_json: bool,
) -> None:
    """Serve a recording of `ringbridge record` as the PBX would, to a Ringbridge or any other client.

    Every secret signs in. Playing begins with the first client that hears events; each hears what it subscribed to.
    Calls of the recording come with their own times and numbers.
    """
    recording = read(file)
    stand_in = Replay(recording, host=host, port=port)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stand_in.stop())
    with stand_in.server as server:
        told = {"kind": recording.kind, "host": host, "port": server.port, "events": recording.events}
        seconds = round(recording.seconds, 1)
        if as_json:
            click.echo(json.dumps({**told, "seconds": seconds}))
        else:
            kind = _NAMES[recording.kind]
            click.echo(f"{kind} on {host}:{server.port}: {recording.events} events of {seconds:g} s; Ctrl-C ends it.")
        played = 0
        while played < repeat and stand_in.play(speed=None if fast else speed, chunk=chunk):
            played += 1
        often = "once" if played == 1 else f"{played} times"
        click.echo(json.dumps({"played": played}) if as_json else f"Played {often}.")
        if not leave and played == repeat:
            stand_in.wait()
