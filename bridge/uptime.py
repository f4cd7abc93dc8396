"""Seconds on a clock that nobody sets: for how long something is still ours, or still wanted."""

from __future__ import annotations

import time


def uptime() -> float:
    """Seconds on a clock that goes on while the process, or the machine, is stopped."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
