"""The readers of `ringbridge bench esl`, each alone in its process: `python -m ... READER PORT EVENTS`."""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Any

_HOST = "127.0.0.1"
_SECRET = "bench"
_TRUNKS = ("sofia/gateway/*", "sofia/external")


class _Clock:
    """CPU time from before the connection to the last event; waiting costs none."""

    def __init__(self, events: int) -> None:
        self._left = events
        self._began = 0.0
        self._ended = 0.0

    def start(self) -> None:
        """All is loaded; now it begins."""
        self._began = time.process_time()

    def heard(self, count: int) -> bool:
        """So many more; True where that were all."""
        self._left -= count
        if self._left <= 0:
            self._ended = time.process_time()
        return self._left <= 0

    def told(self) -> str:
        """The result, as the bench reads it."""
        return json.dumps({"cpu": self._ended - self._began})


def codec(port: int, clock: _Clock) -> None:
    """Our decoder on a plain socket."""
    from bridge.pbx.esl.codec import Decoder, encode

    decoder = Decoder()
    clock.start()
    with socket.create_connection((_HOST, port)) as sock:
        sock.sendall(encode(f"auth {_SECRET}") + encode("event json ALL"))
        while data := sock.recv(65536):
            count = sum(frame.event is not None for frame in decoder.feed(data))
            if count and clock.heard(count):
                return


def session(port: int, clock: _Clock, *, track: bool = False) -> None:
    """Our session; with tracker, and the bytes that go to Redis, where `track`."""
    import gevent.event

    from bridge.live.calls import encode
    from bridge.pbx.esl.codec import Event
    from bridge.pbx.esl.session import Session
    from bridge.pbx.esl.tracker import Tracker
    from bridge.settings import Pbx

    done = gevent.event.Event()
    tracker = Tracker("bench", _TRUNKS)
    connection: Any = None
    if track:
        from redis.connection import Connection

        connection = Connection()  # type: ignore[no-untyped-call]  # redis-py's own

    def publish(events: list[Event]) -> None:
        batch = tracker.feed(events, time.time())
        if batch.events or batch.live:
            words = [word for event in batch.events for word in encode(event)]
            words += [word for call, state in batch.live.items() for word in (call, state or "")]
            connection.pack_command("EVALSHA", "0" * 40, 5, *words)

    def heard(events: list[Event]) -> None:
        if track:
            publish(events)
        if clock.heard(len(events)):
            done.set()

    pbx = Pbx.model_validate({"name": "bench", "kind": "freeswitch", "port": port, "secret": _SECRET})
    clock.start()
    Session.open(pbx, "", _SECRET, on_events=heard, on_lost=lambda reason: done.set(), names=("ALL",))
    done.wait()


def greenswitch(port: int, clock: _Clock) -> None:
    """The bare library with somebody who hears everything."""
    import gevent.event
    from greenswitch import InboundESL

    done = gevent.event.Event()

    def heard(event: Any) -> None:
        if clock.heard(1):
            done.set()

    clock.start()
    client = InboundESL(_HOST, port, _SECRET)
    client.connect()
    client.register_handle("*", heard)
    client.send("event plain ALL")
    done.wait()


def main() -> None:
    reader, port, events = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    clock = _Clock(events)
    if reader in ("codec", "codec_plain"):
        codec(port, clock)
    elif reader == "greenswitch":
        greenswitch(port, clock)
    else:
        session(port, clock, track=reader == "listener")
    print(clock.told(), flush=True)


if __name__ == "__main__":
    main()
