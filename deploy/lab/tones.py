"""Which tone is in a recording: Goertzel's filter, so that a test can tell who heard whom.

Recordings are raw G.711 (`.ulaw`), as it came off the wire; WAV files (16-bit, mono) are read too.
"""

from __future__ import annotations

import array
import math
import sys
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path

CANDIDATES = (*range(330, 500, 40), 800, *range(1000, 2000, 10))
"""Every tone that the lab's phones (330-490 Hz), callers (800 Hz) and numbers (1000-1990 Hz) play."""

NOTICE, MUSIC = 600, 700
"""The sound `lab/notice` and the music on hold of the company's PBX."""

_WINDOW_SECONDS = 0.2
"""Long enough to tell 10 Hz apart, short enough to find a tone in a call of a second."""
_SILENCE = 160
"""Quieter than about -46 dBFS is silence."""
_PART = 0.12
"""How much of the energy one of several tones has at least."""


def dominant(path: Path, candidates: Iterable[int] = CANDIDATES) -> int | None:
    """The tone (Hz) that holds most of the recording's energy; None where it is silent or no tone.

    Windows are judged one by one and the commonest winner counts, so ringing before the answer or a
    click does not decide.
    """
    winners: dict[int, int] = {}
    hertz = tuple(candidates)
    rate, samples = _read(path)
    for window in _windows(rate, samples):
        best = max(hertz, key=lambda tone: _share(window, tone, rate))
        if _share(window, best, rate) > 0.5:
            winners[best] = winners.get(best, 0) + 1
    return max(winners, key=lambda tone: winners[tone]) if winners else None


def has_tone(path: Path, hertz: int, *, at_least_seconds: float = 0.2) -> bool:
    """Whether that tone sounds, nearly alone, for at least so long in total."""
    rate, samples = _read(path)
    heard = sum(1 for window in _windows(rate, samples) if _share(window, hertz, rate) > 0.5)
    return heard * _WINDOW_SECONDS >= at_least_seconds


def heard(
    path: Path, last: int | None = None, candidates: Iterable[int] = (*CANDIDATES, NOTICE, MUSIC)
) -> list[frozenset[int]]:
    """Which tones sound in each fifth of a second, side by side; an empty set where it is silent.

    `last` is how many of the last ones are wanted; None for all.
    """
    rate, samples = _read(path)
    size = int(rate * _WINDOW_SECONDS)
    hertz = tuple(candidates)
    found = []
    starts = range(0, len(samples) - size + 1, size)
    for start in starts if last is None else starts[-last:]:
        window = samples[start : start + size]
        loud = max(window) > _SILENCE
        found.append(frozenset(tone for tone in hertz if loud and _share(window, tone, rate) > _PART))
    return found


def write(path: Path, hertz: int, seconds: float) -> None:
    """A tone as raw G.711 (`.ulaw`) or a WAV file, by the name's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave_of = (round(8000 * math.sin(2 * math.pi * hertz * i / 8000)) for i in range(int(8000 * seconds)))
    if path.suffix == ".ulaw":
        path.write_bytes(bytes(_compress(sample) for sample in wave_of))
        return
    samples = array.array("h", wave_of)
    if sys.byteorder == "big":
        samples.byteswap()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())


def _windows(rate: int, samples: Sequence[int]) -> Iterable[Sequence[int]]:
    size = int(rate * _WINDOW_SECONDS)
    for start in range(0, len(samples) - size + 1, size):
        window = samples[start : start + size]
        if max(window) > _SILENCE:
            yield window


def _share(window: Sequence[int], hertz: int, rate: int) -> float:
    """How much of the window's energy (0 to 1) lies at this frequency."""
    turn = 2 * math.pi * hertz / rate
    factor = 2 * math.cos(turn)
    before = last = 0.0
    energy = 0
    for sample in window:
        before, last = last, sample + factor * last - before
        energy += sample * sample
    power = last * last + before * before - factor * last * before
    return 2 * power / (len(window) * energy) if energy else 0.0


def _read(path: Path) -> tuple[int, array.array[int]]:
    """Rate and 16-bit samples; a file still being written is read as far as it goes."""
    if path.suffix == ".ulaw":
        return 8000, array.array("h", (_LINEAR[byte] for byte in path.read_bytes()))
    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2 or file.getnchannels() != 1:
            raise ValueError(f"{path} is not 16-bit mono")
        rate = file.getframerate()
        raw = file.readframes(file.getnframes())
    samples = array.array("h", raw[: len(raw) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return rate, samples


def _expand(byte: int) -> int:
    """One sample of G.711 mu-law as linear PCM."""
    byte = ~byte & 0xFF
    magnitude = (((byte & 0x0F) << 3) + 0x84) << (byte >> 4 & 0x07)
    return 0x84 - magnitude if byte & 0x80 else magnitude - 0x84


def _compress(sample: int) -> int:
    """One sample of linear PCM as G.711 mu-law."""
    magnitude = min(abs(sample), 32_635) + 0x84
    exponent = magnitude.bit_length() - 8
    byte = (exponent << 4) | (magnitude >> (exponent + 3) & 0x0F) | (0x80 if sample < 0 else 0)
    return ~byte & 0xFF


_LINEAR = tuple(_expand(byte) for byte in range(256))
