"""Ringbridge: an internet call centre beside the PBX that is already there."""
