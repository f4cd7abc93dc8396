"""Calls as a terminal shows them. What callers choose (names, numbers) is made harmless here, and is never markup."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bridge.domain.call_words import CAUSES, NOT_SEEN, missing, seconds, sentence, who
from bridge.domain.calls import CallEventType
from bridge.store.models import AttemptChange, Call, CallEventRow

LONGEST = 300
"""Characters of one text from outside; more says nothing."""
WIDE = 120
"""Columns of a terminal in which queue and client have room."""
_JOINERS = "\u200c\u200d"
"""Format characters that words and emoji need and that move nothing."""
_TONES = {"connected": "green", "held": "yellow", "queued": "magenta", "offered": "cyan", "started": "cyan"}


@dataclass(frozen=True, slots=True)
class Known:
    """Ids and their names."""

    agents: Mapping[str, str] = field(default_factory=dict)
    clients: Mapping[str, str] = field(default_factory=dict)


def plain(text: str) -> str:
    """The text with a `?` for all that could move the cursor, colour, hide or reverse what stands around it."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(char if _shown(char) else "?" for char in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _shown(char: str) -> bool:
    return char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def clock(at: datetime) -> str:
    """The time of day in this machine's zone."""
    return at.astimezone().strftime("%H:%M:%S")


def table(calls: Iterable[Call], known: Known, now: datetime, width: int = 0) -> Table:
    """Calls as a table, in the order given; with a `width` too small for all, without what matters least."""
    rows = list(calls)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    wide = not width or width >= WIDE
    queues, clients = wide and any(row.queue for row in rows), wide and any(row.client_id for row in rows)
    for name in ("Began", "For", "State"):
        shown.add_column(name, no_wrap=True)
    for name in ("From", "To", "Agent", *["Queue"] * queues, *["Client"] * clients):
        shown.add_column(name)
    # Whole, so that it can be copied.
    shown.add_column("Call", no_wrap=True)
    for row in rows:
        cells: list[Text | str] = [_began(row, now), _length(row, now), _state(row)]
        cells += [_who(row.from_party, known), _who(row.to_party, known), _text(known.agents.get(row.agent_id or ""))]
        cells += [_text(row.queue)] * queues + [_text(known.clients.get(row.client_id or ""))] * clients
        shown.add_row(*cells, Text(plain(row.id)), style="" if row.ended_at is None else "dim")
    return shown


def picture(
    rows: Sequence[Call], known: Known, now: datetime, width: int, words: str, notes: Sequence[str]
) -> RenderableType:
    """What the live table shows: the calls, how many there are, and what is the matter."""
    below = [Text(words, style="bold"), *(Text(note, style="yellow") for note in notes)]
    return Group(*([table(rows, known, now, width)] if rows else []), *below)


def line(call: Call, event: CallEventRow, known: Known) -> str:
    """One event of one of many calls."""
    return f"{clock(event.at)}  {plain(call.pbx)}  {plain(call.id)}  {told(event, known)}"


def told(event: CallEventRow, known: Known) -> str:
    """The event in words, with times of this machine's zone."""
    data = {name: _local(value) if name in ("since", "until") else value for name, value in event.data.items()}
    return plain(sentence(event.type, data, known.agents))


def _local(value: object) -> object:
    try:
        return clock(datetime.fromisoformat(str(value)))
    except ValueError:
        return value


def story(
    call: Call,
    events: Sequence[CallEventRow],
    changes: Sequence[AttemptChange],
    merged: Sequence[str],
    known: Known,
    now: datetime,
) -> RenderableType:
    """One call: what it is taken for, and everything that was told of it."""
    return Group(_head(call, merged, known, now), Text(), _history(call, events, known), *_dialled(call, changes))


def _head(call: Call, merged: Sequence[str], known: Known, now: datetime) -> Table:
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    state = call.state if call.cause is None else f"{call.state}, {call.cause}: {CAUSES.get(call.cause, '')}"
    if call.merged_into:
        state += f" into {call.merged_into}"
    waited, talked = call.wait_ms is not None, call.talk_ms is not None
    lengths = [f"waited {seconds(call.wait_ms)}"] * waited + [f"talked {seconds(call.talk_ms)}"] * talked
    for name, value in (
        ("Call", call.id),
        ("PBX", call.pbx),
        ("State", state),
        ("Direction", call.direction or "not known yet"),
        ("From", who(call.from_party, known.agents)),
        ("To", who(call.to_party, known.agents)),
        ("Client", known.clients.get(call.client_id or "")),
        ("Agent", known.agents.get(call.agent_id or "")),
        ("Queue", call.queue),
        ("Began", f"{call.started_at.astimezone():%Y-%m-%d %H:%M:%S %z}"),
        ("Length", f"{_length(call, now)}{''.join(f', {length}' for length in lengths)}"),
        ("Callback", call.callback_id),
        ("Attempt", call.attempt_id),
        ("Outcome", call.disposition),
        *(("Includes", f"call {other}") for other in merged),
    ):
        if value:
            shown.add_row(name, Text(plain(value)))
    return shown


def _history(call: Call, events: Sequence[CallEventRow], known: Known) -> Table:
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(style="dim", no_wrap=True, justify="right")
    shown.add_column(style="dim", no_wrap=True, justify="right")
    shown.add_column(overflow="fold")
    expected = 1
    for event in events:
        if event.seq > expected:
            shown.add_row("", "", "", Text(missing(expected, event.seq - 1), style="yellow"))
        expected = event.seq + 1
        words = told(event, known)
        at, after = event.at.astimezone(), (event.at - call.started_at).total_seconds()
        stamp = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
        shown.add_row(stamp, f"{after:+.1f} s", str(event.seq), Text(words, style=_tone(event.type, words)))
    if not events:
        shown.add_row("", "", "", "No event of this call is kept.")
    return shown


def _dialled(call: Call, changes: Sequence[AttemptChange]) -> list[RenderableType]:
    if not changes:
        return []
    shown = Table.grid(padding=(0, 2))
    for change in changes:
        reason = f" ({change.reason})" if change.reason else ""
        shown.add_row(Text(clock(change.at), style="dim"), Text(plain(f"{change.old} -> {change.new}{reason}")))
    return [Text(), Text(plain(f"Our attempt {call.attempt_id}:"), style="bold"), shown]


def _tone(kind: str, words: str) -> str:
    if words.startswith(NOT_SEEN):
        return "yellow"
    return "bold" if kind in (CallEventType.CONNECTED, CallEventType.ENDED, CallEventType.MERGED) else ""


def _began(row: Call, now: datetime) -> str:
    began = row.started_at.astimezone()
    return clock(began) if began.date() == now.astimezone().date() else f"{began:%Y-%m-%d %H:%M:%S}"


def _length(row: Call, now: datetime) -> str:
    return seconds(max(0.0, ((row.ended_at or now) - row.started_at).total_seconds()) * 1000)


def _state(row: Call) -> Text:
    return Text(plain(row.cause or row.state), style=_TONES.get(row.state, ""))


def _who(party: object, known: Known) -> Text:
    return _text(None if party is None else who(party, known.agents))


def _text(value: str | None) -> Text:
    """A cell of one line, whatever is in it."""
    return Text(plain(value or ""), no_wrap=True, overflow="ellipsis")
