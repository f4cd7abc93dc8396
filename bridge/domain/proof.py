"""A puzzle that costs a page a second and a flood a lot: written and checked with a key, nothing of it is stored.

A challenge is `<until>.<bits>.<random>.<mac>`. Its answer is a nonce such that SHA-256 of `challenge:nonce` begins with
`bits` zero bits. No clock: times are passed in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import datetime, timedelta
from math import log2

from bridge.domain.errors import Invalid

LIFE = timedelta(minutes=10)
"""Long enough for a form that is filled in slowly: the page asks as the visitor begins to write."""
BITS = 16
"""65,000 hashes on average: a fraction of a second on any phone."""
FEWEST_BITS, MOST_BITS = 8, 24
MOST_RISE = 6
_CALM = 0.25
"""Up to this share of what a site takes in an hour the puzzle stays as it is."""
_PROOF = re.compile(
    r"(?P<challenge>(?P<until>\d{10})\.(?P<bits>\d{1,2})\.(?P<random>[A-Za-z0-9_-]{16})\.(?P<mac>[A-Za-z0-9_-]{22}))"
    r":(?P<nonce>[A-Za-z0-9_-]{1,40})"
)

WAIT = timedelta(seconds=4)
"""How long a person takes for a form at the very least."""
PASS_LIFE = timedelta(hours=1)
_PASS = re.compile(
    r"(?P<head>wait\.(?P<at>\d{10})\.(?P<random>[A-Za-z0-9_-]{16}))\.(?P<mac>[A-Za-z0-9_-]{22})"
)


class ProofNeeded(Invalid):
    """This form needs a proof that a page sent it; load the page again, or call us."""

    code = "proof_needed"


class TooSoon(Invalid):
    """This form was sent faster than a person fills it in; wait a few seconds and send it again."""

    code = "too_soon"


class ProofInvalid(Invalid):
    """This proof is wrong, too old, or was used before; ask for a new challenge."""

    code = "proof_invalid"


def bits_under_load(bits: int, asked: int, most: int) -> int:
    """How hard the puzzle is while `asked` requests, taken or refused, came in an hour of the `most` a site takes.

    Each doubling costs a flood twice as much; the rise is bounded, so that an honest phone still gets through.
    """
    calm = max(1.0, most * _CALM)
    rise = 0 if asked <= calm else min(MOST_RISE, 1 + int(log2(asked / calm)))
    return min(MOST_BITS, bits + rise)


def new_challenge(key: bytes, site: str, bits: int, random: bytes, now: datetime) -> str:
    """A challenge for that site; `random` are 12 bytes that nobody can foresee."""
    shown = base64.urlsafe_b64encode(random[:12]).decode()
    head = f"{int((now + LIFE).timestamp()):010d}.{bits}.{shown}"
    return f"{head}.{_mac(key, site, head)}"


def check_proof(key: bytes, site: str, proof: str, now: datetime) -> str:
    """What names the challenge, which the caller sees to it is used once. Raises ProofInvalid(field="proof")."""
    match = _PROOF.fullmatch(proof)
    if match is None:
        raise ProofInvalid(field="proof")
    head = f"{match['until']}.{match['bits']}.{match['random']}"
    if not hmac.compare_digest(_mac(key, site, head), match["mac"]):
        raise ProofInvalid(field="proof")
    if now.timestamp() >= int(match["until"]) or not is_solved(proof, int(match["bits"])):
        raise ProofInvalid(field="proof")
    return match["random"]


def is_solved(proof: str, bits: int) -> bool:
    """Whether the hash of `challenge:nonce` begins with so many zero bits."""
    digest = int.from_bytes(hashlib.sha256(proof.encode()).digest(), "big")
    return digest >> (256 - bits) == 0


def new_pass(key: bytes, site: str, random: bytes, now: datetime) -> str:
    """What a page without scripts carries instead of a solved puzzle; good once, from `WAIT` on for as long as one."""
    shown = base64.urlsafe_b64encode(random[:12]).decode()
    head = f"wait.{int(now.timestamp()):010d}.{shown}"
    return f"{head}.{_mac(key, site, head)}"


def is_pass(text: str) -> bool:
    """Whether it claims to be one of `new_pass`."""
    return text.startswith("wait.")


def check_pass(key: bytes, site: str, text: str, now: datetime) -> str:
    """What names the pass, which the caller sees to it is used once. Raises TooSoon, ProofInvalid."""
    match = _PASS.fullmatch(text)
    if match is None or not hmac.compare_digest(_mac(key, site, match["head"]), match["mac"]):
        raise ProofInvalid(field="proof")
    age = now.timestamp() - int(match["at"])
    if age >= PASS_LIFE.total_seconds():
        raise ProofInvalid(field="proof")
    if age < WAIT.total_seconds():
        raise TooSoon(field="proof")
    return match["random"]


def solve(challenge: str, bits: int) -> str:
    """The proof, found as a page finds it; for tests and programs."""
    nonce = 0
    while not is_solved(f"{challenge}:{nonce}", bits):
        nonce += 1
    return f"{challenge}:{nonce}"


def _mac(key: bytes, site: str, head: str) -> str:
    digest = hmac.new(key, f"challenge:{site}:{head}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest[:16]).decode().rstrip("=")
