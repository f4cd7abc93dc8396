"""How a link reads: at once, and of very much the rest ten milliseconds later."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.wire import Wire
from bridge.pbx.connecting import GATHER_SECONDS

EVENT = b"Event: Newstate\r\nUniqueid: 1.1\r\nChannelState: 6\r\n\r\n"


class Transport:
    """Notes when reading is paused, and for how long."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.resumed = asyncio.Event()

    def pause_reading(self) -> None:
        self.said.append("pause")

    def resume_reading(self) -> None:
        self.said.append("resume")
        self.resumed.set()

    def get_extra_info(self, name: str) -> Any:
        return None


def heard(copies: int) -> tuple[int, list[str]]:
    """So many events at once: how many were heard, and what reading did. In a thread: this one may have a loop."""
    found: list[tuple[int, list[str]]] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(_heard(copies))))
    thread.start()
    thread.join()
    return found[0]


async def _heard(copies: int) -> tuple[int, list[str]]:
    heard: list[Message] = []
    transport = Transport()
    wire = Wire(heard.extend, lambda reason: None)
    wire.transport = transport  # type: ignore[assignment]
    wire.data_received(b"Asterisk Call Manager/11.0.0\r\n")
    wire.data_received(EVENT * copies)
    if transport.said:
        began = asyncio.get_running_loop().time()
        await asyncio.wait_for(transport.resumed.wait(), 30)
        assert asyncio.get_running_loop().time() - began >= GATHER_SECONDS / 2
    return len(heard), transport.said


def test_few_events_are_read_at_once() -> None:
    assert heard(3) == (3, [])


def test_of_very_many_more_is_left_to_come_and_then_read() -> None:
    assert heard(200) == (200, ["pause", "resume"])


def test_who_is_late_leaves_nothing() -> None:
    assert heard(4000) == (4000, [])
