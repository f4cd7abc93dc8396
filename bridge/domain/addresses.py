"""What a limit counts senders by."""

from __future__ import annotations

import ipaddress

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def limit_key(ip: str) -> str:
    """One sender: an IPv6 visitor owns a whole /64, so that is what counts. What is no address stays as it is."""
    return _within(ip, 32, 64)


def wide_network(ip: str) -> str:
    """The network around a sender, of which whoever rents machines has many addresses: a /24, or a /48 of IPv6."""
    return _within(ip, 24, 48)


def _within(ip: str, bits4: int, bits6: int) -> str:
    try:
        address: _Address = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    bits = bits4 if address.version == 4 else bits6
    network = ipaddress.ip_network((address, bits), strict=False)
    return str(network) if network.num_addresses > 1 else str(address)
