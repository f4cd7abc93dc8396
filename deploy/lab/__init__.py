"""The lab: two real Asterisk processes on loopback, a company's PBX and the world around it."""

from __future__ import annotations
