"""One call of a softphone: what a person does with it, what is seen of it, and what goes over the wire for that."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from rig import until

from scenarios import sip_messages as sip
from scenarios.audio import Stream
from scenarios.sip_messages import Message

if TYPE_CHECKING:
    from scenarios.diary import Line
    from scenarios.softphone import Softphone

_CALLEE_REASONS = {
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    302: "Moved Temporarily",
    480: "Temporarily Unavailable",
}
_CALLEE_REASONS |= {486: "Busy Here", 603: "Decline"}
_AUTHENTICATE = {
    401: ("www-authenticate", "Authorization"),
    407: ("proxy-authenticate", "Proxy-Authorization"),
}
_PROVISIONAL = {180: "hears ringing", 183: "hears early media"}


class Tell(Protocol):
    """Writes a line of the diary."""

    def __call__(self, who: str, what: str, at: datetime | None = None, cause: int | None = None) -> Line: ...


class Leg:
    """One call of one phone.

    `state` is `calling`, `ringing`, `up` or `over`; `then` says what to do as soon as something is seen.
    """

    def __init__(
        self, phone: Softphone, call_id: str, mine: str, theirs: str, target: str, *, outgoing: bool
    ) -> None:
        self.phone, self.call_id, self.mine, self.theirs, self.target = phone, call_id, mine, theirs, target
        self.outgoing = outgoing
        self.state = "calling" if outgoing else "ringing"
        self.aside = ""
        """Put behind each line, where one phone has two calls."""
        self.status = 0
        """The last answer to the INVITE of a call of ours."""
        self.shows: list[str] = []
        """Who the PBX said was at the other end, one after the other."""
        self.lines: list[Line] = []
        self.then: dict[str, Callable[[Leg], object]] = {}
        self.invite: Message | None = None
        self.held = False
        self.stream: Stream = phone.audio.open(self._heard)
        self._number = secrets.randbelow(1000)
        self._version = 1
        self._said: Message | None = None

    # --- what a person does ---

    def ring(self, status: int = 180) -> None:
        """180, or 183 with early media."""
        self._answer(status, sip.offer(self.stream.port) if status == 183 else "")
        self.note("rings" if status == 180 else "plays early media")

    def answer(self) -> Line:
        with self.phone.lock:
            self.state = "up"
            self._answer(200, sip.offer(self.stream.port))
            return self.note("answers")

    def refuse(self, status: int = 486) -> Line:
        with self.phone.lock:
            self._answer(status)
            return self.over(f"answers {status}")

    def redirect(self, to: str) -> Line:
        """302: the phone itself forwards its calls."""
        with self.phone.lock:
            self._answer(302, contact=f"<sip:{to}@{self.phone.proxy[0]}:{self.phone.proxy[1]}>")
            return self.over(f"answers 302 to {to}")

    def hang_up(self) -> Line:
        """BYE; CANCEL before the answer to a call of ours, 486 to one of theirs."""
        with self.phone.lock:
            if self.state == "over":
                return self.lines[-1]
            if self.state == "ringing":
                return self.refuse(486)
            if self.state == "up":
                self.request("BYE")
                return self.over("hangs up")
            assert self.invite is not None
            self._echo(self.invite, "CANCEL", dict(self.invite.headers)["To"])
            return self.over("gives up")

    def hold(self) -> Line:
        return self._direct("sendonly", "holds the other side")

    def resume(self) -> Line:
        return self._direct("sendrecv", "resumes")

    def press(self, digits: str) -> Line:
        self.stream.press(digits)
        return self.note(f"presses {digits}")

    def refer(self, to: str) -> Line:
        """A blind transfer."""
        return self._refer(f"<sip:{to}@{self.phone.host}>", f"sends REFER to {to}")

    def refer_replacing(self, other: Leg) -> Line:
        """An attended transfer: who is here gets whom the phone has, or calls, in `other`."""
        with self.phone.lock:
            tags = f"{other.call_id};to-tag={sip.tag_of(other.theirs)};from-tag={sip.tag_of(other.mine)}"
            uri = f"{sip.uri_of(other.theirs)}?Replaces={quote(tags, safe='')}"
            return self._refer(f"<{uri}>", "sends REFER with Replaces, joining its two calls")

    # --- waited for ---

    def sees(self, what: str, seconds: float = 30.0) -> Line:
        """Wait for a line of this call; `what` may be its beginning."""
        return until(
            lambda: next((line for line in list(self.lines) if line.what.startswith(what)), None),
            seconds,
            f"{self.phone.who} {what}; it saw {[line.text for line in self.lines]}",
        )

    def hears(self, whom: str, seconds: float = 30.0) -> Line:
        """Wait until somebody's tone sounds."""
        return self.sees(f"hears {whom}", seconds)

    # --- on the wire ---

    def note(self, what: str, cause: int | None = None) -> Line:
        line = self.phone.tell(self.phone.who, what + self.aside, None, cause)
        self.lines.append(line)
        if act := self.then.get(what):
            act(self)
        return line

    def over(self, what: str, cause: int | None = None) -> Line:
        """The call has ended, for that reason."""
        self.state = "over"
        self.phone.audio.shut(self.stream)
        return self.note(what, cause)

    def request(
        self, method: str, body: str = "", more: tuple[tuple[str, str], ...] = (), *, number: int = 0
    ) -> None:
        """Send a request of this call. An ACK has the number of its INVITE."""
        if not number:
            self._number = number = self._number + 1
        via = f"SIP/2.0/UDP {self.phone.host_of_contact};branch=z9hG4bK{secrets.token_hex(8)};rport"
        headers = [("Via", via), ("Max-Forwards", "70"), ("From", self.mine), ("To", self.theirs)]
        headers += [
            ("Call-ID", self.call_id),
            ("CSeq", f"{number} {method}"),
            ("Contact", self.phone.contact),
            *more,
        ]
        headers += [
            *self.phone.marks,
            ("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY, UPDATE, INFO"),
        ]
        if body:
            headers.append(("Content-Type", "application/sdp"))
        request = Message(f"{method} {self.target} SIP/2.0", tuple(headers), body)
        if method == "INVITE":
            self.invite = request
        if method != "ACK":
            self.phone.asked[self.call_id, number, method] = (self, request)
        self.phone.send(request)

    def heard_answer(self, message: Message, asked: Message) -> None:
        """An answer to a request of ours."""
        status, method = message.status, message.method
        if status in _AUTHENTICATE and "uthorization" not in "".join(name for name, _ in asked.headers):
            if method == "INVITE":
                self._acknowledge(message, asked)
            theirs, mine = _AUTHENTICATE[status]
            uri = asked.start.split(" ")[1]
            proof = sip.credentials(message.get(theirs), method, uri, self.phone.number, self.phone.secret)
            own = tuple((name, value) for name, value in asked.headers if name in ("Refer-To", "Referred-By"))
            self.request(method, asked.body, (*own, (mine, proof)))
        elif method == "INVITE" and self.state == "calling":
            self._heard_of_call(message, asked)
        elif method == "INVITE" and status >= 200:
            self._acknowledge(message, asked)
            if status < 300 and self.state == "over":
                # Its answer and our CANCEL have met on the way.
                self.target = sip.uri_of(message.get("contact"))
                self.request("BYE")
            elif status >= 300 and self.state != "over":
                self.note(f"is refused its change ({status})")
        elif method == "REFER" and status >= 300:
            self.note(f"is refused its transfer ({status})")

    def _heard_of_call(self, message: Message, asked: Message) -> None:
        status = self.status = message.status
        if sip.tag_of(message.get("to")):
            self.theirs = message.get("to")
        if contact := message.get("contact"):
            self.target = sip.uri_of(contact)
        self._shown(message)
        self._aim(message.body)
        if status >= 200:
            self._acknowledge(message, asked)
        if status in _PROVISIONAL and not any(
            line.what.startswith(_PROVISIONAL[status]) for line in self.lines
        ):
            self.note(_PROVISIONAL[status])
        elif 200 <= status < 300:
            self.state = "up"
            self.note("is answered")
        elif status >= 300:
            self.over(f"is refused ({status})", _cause(message))

    def _acknowledge(self, message: Message, asked: Message) -> None:
        if message.status >= 300:
            self._echo(asked, "ACK", message.get("to"))
            return
        self.theirs = message.get("to")
        self.request("ACK", number=asked.cseq[0])

    def _echo(self, invite: Message, method: str, to: str) -> None:
        """A CANCEL, or the ACK of a refusal: it goes where the INVITE went, as if part of it."""
        kept = [
            (name, value)
            for name, value in invite.headers
            if name in ("Via", "Max-Forwards", "From", "Call-ID")
        ]
        headers = (*kept, ("To", to), ("CSeq", f"{invite.cseq[0]} {method}"), *self.phone.marks)
        self.phone.send(Message(invite.start.replace("INVITE", method, 1), headers))

    def _answer(self, status: int, body: str = "", contact: str | None = None) -> None:
        assert self.invite is not None
        more = [("Contact", contact or self.phone.contact)] + (
            [("Content-Type", "application/sdp")] if body else []
        )
        said = sip.answer(self.invite, status, _CALLEE_REASONS[status], more, body, sip.tag_of(self.mine))
        self._said = said
        self.phone.send(said)

    def again(self) -> None:
        """The PBX asked a second time: it gets the same answer."""
        if self._said:
            self.phone.send(self._said)

    def heard_request(self, message: Message) -> None:
        """A request of the other side's in this call."""
        match message.method:
            case "BYE":
                self.phone.reply(message, 200)
                if self.state != "over":
                    self.over("is released", _cause(message))
            case "CANCEL":
                self.phone.reply(message, 200)
                if self.state == "ringing":
                    assert self.invite is not None
                    self.phone.send(
                        sip.answer(self.invite, 487, "Request Terminated", tag=sip.tag_of(self.mine))
                    )
                    self.over("stops ringing", _cause(message))
            case "ACK":
                if act := self.then.pop("is acknowledged", None):
                    act(self)
            case "INVITE" | "UPDATE":
                self._shown(message)
                self._aim(message.body)
                mirror = {"sendonly": "recvonly", "inactive": "inactive"}.get(
                    sip.direction(message.body), "sendrecv"
                )
                self._version += 1
                body = sip.offer(self.stream.port, number=self._version, direction=mirror)
                self.phone.reply(message, 200, body if message.body or message.method == "INVITE" else "")
            case "NOTIFY":
                self.phone.reply(message, 200)
                self._told_of_transfer(message.body)
            case _:
                self.phone.reply(message, 200)

    def _told_of_transfer(self, body: str) -> None:
        told = re.match(r"SIP/2\.0 (\d+)", body)
        if not told or int(told[1]) < 200:
            return
        if int(told[1]) >= 300:
            self.note(f"is told that its transfer failed ({told[1]})")
            return
        self.note("is told that its transfer went well")
        # As phones do.
        self.hang_up()

    def take(self, invite: Message) -> None:
        """A call for this phone."""
        self.invite = invite
        self._shown(invite)
        self._aim(invite.body)

    def _shown(self, message: Message) -> None:
        asserted = message.get("p-asserted-identity") or message.get("remote-party-id")
        if asserted or not (self.shows or self.outgoing):
            seen = sip.shown(asserted or message.get("from"))
            if self.shows and seen != self.shows[-1]:
                self.note(f"is shown {seen}")
            self.shows += [seen] if seen not in self.shows[-1:] else []

    def _aim(self, body: str) -> None:
        if body and (to := sip.media(body)):
            self.stream.target = to

    def _direct(self, direction: str, what: str) -> Line:
        with self.phone.lock:
            self._version += 1
            self.stream.muted = self.held = direction != "sendrecv"
            self.request("INVITE", sip.offer(self.stream.port, number=self._version, direction=direction))
            return self.note(what)

    def _refer(self, to: str, what: str) -> Line:
        with self.phone.lock:
            self.request("REFER", more=(("Refer-To", to), ("Referred-By", f"<{self.phone.uri}>")))
            return self.note(what)

    def _heard(self, now: frozenset[str]) -> None:
        # Of the audio's thread.
        if self.state != "over":
            self.lines.append(
                self.phone.tell(self.phone.who, f"hears {' and '.join(sorted(now)) or 'nobody'}{self.aside}")
            )


def _cause(message: Message) -> int | None:
    found = re.search(r"cause\s*=\s*(\d+)", message.get("reason"))
    return int(found[1]) if found else None
