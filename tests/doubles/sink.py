"""Hears a link and keeps all that it says."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from bridge.domain.calls import CallEvent
from bridge.pbx.port import PbxFacts, QueueWish


class Sink:
    """A LinkSink; `order` has events and news of the link as they came."""

    def __init__(self) -> None:
        self.heard: list[CallEvent] = []
        self.live: dict[str, str] = {}
        self.ups: list[str] = []
        self.downs: list[str] = []
        self.facts: list[PbxFacts] = []
        self.order: list[str] = []
        self.threads: set[str] = set()
        self.wishes: list[QueueWish] = []
        self.raises = False

    def events(self, batch: Sequence[CallEvent], live: Mapping[str, str | None]) -> None:
        self.threads.add(threading.current_thread().name)
        self.heard.extend(batch)
        self.order.extend(event.type.value for event in batch)
        for call, state in live.items():
            if state is None:
                self.live.pop(call, None)
            else:
                self.live[call] = state
        if self.raises:
            raise ValueError("the listener has a fault")

    def asked(self, wish: QueueWish) -> None:
        self.wishes.append(wish)

    def link_up(self, detail: str) -> None:
        self.ups.append(detail)
        self.order.append("up")

    def link_detail(self, detail: str) -> None:
        self.ups.append(detail)

    def link_down(self, reason: str) -> None:
        self.downs.append(reason)
        self.order.append("down")

    def resynced(self, facts: PbxFacts) -> None:
        self.facts.append(facts)
        self.order.append("resynced")

    def kinds(self) -> list[str]:
        """The types of the call events so far."""
        return [event.type.value for event in list(self.heard)]
