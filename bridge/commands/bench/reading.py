"""What reads in `ringbridge bench listener`: our codec, tracker and encoding, and the bare libraries' parsing.

As a process of its own (`python -m ... KIND PORT EVENTS RATE`) it reads from a socket what comes at a rate, and tells
what became of it.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.connection import Connection

from bridge.commands.bench.common import percentile
from bridge.domain.calls import CallEventType
from bridge.live.calls import encode
from bridge.pbx.ami import codec as ami
from bridge.pbx.ami.hearing import UNHEARD
from bridge.pbx.ami.tracker import Tracker as AmiTracker
from bridge.pbx.calls.book import Batch
from bridge.pbx.esl import codec as esl
from bridge.pbx.esl.tracker import Tracker as EslTracker

TRUNKS = ("PJSIP/trunk", "sofia/gateway/*", "sofia/external")
GREETING = b"Asterisk Call Manager/11.0.0\r\n"
_CHUNK = 256 * 1024


class Ours:
    """Codec, tracker, the calls' states, and the bytes that go to Redis."""

    def __init__(self, kind: str, connection: Any) -> None:
        self.heard = 0
        self.call_events = 0
        self.calls = 0
        self._connection = connection
        self._read: Callable[[bytes], Batch]
        if kind == "asterisk":
            self._of_asterisk()
        else:
            self._of_freeswitch()

    def _of_asterisk(self) -> None:
        decoder, tracker = ami.Decoder(UNHEARD), AmiTracker("bench", TRUNKS)
        decoder.feed(GREETING)

        def read(data: bytes) -> Batch:
            before = decoder.ignored
            messages = decoder.feed(data)
            self.heard += len(messages) + decoder.ignored - before
            return tracker.feed(messages, 0.0)

        self._read = read

    def _of_freeswitch(self) -> None:
        decoder, tracker = esl.Decoder(), EslTracker("bench", TRUNKS)

        def read(data: bytes) -> Batch:
            events = [frame.event for frame in decoder.feed(data) if frame.event is not None]
            self.heard += len(events)
            return tracker.feed(events, 0.0)

        self._read = read

    def feed(self, data: bytes) -> None:
        """So many bytes from the PBX."""
        batch = self._read(data)
        if not batch.events and not batch.live:
            return
        self.call_events += len(batch.events)
        self.calls += sum(event.type is CallEventType.STARTED for event in batch.events)
        words = [word for event in batch.events for word in encode(event)]
        words += [word for call, state in batch.live.items() for word in (call, state or "")]
        self._connection.pack_command("EVALSHA", "0" * 40, 5, *words)


def redis_connection() -> Any:
    """One that is never opened: it only writes commands."""
    return Connection()  # type: ignore[no-untyped-call]  # redis-py's own


def bare(kind: str) -> Callable[[Sequence[bytes]], None]:
    """What parses one recording, given in pieces, with the bare library and nobody who hears it."""
    return _panoramisk() if kind == "asterisk" else _greenswitch


def _panoramisk() -> Callable[[Sequence[bytes]], None]:
    from panoramisk import Manager
    from panoramisk.ami_protocol import AMIProtocol

    logging.getLogger("panoramisk").setLevel(logging.ERROR)
    manager = Manager(loop=asyncio.new_event_loop())
    # Its own hearing of FullyBooted would start a task at each.
    manager.patterns.clear()

    def parse(pieces: Sequence[bytes]) -> None:
        protocol = AMIProtocol()
        protocol.connection_made(None)
        protocol.factory = manager
        protocol.encoding = "utf8"
        protocol.data_received(GREETING)
        for piece in pieces:
            protocol.data_received(piece)

    return parse


def _greenswitch(pieces: Sequence[bytes]) -> None:
    from greenswitch.esl import ESLProtocol

    class Recorded(ESLProtocol):  # type: ignore[misc]
        sock_file = io.BufferedReader(io.BytesIO(b"".join(pieces)))

    # To the end of the file; its queue of events is thrown away with it.
    Recorded().receive_events()


def rss_mb() -> float:
    """The memory of this process that is in use now."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    kind, port, events, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    ours = Ours(kind, redis_connection())
    lags: list[float] = []
    begun_mb = 0.0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        (start,) = struct.unpack("d", sock.recv(8, socket.MSG_WAITALL))
        cpu = time.process_time()
        while data := sock.recv(_CHUNK):
            ours.feed(data)
            if ours.heard:
                # Of the last event that came with it: from when it was due to when all was done.
                lags.append((time.monotonic() - start - (ours.heard - 1) / rate) * 1000)
            if not begun_mb and ours.heard >= events / 5:
                begun_mb = rss_mb()
        seconds = time.monotonic() - start
        cpu = time.process_time() - cpu
    print(
        json.dumps(
            {
                "events": ours.heard,
                "events_per_second": round(ours.heard / seconds),
                "lost": events - ours.heard,
                "calls": ours.calls,
                "call_events": ours.call_events,
                # What one core would carry that has nothing else to do, connection included.
                "events_per_core_second": round(ours.heard / cpu),
                "busy": round(cpu / seconds, 2),
                "rss_mb_start": round(begun_mb, 1),
                "rss_mb_end": round(rss_mb(), 1),
                "lag_p50_ms": percentile(lags, 0.5),
                "lag_p99_ms": percentile(lags, 0.99),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
