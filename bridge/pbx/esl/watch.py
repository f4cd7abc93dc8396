"""Whether every event comes, and in time.

FreeSWITCH numbers each event as it is made (Event-Sequence), over all kinds, and queues it for a listener later: so
a listener that subscribes narrowly sees holes and a loose order all the time, and neither is a loss. It loses one
only where 100,000 events wait for a listener. What can be known is therefore this: while we were behind, were so many
events made? Then some of ours may be gone, and only a new snapshot can tell.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.pbx.esl.codec import Event
from bridge.pbx.esl.hearing import event_time, number

QUEUE = 100_000
"""MAX_QUEUE_LEN of mod_event_socket."""
BEHIND = 2.0
"""Seconds of age from which we count as behind; an event's own time moves in steps and may be half a second late."""
CAUGHT_UP = 1.0
_SLACK = 1_000
"""Events are numbered by many threads, so one may come that much after another with a higher number."""


class Watch:
    """One connection's events, by number and age. Made anew for each connection, with the counts of the last."""

    def __init__(self) -> None:
        self.lag = 0.0
        """Seconds between the PBX's time of the last event and when we read it."""
        self.worst_lag = 0.0
        self.gaps = 0
        """How often events may have been lost."""
        self.backwards = 0
        """Events whose number fell back further than FreeSWITCH's threads explain."""
        self.doubt_since: float | None = None
        """From when on (the PBX's clock) what was last missed may have happened."""
        self._highest: int | None = None
        self._behind_since: int | None = None
        self._sound_at: float | None = None
        """The PBX's time of the last event before we were behind."""

    def begin(self) -> None:
        """Another connection: its numbers say nothing of the last one's."""
        self._highest = self._behind_since = self._sound_at = None
        self.lag = 0.0

    def hear(self, events: Sequence[Event], clock: float) -> bool:
        """True where events may have been lost. `clock` is the PBX's own time now.

        Of events that came at once the first is the oldest and the last says how far we are: the others tell no more.
        """
        doubt = False
        for event in events if len(events) < 3 else (events[0], events[-1]):
            sequence = number(event.get("Event-Sequence"))
            at = event_time(event, 0.0)
            if sequence is None or not at:
                continue
            if self._highest is not None and sequence < self._highest - _SLACK:
                self.backwards += 1
                if sequence < self._highest - QUEUE:
                    # Another core answers here, without the connection having broken.
                    doubt = True
                    self.doubt_since = self._sound_at
                    self._highest, self._behind_since = sequence, None
            self.lag = max(clock - at, 0.0)
            self.worst_lag = max(self.worst_lag, self.lag)
            doubt = self._weigh(sequence) or doubt
            if self._behind_since is None:
                self._sound_at = at
            self._highest = sequence if self._highest is None else max(self._highest, sequence)
        self.gaps += doubt
        return doubt

    def _weigh(self, sequence: int) -> bool:
        if self.lag >= BEHIND:
            if self._behind_since is None:
                self._behind_since = sequence if self._highest is None else self._highest
            return False
        if self._behind_since is None or self.lag >= CAUGHT_UP:
            return False
        waited, self._behind_since = sequence - self._behind_since, None
        if waited < QUEUE:
            return False
        self.doubt_since = self._sound_at
        return True
