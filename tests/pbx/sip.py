"""A caller who writes the SIP by hand, as an attacker may: one socket, one call, any bytes in the From header."""

from __future__ import annotations

import re
import secrets
import socket
import time

from ringbridge_lab.lab import Lab


class RawCaller:
    """Calls the company by its trunk; what is not SIP's own is sent as it is given."""

    def __init__(self, lab: Lab, to: str, number: str, name: bytes) -> None:
        company = lab.info["company"]
        self._target = ("127.0.0.1", int(company["trunk_sip_port"]))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._media.bind(("127.0.0.1", 0))
        self._me = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._uri = f"sip:{to}@127.0.0.1:{self._target[1]}".encode()
        self._from = b'"' + name + f'" <sip:{number}@127.0.0.1>;tag={secrets.token_hex(4)}'.encode()
        self._to = b"<" + self._uri + b">"
        self._call = secrets.token_hex(16).encode()
        self._branch = secrets.token_hex(8)

    def call(self, patience: float = 10.0) -> int | None:
        """Wait for the INVITE's final answer; its status. None where there was none: then the caller gives up."""
        port = self._media.getsockname()[1]
        body = (
            f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
        ).encode()
        self._send("INVITE", 1, body)
        status = self._final(patience)
        if status is None:
            self._send("CANCEL", 1)
            assert self._final(20.0) == 487
        return status

    def _final(self, seconds: float) -> int | None:
        """The INVITE's final answer, acknowledged."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                answer = self._socket.recv(65536)
            except TimeoutError:
                return None
            status = re.match(rb"SIP/2\.0 (\d+)", answer)
            if status is None or int(status[1]) < 200 or not re.search(rb"^CSeq:\s*1 INVITE", answer, re.M | re.I):
                continue
            to = re.search(rb"^(?:To|t)\s*:\s*(.+?)\r?$", answer, re.M | re.I)
            assert to is not None
            self._to = to[1]
            self._send("ACK", 1)
            return int(status[1])
        return None

    def hang_up(self) -> None:
        """End the answered call."""
        self._branch = secrets.token_hex(8)
        self._send("BYE", 2)

    def close(self) -> None:
        self._socket.close()
        self._media.close()

    def _send(self, method: str, number: int, body: bytes = b"") -> None:
        lines = [
            method.encode() + b" " + self._uri + b" SIP/2.0",
            f"Via: SIP/2.0/UDP {self._me};branch=z9hG4bK{self._branch};rport".encode(),
            b"Max-Forwards: 70",
            b"From: " + self._from,
            b"To: " + self._to,
            b"Call-ID: " + self._call,
            f"CSeq: {number} {method}".encode(),
            f"Contact: <sip:caller@{self._me}>".encode(),
            # How the lab's Asterisk knows its trunk; FreeSWITCH knows it by the port.
            b"X-Lab-Line: trunk",
            f"Content-Length: {len(body)}".encode(),
        ]
        if body:
            lines.append(b"Content-Type: application/sdp")
        self._socket.sendto(b"\r\n".join(lines) + b"\r\n\r\n" + body, self._target)
