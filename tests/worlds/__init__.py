"""Small models of a PBX of each kind, for tests that play random calls on them."""

from worlds.asterisk import Asterisk
from worlds.freeswitch import FreeSwitch
from worlds.model import DID, Flow, Leg, World

__all__ = ["DID", "Asterisk", "Flow", "FreeSwitch", "Leg", "World"]
