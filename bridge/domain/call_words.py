"""Call events in words, as an administrator reads them: who rang, who answered, why it ended, what was not seen.

Whatever a caller chose (names, numbers) comes out as it came in: who shows it makes it harmless for the place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.domain.calls import CallEventType, Cause, UnofferedReason

Names = Mapping[str, str]
"""Agents' ids and their names."""
NOBODY = "somebody unknown"
NOT_SEEN = "Not seen"

CAUSES: Mapping[str, str] = {
    Cause.COMPLETED: "people talked",
    Cause.ABANDONED: "whoever waited left before anyone was there",
    Cause.BUSY: "the line was busy",
    Cause.REJECTED: "the call was declined",
    Cause.NO_ANSWER: "nobody answered",
    Cause.CANCELLED: "the caller hung up before anybody answered",
    Cause.FAILED: "the call could not be put through",
    Cause.MACHINE: "a machine answered",
    Cause.UNCERTAIN: "its end was not seen, since the link to the PBX was down",
}
_UNOFFERED: Mapping[str, str] = {
    UnofferedReason.ANSWERED_ELSEWHERE: "{who} rings no more: somebody else answered",
    UnofferedReason.NO_ANSWER: "{who} did not answer",
    UnofferedReason.BUSY: "{who} was busy",
    UnofferedReason.REJECTED: "{who} declined",
    UnofferedReason.CANCELLED: "{who} rings no more: the caller gave up or was sent on",
    UnofferedReason.UNREACHABLE: "{who} could not be reached",
}
_UNQUEUED: Mapping[str, str] = {
    "answered": "was answered",
    "abandoned": "the caller gave up",
    "timeout": "nobody came in time",
    "left": "went on elsewhere",
}


def who(party: Any, names: Names) -> str:
    """A party by name, number or phone, as far as they are known."""
    if not isinstance(party, Mapping):
        return NOBODY
    agent = party.get("agent")
    name = names.get(agent) if isinstance(agent, str) else None
    name = name or party.get("name")
    reach = party.get("number") or party.get("extension")
    if party.get("withheld"):
        reach = "number withheld"
    device = party.get("device")
    if agent or not reach:
        reach = device or reach
    if name and reach and name != reach:
        return f"{name} ({reach})"
    return str(name or reach or NOBODY)


def sentence(kind: str, data: Mapping[str, Any], names: Names) -> str:
    """What the event says, in one sentence without a full stop."""
    tell = _TOLD.get(kind)
    return tell(data, names) if tell is not None else f"{kind}, of which this version knows no words"


def missing(first: int, last: int) -> str:
    """What is said where events between two others are not there."""
    lost = f"event {first} is" if first == last else f"events {first} to {last} are"
    return f"{NOT_SEEN}: {lost} missing; Redis was away or full for too long"


def seconds(ms: Any) -> str:
    """A length of time as people say it."""
    if not isinstance(ms, int | float):
        return "unknown"
    whole = round(ms / 1000)
    if whole < 60:
        return f"{ms / 1000:.1f} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _started(data: Mapping[str, Any], names: Names) -> str:
    kind = data.get("direction")
    article = "An" if kind in ("inbound", "outbound", "internal") else "A"
    text = f"{article} {kind} call" if article == "An" else "A call whose direction is not known yet"
    text += f" from {who(data.get('from'), names)}"
    if data.get("to") is not None:
        text += f" to {who(data['to'], names)}"
    if data.get("attempt"):
        text += f"; dialled by us, attempt {data['attempt']}"
    return text


def _queued(data: Mapping[str, Any], names: Names) -> str:
    position = data.get("position")
    place = f", position {position}" if position else ""
    return f"Waits in queue {data.get('queue')}{place}"


def _unqueued(data: Mapping[str, Any], names: Names) -> str:
    reason = data.get("reason")
    return f"Waits no more in queue {data.get('queue')}: {_UNQUEUED.get(str(reason), reason)}"


def _offered(data: Mapping[str, Any], names: Names) -> str:
    return f"{who(data.get('party'), names)} rings"


def _unoffered(data: Mapping[str, Any], names: Names) -> str:
    reason = str(data.get("reason"))
    return _UNOFFERED.get(reason, "{who} rings no more: {reason}").format(
        who=who(data.get("party"), names), reason=reason
    )


def _connected(data: Mapping[str, Any], names: Names) -> str:
    parties = data.get("parties")
    people = [who(party, names) for party in parties] if isinstance(parties, list) else []
    return f"{' and '.join(people) or NOBODY} hear each other"


def _held(data: Mapping[str, Any], names: Names) -> str:
    return f"{who(data.get('by'), names)} put the call on hold"


def _resumed(data: Mapping[str, Any], names: Names) -> str:
    return f"{who(data.get('by'), names)} took the call off hold"


def _transferred(data: Mapping[str, Any], names: Names) -> str:
    by, leaves, to = (who(data.get(name), names) for name in ("by", "from", "to"))
    match data.get("kind"):
        case "pickup":
            return f"{by} picked the call up, which rang at {leaves}"
        case "forward":
            return f"{leaves} forwarded the call to {to}"
        case "attended":
            return f"{by} handed the call over to {to} (attended transfer); {leaves} leaves"
        case kind:
            return f"{by} sent the call on to {to} ({kind} transfer); {leaves} leaves"


def _merged(data: Mapping[str, Any], names: Names) -> str:
    return f"Goes on as part of call {data.get('into')}"


def _ended(data: Mapping[str, Any], names: Names) -> str:
    cause = str(data.get("cause"))
    why = CAUSES.get(cause, cause)
    if cause == Cause.COMPLETED and data.get("answered_by") == "pbx":
        why = "the PBX itself served the caller (voicemail, announcement)"
    text = f"Ended, {cause}: {why}"
    if data.get("ended_by") is not None:
        text += f"; {who(data['ended_by'], names)} hung up"
    if data.get("q850") is not None:
        text += f"; Q.850 cause {data['q850']}"
    return text


def _uncertain(data: Mapping[str, Any], names: Names) -> str:
    return (
        f"{NOT_SEEN}: the link to the PBX was down from {data.get('since')} to {data.get('until')}; "
        "what happened in between was rebuilt from what the PBX said afterwards"
    )


_TOLD: Mapping[str, Callable[[Mapping[str, Any], Names], str]] = {
    CallEventType.STARTED: _started,
    CallEventType.QUEUED: _queued,
    CallEventType.UNQUEUED: _unqueued,
    CallEventType.OFFERED: _offered,
    CallEventType.UNOFFERED: _unoffered,
    CallEventType.CONNECTED: _connected,
    CallEventType.HELD: _held,
    CallEventType.RESUMED: _resumed,
    CallEventType.TRANSFERRED: _transferred,
    CallEventType.MERGED: _merged,
    CallEventType.ENDED: _ended,
    CallEventType.UNCERTAIN: _uncertain,
}
