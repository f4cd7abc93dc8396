"""A process whose part dies of a fault says so in one line and ends: half of it would go on and do half of its work.

Whoever supervises it starts another, and a standby takes over meanwhile.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from bridge.domain.errors import RingbridgeError

log = structlog.get_logger(__name__)

EXIT_CODE = 1


class PartDied(RingbridgeError):
    """A part of this process died of a fault."""

    code = "part_died"


def told(error: BaseException) -> str:
    """What and where, without the error's text: that may hold numbers."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    ours = next((frame for frame in reversed(frames) if f"{os.sep}bridge{os.sep}" in frame.filename), None)
    if ours is not None and ours is not frames[-1]:
        where += f", from {Path(ours.filename).name}:{ours.lineno}"
    return f"{type(error).__name__}{where}"


@contextmanager
def last_words(process: str) -> Iterator[None]:
    """Around a process' whole work: a fault in it, or in any thread it started, ends the process with one line."""
    threading.excepthook = _of_thread
    try:
        yield
    except (RingbridgeError, OSError):
        # Said in a sentence by the command line.
        raise
    except Exception as error:  # noqa: BLE001 - said, and the process ends
        log.critical("ended by a fault", process=process, fault=told(error))
        sys.exit(EXIT_CODE)


def _of_thread(dead: threading.ExceptHookArgs) -> None:
    if dead.exc_value is None or isinstance(dead.exc_value, SystemExit):
        return
    name = dead.thread.name if dead.thread is not None else "?"
    log.critical("ended by a fault in one of its threads", thread=name, fault=told(dead.exc_value))
    sys.stderr.flush()
    # At once: the main thread may be in the middle of anything.
    os._exit(EXIT_CODE)
