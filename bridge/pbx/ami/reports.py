"""What the PBX says of an action: events are shown to whoever waits for the outcome of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from bridge.pbx.ami.codec import Message
from bridge.pbx.port import Outcome
from bridge.uptime import uptime

Judge = Callable[[Message], Outcome | None]
"""Says what an event means for one action; None for nothing."""


class Watch:
    """The outcome of one action, once an event tells it."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def hear(self, message: Message) -> None:
        """Judge one event."""
        if not self._told.done():
            outcome = self._judge(message)
            if outcome is not None:
                self._told.set_result(outcome)

    async def outcome(self, until: float) -> Outcome | None:
        """What was told, by then (uptime); None where nothing was."""
        try:
            async with asyncio.timeout(max(0.0, until - uptime())):
                return await asyncio.shield(self._told)
        except TimeoutError:
            return None


class Reports:
    """Everybody who waits for an outcome. All of it runs in the link's loop."""

    def __init__(self) -> None:
        self._watches: list[Watch] = []

    def hear(self, messages: Iterable[Message]) -> None:
        """Events in order, after the tracker has heard them."""
        if not self._watches:
            return
        for message in messages:
            for watch in self._watches:
                watch.hear(message)

    @contextmanager
    def watch(self, judge: Judge) -> Iterator[Watch]:
        """From now on every event is judged; to be entered before the action is sent."""
        watch = Watch(judge)
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.remove(watch)
