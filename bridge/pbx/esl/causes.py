"""FreeSWITCH's names of hang-up causes as Q.850 causes, where its own number says less than the name does."""

from __future__ import annotations

from bridge.pbx.esl.hearing import Event, number

CANCELLED = frozenset({"ORIGINATOR_CANCEL"})
"""Who dialled this leg gave it up."""
TAKEN = frozenset({"LOSE_RACE", "PICKED_OFF"})
"""Another phone has the call that this one rang for."""
PICKED_OFF = "PICKED_OFF"
PATIENCE = frozenset({"NO_ANSWER", "NO_USER_RESPONSE", "PROGRESS_TIMEOUT", "ALLOTTED_TIMEOUT", "NO_PICKUP"})
"""The phone rang for as long as it was meant to."""
NORMAL = 16
_NORMAL_CLEARING = "NORMAL_CLEARING"

# FreeSWITCH publishes 16 for each of its own causes (above 127), and names only in a command's reply.
_BY_NAME = {
    "UNALLOCATED_NUMBER": 1,
    "NO_ROUTE_TRANSIT_NET": 2,
    "NO_ROUTE_DESTINATION": 3,
    "NORMAL_CLEARING": 16,
    "USER_BUSY": 17,
    "NO_USER_RESPONSE": 18,
    "NO_ANSWER": 19,
    "SUBSCRIBER_ABSENT": 20,
    "CALL_REJECTED": 21,
    "NUMBER_CHANGED": 22,
    "DESTINATION_OUT_OF_ORDER": 27,
    "INVALID_NUMBER_FORMAT": 28,
    "NORMAL_UNSPECIFIED": 31,
    "NORMAL_CIRCUIT_CONGESTION": 34,
    "NETWORK_OUT_OF_ORDER": 38,
    "NORMAL_TEMPORARY_FAILURE": 41,
    "SWITCH_CONGESTION": 42,
    "BEARERCAPABILITY_NOTAVAIL": 58,
    "CHAN_NOT_IMPLEMENTED": 66,
    "INCOMPATIBLE_DESTINATION": 88,
    "RECOVERY_ON_TIMER_EXPIRE": 102,
    "USER_NOT_REGISTERED": 20,
    "GATEWAY_DOWN": 38,
    "INVALID_GATEWAY": 3,
    "INVALID_PROFILE": 3,
    "INVALID_URL": 3,
    "PROGRESS_TIMEOUT": 18,
    "ALLOTTED_TIMEOUT": 19,
    "NO_PICKUP": 19,
    "MEDIA_TIMEOUT": 41,
    "CRASH": 41,
    "SYSTEM_SHUTDOWN": 41,
    "BUSY_EVERYWHERE": 17,
    "DECLINE": 21,
    "UNWANTED": 21,
    "REJECT_ALL": 21,
    "DOES_NOT_EXIST_ANYWHERE": 1,
    "NOT_ACCEPTABLE": 88,
}


def q850(name: str) -> int | None:
    """The Q.850 cause of a named one, None where none fits."""
    return _BY_NAME.get(name)


def hangup_cause(event: Event) -> int | None:
    """Why a channel ended, as CHANNEL_HANGUP_COMPLETE says it.

    Who is refused at the end of a dialplan that went on after each failure is told what the last leg said.
    """
    if event.get("variable_sip_hangup_disposition") == "send_refuse" and event.get("Hangup-Cause") == _NORMAL_CLEARING:
        told = q850(event.get("variable_last_bridge_hangup_cause", ""))
        if told is not None:
            return told
    return q850(event.get("Hangup-Cause", "")) or number(event.get("variable_hangup_cause_q850"))
