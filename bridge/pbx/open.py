"""Opens the link that fits a PBX's kind."""

from __future__ import annotations

from bridge.pbx.port import LinkSink, PbxLink
from bridge.settings import Pbx


def open_link(pbx: Pbx, sink: LinkSink, *, observe: bool = False) -> PbxLink:
    """A link, not started yet. With `observe` the command user is never used. Raises SettingsError for a secret."""
    # One process talks to one PBX: the other's library, with the loop it stands on, is never loaded.
    if pbx.kind == "freeswitch":
        from bridge.pbx.esl.link import EslLink

        return EslLink(pbx, sink, observe=observe)
    from bridge.pbx.ami.link import AmiLink

    return AmiLink(pbx, sink, observe=observe)
