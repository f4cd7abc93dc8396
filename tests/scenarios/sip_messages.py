"""SIP on the wire: a message read and written, a challenge answered.

Pure; only as much of RFC 3261 as a phone on loopback needs.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

_SHORT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "c": "content-type",
    "l": "content-length",
}
_SHORT |= {
    "r": "refer-to",
    "b": "referred-by",
    "e": "content-encoding",
    "s": "subject",
    "o": "event",
    "u": "allow-events",
}


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Message | None:
        """None where that is no SIP, such as a keep-alive."""
        head, _, body = data.partition(b"\r\n\r\n")
        start, *lines = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "replace")).split("\r\n")
        if "SIP/2.0" not in start:
            return None
        headers = []
        for line in lines:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers.append((_SHORT.get(name, name), value.strip()))
        return cls(start, tuple(headers), body.decode("utf-8", "replace"))

    def encode(self) -> bytes:
        body = self.body.encode()
        lines = [
            self.start,
            *(f"{name}: {value}" for name, value in self.headers),
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def get(self, name: str) -> str:
        """The first header of that name (in small letters); empty where there is none."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def all(self, name: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.headers if key.lower() == name]

    @property
    def status(self) -> int:
        """0 for a request."""
        return int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def method(self) -> str:
        """Of the request, or of that which is answered."""
        return self.cseq[1] if self.status else self.start.split(" ", 1)[0]

    @property
    def cseq(self) -> tuple[int, str]:
        number, _, method = self.get("cseq").partition(" ")
        return int(number), method.strip()

    @property
    def branch(self) -> str:
        found = re.search(r"branch=([^;,\s]+)", self.get("via"))
        return found[1] if found else ""


def answer(
    request: Message,
    status: int,
    reason: str,
    more: Sequence[tuple[str, str]] = (),
    body: str = "",
    tag: str = "",
) -> Message:
    """What is said to a request; `tag` is put to the To that has none."""
    to = request.get("to")
    if tag and not tag_of(to):
        to = f"{to};tag={tag}"
    headers = [*request.all("via"), *request.all("record-route"), ("From", request.get("from")), ("To", to)]
    headers += [("Call-ID", request.get("call-id")), ("CSeq", request.get("cseq")), *more]
    return Message(f"SIP/2.0 {status} {reason}", tuple(headers), body)


def tag_of(header: str) -> str:
    found = re.search(r";\s*tag=([^;>\s]+)", header)
    return found[1] if found else ""


def uri_of(header: str) -> str:
    """The address in a From, To or Contact."""
    found = re.search(r"<([^>]+)>", header)
    return found[1] if found else header.split(";")[0].strip()


def shown(header: str) -> str:
    """A From or P-Asserted-Identity as a phone shows it: the number, and the name where there is one."""
    user = re.search(r"sips?:([^@;>]+)@", header)
    name = re.match(r'\s*"((?:[^"\\]|\\.)*)"', header) or re.match(r"\s*([^<\"]+?)\s*<", header)
    number = user[1].replace("%2B", "+") if user else "anonymous"
    return f"{number} ({name[1]})" if name and name[1] and name[1] != number else number


def credentials(challenge: str, method: str, uri: str, user: str, password: str) -> str:
    """The header's value that answers a digest challenge (MD5, with or without qop)."""
    asked = {
        name.lower(): plain or quoted
        for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', challenge)
    }
    realm, nonce = asked["realm"], asked["nonce"]
    secret, what = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{uri}")
    parts = [f'username="{user}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"', "algorithm=MD5"]
    if "auth" in asked.get("qop", "").split(","):
        ours = secrets.token_hex(8)
        response = _md5(f"{secret}:{nonce}:00000001:{ours}:auth:{what}")
        parts += ["qop=auth", "nc=00000001", f'cnonce="{ours}"']
    else:
        response = _md5(f"{secret}:{nonce}:{what}")
    if "opaque" in asked:
        parts.append(f'opaque="{asked["opaque"]}"')
    return "Digest " + ", ".join([*parts, f'response="{response}"'])


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def offer(port: int, *, number: int = 1, direction: str = "sendrecv") -> str:
    """A session of G.711 mu-law and keys, on that port."""
    return (
        f"v=0\r\no=- {port} {number} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
        f"a=fmtp:101 0-15\r\na=ptime:20\r\na={direction}\r\n"
    )


def media(body: str) -> tuple[str, int] | None:
    """Where the other side wants its audio; None where it says nothing."""
    port = re.search(r"^m=audio (\d+)", body, re.M)
    host = re.search(r"^c=IN IP4 ([\d.]+)", body, re.M)
    return (host[1], int(port[1])) if port and host else None


def direction(body: str) -> str:
    found = re.search(r"^a=(sendrecv|sendonly|recvonly|inactive)", body, re.M)
    return found[1] if found else "sendrecv"
