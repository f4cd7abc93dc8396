"""Who is at the other end: a forwarded address is believed only when a trusted proxy says it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence


def is_trusted(peer: str, trusted: Sequence[str]) -> bool:
    """Whether `peer` is one of the trusted addresses or inside one of the trusted networks."""
    address = _address(peer)
    if address is None:
        return False
    for text in trusted:
        network = _network(text)
        if network is not None and address.version == network.version and address in network:
            return True
    return False


def client_address(peer: str, forwarded: str, trusted: Sequence[str]) -> str:
    """The nearest address that is no trusted proxy, from the connection's `peer` and its X-Forwarded-For.

    Each proxy adds the address it saw at the right, so reading goes from right to left and stops at the first
    one that is not ours; what stands further left is whatever that one chose to write.
    """
    hops = [part.strip() for part in forwarded.split(",") if part.strip()]
    current = peer
    while hops and is_trusted(current, trusted):
        claimed = _address(_without_port(hops.pop()))
        if claimed is None:
            break
        current = str(claimed)
    plain = _address(current)
    return str(plain) if plain is not None else current


def limit_key(address: str) -> str:
    """What a limit per address counts by: an IPv6 network of 64 bits is one household, not 2^64 of them."""
    parsed = _address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text.partition("]")[0][1:]
    return text.partition(":")[0] if text.count(":") == 1 else text
