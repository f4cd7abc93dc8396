"""Which of AMI's events are heard, and by which method of the tracker; how their headers are read."""

from __future__ import annotations

from bridge.pbx.ami.codec import Message

DIAL_ACTION = "rb-dial-"
"""How the ActionIDs of our originates begin; the attempt follows."""
ACT_ACTION = "rb-act-"
"""The same of originates that an action on a call needs; the command follows."""
REPORTED = frozenset({"ChanSpyStart"})
"""Events that no tracker needs, and that tell what became of an action."""

HEARD: dict[str, str] = {
    "Newchannel": "new_channel",
    "NewCallerid": "new_caller_id",
    "Newstate": "new_state",
    "Rename": "rename",
    "HangupRequest": "hangup_request",
    "Hangup": "hangup",
    "DialBegin": "dial_begin",
    "DialState": "dial_state",
    "DialEnd": "dial_end",
    "BridgeEnter": "bridge_enter",
    "BridgeLeave": "bridge_leave",
    "QueueCallerJoin": "queue_join",
    "QueueCallerAbandon": "queue_abandon",
    "QueueCallerLeave": "queue_leave",
    "Hold": "hold",
    "Unhold": "unhold",
    "BlindTransfer": "blind_transfer",
    "AttendedTransfer": "attended_transfer",
    "Pickup": "pickup",
    "ParkedCall": "parked_call",
    "OriginateResponse": "originate_response",
    "UserEvent": "user_event",
}

UNHEARD = frozenset(
    {
        "DeviceStateChange",
        "PresenceStateChange",
        "ExtensionStatus",
        "PresenceStatus",
        "QueueMemberStatus",
        "NewConnectedLine",
        "NewAccountCode",
        "MusicOnHoldStart",
        "MusicOnHoldStop",
        "RTCPSent",
        "RTCPReceived",
        "VarSet",
        "Newexten",
        "ContactStatus",
        "PeerStatus",
        "Cdr",
        "CEL",
        "ChallengeSent",
        "SuccessfulAuth",
        "SoftHangupRequest",
        "BridgeCreate",
        "BridgeDestroy",
        "LocalBridge",
        "LocalOptimizationBegin",
        "LocalOptimizationEnd",
        "AgentCalled",
        "AgentConnect",
        "AgentComplete",
    }
)
"""Frequent events that nobody hears: the codec need not even parse them."""


def event_time(event: Message, now: float) -> float:
    """When the PBX says it happened (seconds since the epoch), else `now`."""
    stamp = event.get("Timestamp")
    if stamp is None:
        return now
    try:
        at = float(stamp)
    except ValueError:
        return now
    return at if 0 < at < 4e9 else now


def number(text: str | None) -> int | None:
    """A header that should be a number, None where it is none."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 12 else None
