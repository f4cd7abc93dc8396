"""The link to an Asterisk over AMI."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.domain.calls import Directory
from bridge.pbx.port import DialOrder, LinkSink, Outcome, Reason, Receipts
from bridge.settings import Pbx


class AmiLink:
    """PbxLink of one Asterisk."""

    def __init__(self, pbx: Pbx, sink: LinkSink, *, observe: bool = False) -> None:
        self._pbx = pbx
        self._sink = sink
        self._observe = observe

    def start(self) -> None:
        """See PbxLink."""

    def stop(self) -> None:
        """See PbxLink."""

    def set_directory(self, directory: Directory) -> None:
        """See PbxLink."""

    def restore(self, live: Mapping[str, str]) -> None:
        """See PbxLink."""

    def dial(self, order: DialOrder) -> Outcome:
        """See PbxLink."""
        return Outcome(False, Reason.LINK_DOWN)

    def hangup(self, call: str, agent: str | None) -> Outcome:
        """See PbxLink."""
        return Outcome(False, Reason.LINK_DOWN)

    def receipts(self, attempt: str) -> Receipts:
        """See PbxLink."""
        return Receipts(None, None)

    def live_attempts(self) -> frozenset[str]:
        """See PbxLink."""
        return frozenset()
