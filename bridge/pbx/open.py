"""Opens the link that fits a PBX's kind."""

from __future__ import annotations

from bridge.domain.errors import SettingsError
from bridge.pbx.port import LinkSink, PbxLink
from bridge.settings import Pbx


def open_link(pbx: Pbx, sink: LinkSink, *, observe: bool = False) -> PbxLink:
    """A link, not started yet. With `observe` the command user is never used.

    Raises SettingsError for a kind of PBX that has no link yet.
    """
    if pbx.kind == "asterisk":
        from bridge.pbx.ami.link import AmiLink

        return AmiLink(pbx, sink, observe=observe)
    raise SettingsError(f"PBX {pbx.name!r} is of kind {pbx.kind!r}, which is not supported yet; use asterisk")
