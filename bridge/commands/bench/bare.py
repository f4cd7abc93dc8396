"""The bare libraries for `ringbridge bench listener`, with nobody who hears: `python -m ... KIND PORT SECRET`."""

from __future__ import annotations

import asyncio
import logging
import sys


def panoramisk(port: int, secret: str) -> None:
    """panoramisk as it comes: it reads, decodes, splits, and looks for handlers that are not there."""
    from panoramisk import Manager

    logging.disable(logging.CRITICAL)

    async def read() -> None:
        manager = Manager(host="127.0.0.1", port=port, username="bench", secret=secret, ping_delay=3600)
        await manager.connect()
        await asyncio.Event().wait()

    asyncio.run(read())


def greenswitch(port: int, secret: str) -> None:
    """greenswitch as it comes, reading the plain encoding, the only one it knows."""
    import gevent
    from greenswitch import InboundESL

    client = InboundESL("127.0.0.1", port, secret)
    client.connect()
    client.send("event plain ALL")
    gevent.wait([client._receive_events_greenlet])


def main() -> None:
    kind, port, secret = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    (panoramisk if kind == "asterisk" else greenswitch)(port, secret)


if __name__ == "__main__":
    main()
