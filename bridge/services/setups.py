"""What `ringbridge init` and `uninstall` need to know of a kind of PBX, in one shape for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from bridge.services import freeswitch_setup, pbx_setup
from bridge.services.pbx_setup import Change, Flavour, PbxUsers

Kind = Literal["asterisk", "freeswitch"]


@dataclass(frozen=True)
class Setup:
    """One kind of PBX."""

    kind: Kind
    name: str
    interface: str
    """What it calls the place where programs speak to it."""
    flavours: frozenset[Flavour]
    defaults: Mapping[str, str]
    """Answers proposed, by question."""
    trunks: Callable[[str], tuple[str, str, tuple[str, ...]]]
    """From `dial`: the question, the answer proposed, and what is a trunk besides."""
    detect: Callable[[Path], Flavour]
    plan_install: Callable[[Path, Flavour, PbxUsers], list[Change]]
    plan_uninstall: Callable[[Path], list[Change]]
    by_hand: Callable[[Flavour, PbxUsers], list[tuple[str, str]]]
    """What init cannot do: sentences, each with the text it speaks of."""
    hints: Callable[[Path], list[str]]
    marks: str
    """A file by which its configuration is known."""
    reload: Callable[[int], tuple[str, ...]]
    """From its port: the commands that make it read what is new."""
    reloaded: str
    """What the reload reads again."""


def _asterisk_trunk(dial: str) -> tuple[str, str, tuple[str, ...]]:
    technology, _, rest = dial.partition("/")
    return "Which device leads outside?", f"{technology}/{rest.rpartition('@')[2]}", ()


def _freeswitch_trunk(dial: str) -> tuple[str, str, tuple[str, ...]]:
    return "Which SIP profile do calls from outside come through?", "sofia/external", ("sofia/gateway/*",)


ASTERISK = Setup(
    "asterisk",
    "Asterisk",
    "AMI",
    frozenset({Flavour.ASTERISK, Flavour.FREEPBX, Flavour.REMOTE}),
    MappingProxyType(
        {
            "port": "5038",
            "username": "ringbridge",
            "command_username": "ringbridge-dial",
            "context": "from-internal",
            "dial": "PJSIP/{number}@trunk",
        }
    ),
    _asterisk_trunk,
    pbx_setup.detect,
    pbx_setup.plan_install,
    pbx_setup.plan_uninstall,
    pbx_setup.by_hand,
    pbx_setup.manager_hints,
    "extensions.conf or manager.conf",
    lambda port: pbx_setup.RELOAD,
    "the manager and the dialplan",
)
FREESWITCH = Setup(
    "freeswitch",
    "FreeSWITCH",
    "event socket",
    frozenset({Flavour.FREESWITCH, Flavour.FUSIONPBX, Flavour.REMOTE}),
    MappingProxyType(
        {
            "port": "8021",
            "username": "ringbridge@ringbridge",
            "command_username": "ringbridge-dial@ringbridge",
            "context": "default",
            "dial": "sofia/gateway/trunk/{number}",
        }
    ),
    _freeswitch_trunk,
    freeswitch_setup.detect,
    freeswitch_setup.plan_install,
    freeswitch_setup.plan_uninstall,
    freeswitch_setup.by_hand,
    freeswitch_setup.hints,
    "freeswitch.xml",
    freeswitch_setup.reload_commands,
    "the configuration",
)
SETUPS: Mapping[str, Setup] = MappingProxyType({"asterisk": ASTERISK, "freeswitch": FREESWITCH})
