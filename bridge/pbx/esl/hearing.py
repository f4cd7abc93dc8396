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

_ALWAYS = frozenset({"Event-Name", "Event-Subclass", "Event-Date-Timestamp", "Event-Sequence", "Unique-ID"})
_WHOSE = _ALWAYS | {"Caller-Transfer-Source"}
_PAIR = _WHOSE | {"Bridge-A-Unique-ID", "Bridge-B-Unique-ID"}
_SENT = {"variable_transfer_to", "variable_endpoint_disposition"}

READ: dict[str, frozenset[str]] = {
    "CHANNEL_CREATE": _WHOSE
    | {
        *("Call-Direction", "Caller-Caller-ID-Name", "Caller-Caller-ID-Number", "Caller-Callee-ID-Number"),
        *("Caller-Channel-Created-Time", "Caller-Destination-Number", "Caller-Privacy-Hide-Name"),
        *("Caller-Privacy-Hide-Number", "Channel-Name", "Channel-Presence-ID", "Other-Leg-Unique-ID", "Other-Type"),
        *("Other-Leg-Destination-Number", "Other-Leg-RDNIS", "variable_cc_member_session_uuid", "variable_cc_side"),
        *("variable_dialed_domain", "variable_dialed_user", "variable_domain_name", "variable_user_name"),
        *("variable_effective_caller_id_name", "variable_originating_leg_uuid", "variable_other_loopback_leg_uuid"),
        *("variable_rb_attempt", "variable_rb_command", "variable_rb_joins", "variable_rb_leg", "variable_rb_role"),
        *("variable_sip_Privacy", "variable_sip_call_id", "variable_sip_from_user", "variable_sip_gateway"),
        *("variable_sip_gateway_name", "variable_sip_h_X-FS-Refer-For", "variable_sip_h_X-FS-Refer-From"),
        "variable_sofia_profile_name",
    },
    "CHANNEL_PROGRESS": _ALWAYS,
    "CHANNEL_PROGRESS_MEDIA": _ALWAYS,
    "CHANNEL_ANSWER": _ALWAYS,
    "CHANNEL_BRIDGE": _PAIR,
    "CHANNEL_UNBRIDGE": _PAIR | _SENT | {"variable_att_xfer_kill_uuid", "variable_bridge_hangup_cause"},
    "CHANNEL_HOLD": _ALWAYS,
    "CHANNEL_UNHOLD": _ALWAYS | {"Event-Calling-Function", "variable_remote_audio_media_flow"},
    "CHANNEL_HANGUP_COMPLETE": _ALWAYS
    | _SENT
    | {"Hangup-Cause", "variable_hangup_cause_q850", "variable_sip_hangup_disposition"}
    | {"variable_transfer_destination"},
    "callcenter::info": _WHOSE
    | {"Answer-State", "CC-Action", "CC-Cancel-Reason", "CC-Cause", "CC-Member-Session-UUID", "CC-Queue"},
    "conference::maintenance": _WHOSE | {"Action", "Conference-Unique-ID"},
    "valet_parking::info": _WHOSE | {"Action", "Valet-Extension"},
}
"""The headers of an event that are mostly asked for, of some two hundred. It saves time only: any other is there."""

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
