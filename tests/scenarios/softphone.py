"""A phone of the company, or a caller's by the trunk, speaking SIP itself: it does to the millisecond what it is told.

What it sees and does it tells a diary in the words of the world's phones. Loopback loses no packet, so nothing is
sent twice unasked. One thread reads the signalling; what a call's `then` names runs in it, before the next message.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from rig import until

from ringbridge_lab.lab import Lab
from scenarios import sip_messages as sip
from scenarios.audio import Audio
from scenarios.sip_messages import Message
from scenarios.softphone_leg import Leg as Leg
from scenarios.softphone_leg import Tell

TONES = {**{330 + 40 * place: str(101 + place) for place in range(8)}, 800: "the caller", 900: "the caller"}
"""Who of the lab plays what; a caller who is a softphone has 900 Hz."""
CALLER_TONE = 900


class Softphone:
    """`who` is its extension, or the number of a caller outside; `manner` is what it does with a call that comes in."""

    def __init__(
        self,
        who: str,
        proxy: tuple[str, int],
        tell: Tell,
        *,
        tone: int,
        tones: Mapping[int, str],
        port: int = 0,
        secret: str = "",
        name: str = "",
        told: str = "",
        marks: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.number, self.who = who, told or who
        self.proxy, self.tell, self.secret, self.marks = proxy, tell, secret, marks
        self.lock = threading.RLock()
        self.legs: list[Leg] = []
        self.manner: Callable[[Leg], object] = Leg.ring
        self.asked: dict[tuple[str, int, str], tuple[Leg, Message]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        port = self._socket.getsockname()[1]
        self.host_of_contact = f"127.0.0.1:{port}"
        self.host = f"{proxy[0]}:{proxy[1]}"
        self.contact = f"<sip:{who}@{self.host_of_contact}>"
        self.uri = f"sip:{who}@{self.host}"
        self._shown_name = f'"{name}" ' if name else ""
        self.audio = Audio(tone, tones)
        self._over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Hang up what is left, and be gone."""
        for leg in self.legs:
            with suppress(OSError):
                leg.hang_up()
        self._over = True
        self._socket.sendto(b"", self._socket.getsockname())
        self._reader.join(5)
        self._socket.close()
        self.audio.close()

    def call(
        self, to: str, *, aside: str = "", then: Mapping[str, Callable[[Leg], object]] | None = None
    ) -> Leg:
        """Dial; returns at once."""
        mine = f"{self._shown_name}<{self.uri}>;tag={secrets.token_hex(6)}"
        uri = f"sip:{to}@{self.host}"
        with self.lock:
            leg = Leg(self, secrets.token_hex(12), mine, f"<{uri}>", uri, outgoing=True)
            leg.aside = aside
            leg.then.update(then or {})
            self.legs.append(leg)
            leg.lines.append(self.tell(self.who, f"dials {to}"))
            leg.request("INVITE", sip.offer(leg.stream.port))
        return leg

    def rings(self, nth: int = 1, seconds: float = 30.0) -> Leg:
        """Wait for the nth call that comes in."""

        def coming() -> Leg | None:
            found = [leg for leg in list(self.legs) if not leg.outgoing]
            return found[nth - 1] if len(found) >= nth else None

        return until(coming, seconds, f"a call for {self.who}")

    def answers_after(self, seconds: float) -> None:
        """From now on it rings so long, and answers."""

        def manner(leg: Leg) -> None:
            leg.ring()
            timer = threading.Timer(seconds, lambda: leg.state == "ringing" and leg.answer())
            timer.daemon = True
            timer.start()

        self.manner = manner

    def send(self, message: Message) -> None:
        self._socket.sendto(message.encode(), self.proxy)

    def reply(self, request: Message, status: int, body: str = "") -> None:
        more = [("Contact", self.contact)] + ([("Content-Type", "application/sdp")] if body else [])
        self.send(
            sip.answer(request, status, "OK" if status == 200 else "No", more, body, secrets.token_hex(6))
        )

    def _read(self) -> None:
        while not self._over:
            try:
                data = self._socket.recv(65536)
            except ConnectionError:
                continue
            message = Message.parse(data) if data else None
            if message:
                with self.lock:
                    self._hear(message)

    def _hear(self, message: Message) -> None:
        call_id = message.get("call-id")
        if message.status:
            known = self.asked.get((call_id, *message.cseq))
            if known:
                known[0].heard_answer(message, known[1])
            return
        leg = next((leg for leg in self.legs if leg.call_id == call_id), None)
        if leg is None and message.method == "INVITE":
            self._called(message)
        elif leg is None:
            # What the PBX asks outside of any call, and the end of one that is forgotten.
            if message.method != "ACK":
                self.reply(message, 200 if message.method in ("OPTIONS", "NOTIFY") else 481)
        elif (
            message.method == "INVITE"
            and leg.invite
            and leg.invite.branch == message.branch
            and not leg.outgoing
        ):
            leg.again()
        else:
            leg.heard_request(message)

    def _called(self, invite: Message) -> None:
        mine = f"{invite.get('to')};tag={secrets.token_hex(6)}"
        target = sip.uri_of(invite.get("contact"))
        leg = Leg(self, invite.get("call-id"), mine, invite.get("from"), target, outgoing=False)
        leg.take(invite)
        self.legs.append(leg)
        self.manner(leg)


def phone_of(lab: Lab, extension: str, tell: Tell, tones: Mapping[int, str] = TONES) -> Softphone:
    """One of the company's phones that nobody else plays."""
    ports = lab.state.ports
    tone = next(hertz for hertz, who in TONES.items() if who == extension)
    return Softphone(
        extension,
        ("127.0.0.1", ports.company_sip),
        tell,
        tone=tone,
        tones=tones,
        port=ports.softphone(extension),
        secret=lab.state.secrets.phone,
    )


def caller_of(
    lab: Lab, number: str, tell: Tell, *, told: str = "", name: str = "", tones: Mapping[int, str] = TONES
) -> Softphone:
    """Somebody outside, by the trunk."""
    target = ("127.0.0.1", int(lab.info["company"]["trunk_sip_port"]))
    # How the lab's Asterisk knows its trunk; FreeSWITCH knows it by the port.
    marks = (("X-Lab-Line", "trunk"),)
    return Softphone(number, target, tell, tone=CALLER_TONE, tones=tones, name=name, told=told, marks=marks)
