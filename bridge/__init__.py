"""Ringbridge: an internet call centre beside the PBX that is already there."""

__version__ = "0.1.0"
