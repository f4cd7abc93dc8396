"""A phone's audio: plays one tone as G.711 over RTP, presses keys, and says which tones it hears."""

from __future__ import annotations

import math
import random
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

RATE, FRAME, WINDOW = 8000, 160, 800
"""Samples a second, a packet, and a look at what is heard: 0.1 s tells 10 Hz apart."""
KEYS = "0123456789*#ABCD"
PERIOD = WINDOW // FRAME
"""So many packets repeat for ever: every tone is a multiple of 10 Hz."""


def compress(sample: int) -> int:
    """One linear sample as G.711 mu-law."""
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude, 32635) + 0x84
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | magnitude >> (exponent + 3) & 0x0F) & 0xFF


def expand(byte: int) -> int:
    """The linear sample of one byte."""
    byte = ~byte & 0xFF
    magnitude = (((byte & 0x0F) << 3) + 0x84) << (byte >> 4 & 0x07)
    return 0x84 - magnitude if byte & 0x80 else magnitude - 0x84


_LINEAR = tuple(expand(byte) for byte in range(256))


def tone_frames(hertz: int) -> list[bytes]:
    """The packets of a tone, to be repeated."""
    wave = bytes(compress(round(6000 * math.sin(2 * math.pi * hertz * n / RATE))) for n in range(WINDOW))
    return [wave[start : start + FRAME] for start in range(0, WINDOW, FRAME)]


def heard_tones(window: bytes, tones: Mapping[int, str]) -> frozenset[str]:
    """Whose tones hold a good part of what sounds in the window."""
    samples = [_LINEAR[byte] for byte in window]
    energy = sum(sample * sample for sample in samples)
    if energy < len(samples) * 100 * 100:
        return frozenset()
    found = set()
    for hertz, name in tones.items():
        factor = 2 * math.cos(2 * math.pi * hertz / RATE)
        before = last = 0.0
        for sample in samples:
            before, last = last, sample + factor * last - before
        power = last * last + before * before - factor * last * before
        if 2 * power / (len(samples) * energy) > 0.2:
            found.add(name)
    return frozenset(found)


class Stream:
    """One call's audio. Made and closed by `Audio`."""

    def __init__(self, heard: Callable[[frozenset[str]], None]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port = int(self.socket.getsockname()[1])
        self.target: tuple[str, int] | None = None
        self.muted = False
        """On hold: nothing is sent."""
        self.keys: deque[tuple[int, int]] = deque()
        """Keys to press: the code, and how many packets are still to be sent; a negative code is a pause."""
        self.heard = heard
        self.hears: frozenset[str] = frozenset()
        self.window = b""
        self.last = time.monotonic()
        self._sequence, self._stamp, self._source = (
            random.randrange(60000),
            random.randrange(1 << 30),
            random.getrandbits(32),
        )

    def press(self, digits: str) -> None:
        """Press keys one after the other, a tenth of a second each."""
        for digit in digits:
            self.keys += [(KEYS.index(digit), 8), (-1, 5)]

    def packet(self, number: int, tone: list[bytes]) -> bytes | None:
        """What is sent in the turn of that number."""
        self._sequence = self._sequence + 1 & 0xFFFF
        if self.keys:
            code, left = self.keys[0]
            self.keys[0] = (code, left - 1)
            if left <= 1:
                self.keys.popleft()
            if code >= 0:
                # A key keeps the stamp of its beginning; its last three packets say that it is over.
                body = struct.pack("!BBH", code, (0x80 if left <= 3 else 0) | 10, FRAME * (9 - left))
                packet = self._header(101, marked=left == 8) + body
                if left <= 1:
                    self._stamp = self._stamp + FRAME * 8 & 0xFFFFFFFF
                return packet
        self._stamp = self._stamp + FRAME & 0xFFFFFFFF
        return None if self.muted else self._header(0) + tone[number % PERIOD]

    def _header(self, kind: int, *, marked: bool = False) -> bytes:
        return struct.pack(
            "!BBHII", 0x80, (0x80 if marked else 0) | kind, self._sequence, self._stamp, self._source
        )

    def take(self, packet: bytes, tones: Mapping[int, str]) -> None:
        """What came in."""
        if len(packet) > 12 and packet[1] & 0x7F == 0:
            self.last = time.monotonic()
            self.window += packet[12:]
            if len(self.window) >= WINDOW:
                self._hear(heard_tones(self.window[:WINDOW], tones))
                self.window = b""

    def look(self) -> None:
        """Nothing that comes is nothing that is heard."""
        if self.hears and time.monotonic() - self.last > 0.25:
            self._hear(frozenset())

    def _hear(self, now: frozenset[str]) -> None:
        if now != self.hears:
            self.hears = now
            self.heard(now)


class Audio:
    """The thread that sends and hears the streams of one phone."""

    def __init__(self, tone: int, tones: Mapping[int, str]) -> None:
        self._tone, self._tones = (
            tone_frames(tone),
            {hertz: who for hertz, who in tones.items() if hertz != tone},
        )
        self._streams: list[Stream] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def open(self, heard: Callable[[frozenset[str]], None]) -> Stream:
        stream = Stream(heard)
        with self._lock:
            self._streams.append(stream)
        return stream

    def shut(self, stream: Stream) -> None:
        with self._lock:
            if stream in self._streams:
                self._streams.remove(stream)
                stream.socket.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join(5)
        for stream in list(self._streams):
            self.shut(stream)

    def _run(self) -> None:
        turn = 0
        due = time.monotonic()
        while not self._over.is_set():
            with self._lock:
                for stream in self._streams:
                    self._serve(stream, turn)
            turn += 1
            due = max(due + FRAME / RATE, time.monotonic() - 0.2)
            self._over.wait(max(0.0, due - time.monotonic()))

    def _serve(self, stream: Stream, turn: int) -> None:
        while True:
            try:
                packet = stream.socket.recv(2048)
            except (BlockingIOError, ConnectionError):
                break
            stream.take(packet, self._tones)
        stream.look()
        if stream.target and (packet_out := stream.packet(turn, self._tone)):
            try:
                stream.socket.sendto(packet_out, stream.target)
            except OSError:
                # Nobody listens there any more; the signalling will say so.
                return
