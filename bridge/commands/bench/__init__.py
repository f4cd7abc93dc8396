"""`ringbridge bench`: how fast a Ringbridge is that runs on this machine, with the lab as its PBX."""

from __future__ import annotations

import click

from bridge.commands.bench.callbacks import callbacks
from bridge.commands.bench.esl import esl
from bridge.commands.bench.listener import listener
from bridge.commands.bench.posts import posts


@click.group()
def bench() -> None:
    """Measure Ringbridge. Where it calls, the lab must be its PBX: real numbers would be dialled otherwise."""


for command in (callbacks, posts, listener, esl):
    bench.add_command(command)
