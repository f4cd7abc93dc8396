"""Which of FreeSWITCH's events are heard, and by which method of the tracker; how their headers are read.

The link subscribes to exactly these: `event json NAME … CUSTOM SUBCLASS …`.
"""

from __future__ import annotations

from collections.abc import Mapping

Event = Mapping[str, str]
"""One event: header names to text, a body under `_body`."""

CUSTOM = "CUSTOM"
DIAL_JOB = "rb-dial-"
"""How the Job-UUIDs of our originates may begin; the attempt follows. The bare attempt does as well."""

HEARD: dict[str, str] = {
    "CHANNEL_CREATE": "new_channel",
    "CHANNEL_PROGRESS": "progress",
    "CHANNEL_PROGRESS_MEDIA": "progress",
    "CHANNEL_ANSWER": "answer",
    "CHANNEL_BRIDGE": "bridge",
    "CHANNEL_UNBRIDGE": "unbridge",
    "CHANNEL_HOLD": "hold",
    "CHANNEL_UNHOLD": "unhold",
    "CHANNEL_HANGUP_COMPLETE": "hangup",
    "BACKGROUND_JOB": "background_job",
}

HEARD_CUSTOM: dict[str, str] = {
    "callcenter::info": "callcenter",
    "conference::maintenance": "conference",
    "valet_parking::info": "valet_parking",
    "sofia::transferor": "transferor",
    "sofia::transferee": "transferee",
    "sofia::replaced": "replaced",
    "sofia::intercepted": "intercepted",
    "ringbridge::dial": "own_dial",
}

EVENTS = tuple(HEARD)
"""To subscribe to, besides `CUSTOM` with `SUBCLASSES`."""
SUBCLASSES = tuple(HEARD_CUSTOM)


def event_time(event: Event, now: float) -> float:
    """When the PBX says it happened (seconds since the epoch), else `now`."""
    stamp = event.get("Event-Date-Timestamp", "")
    if not (stamp.isascii() and stamp.isdecimal()):
        return now
    at = int(stamp) / 1e6 if len(stamp) < 20 else 0.0
    return at if 0 < at < 4e9 else now


def resumes(event: Event) -> bool:
    """Whether a CHANNEL_UNHOLD says that somebody goes on talking.

    FreeSWITCH says it too where a held leg ends or is moved: then nobody took the hold back, and the phone's own media
    do not flow both ways again.
    """
    if event.get("Event-Calling-Function") == "switch_ivr_unhold":
        return True
    return event.get("variable_remote_audio_media_flow", "sendrecv") == "sendrecv"


def number(text: str | None) -> int | None:
    """A header that should be a number, None where it is none."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 12 else None
