"""How a long-running process hears that it shall end: SIGTERM or SIGINT set an event, the work at hand is finished."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def stop_event() -> threading.Event:
    """An event that is set on SIGTERM and SIGINT; call it in the main thread."""
    event = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        event.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return event
