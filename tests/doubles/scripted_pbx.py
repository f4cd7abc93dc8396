"""A PBX made of a script: a server in the test, and the link that a listener in another process opens to it.

The PBX knows each call as a number of steps that happened; a link that reconnects is told all of them, as a real link
resyncs, and says the events that its predecessor had not said yet.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bridge.domain.calls import CallEvent, CallEventType, Directory, Remembered
from bridge.domain.errors import Unavailable
from bridge.domain.mirroring import Member
from bridge.pbx.port import (
    ActionOrder,
    Answer,
    DialOrder,
    LinkSink,
    Outcome,
    PbxFacts,
    QueueWish,
    Reason,
    Receipts,
)
from bridge.uptime import uptime

_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class ScriptedPbx:
    """The PBX. Runs in the test's process; keeps going whatever happens to its links."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._links: list[socket.socket] = []
        self.steps: dict[str, int] = {}
        """Call to the number of steps that happened."""
        self.ended: set[str] = set()
        self.dials: list[str] = []
        """Attempts whose originate arrived, in order."""
        self.hangups: list[str] = []
        self.acts: list[dict[str, str | None]] = []
        """Actions that arrived, in order."""
        self.acted: dict[str, Any] = {"reason": "done"}
        """What an action is answered; empty is silence, until `answer_acts`."""
        self._unanswered: list[tuple[socket.socket, dict[str, Any]]] = []
        self.alive: set[str] = set()
        """Attempts whose call is up."""
        self.receipts: dict[str, tuple[bool | None, ...]] = {}
        """Of agent and customer, and whether the latter answered."""
        self.answer = "sent"
        """What a dial is answered: sent, refused, or silence."""
        self.directory: dict[str, str] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End every connection."""
        # Closing alone does not wake a thread that is in accept().
        _end(self._server)
        self._server.close()
        self.drop_links()

    def kill_link(self) -> None:
        """The thread of every link dies in its process, as of a fault."""
        with self._lock:
            self._tell({"die": True})
        self.drop_links()

    def drop_links(self) -> None:
        """Lose every link, as a restart of the PBX or of a switch does."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            _end(link)

    @property
    def links(self) -> int:
        with self._lock:
            return len(self._links)

    def step(self, call: str, *, end: bool = False) -> None:
        """One thing more happens to a call."""
        with self._lock:
            self.steps[call] = self.steps.get(call, 0) + 1
            if end:
                self.ended.add(call)
            self._tell({"call": call, "steps": self.steps[call], "ended": end})

    def answer_acts(self, **answer: Any) -> None:
        """Say now what became of the actions that were met with silence."""
        with self._lock:
            waiting, self._unanswered = self._unanswered, []
            for link, reply in waiting:
                _send(link, reply | answer)

    def _tell(self, message: Mapping[str, Any]) -> None:
        for link in list(self._links):
            try:
                _send(link, message)
            except OSError:
                self._links.remove(link)

    def _accept(self) -> None:
        while True:
            try:
                link, _address = self._server.accept()
            except OSError:
                return
            try:
                with self._lock:
                    for call, steps in self.steps.items():
                        _send(link, {"call": call, "steps": steps, "ended": call in self.ended})
                    _send(link, {"synced": True})
                    self._links.append(link)
            except OSError:
                # Killed as it came.
                link.close()
                continue
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        try:
            with link, link.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    self._hear(link, json.loads(line))
        except (OSError, ValueError):
            pass
        with self._lock:
            if link in self._links:
                self._links.remove(link)

    def _hear(self, link: socket.socket, message: Mapping[str, Any]) -> None:
        with self._lock:
            if "directory" in message:
                self.directory = message["directory"]
                return
            reply: dict[str, Any] = {"reply": message["id"]}
            if "dial" in message:
                self.dials.append(message["dial"])
                if self.answer == "silence":
                    return
                if self.answer == "sent":
                    self.alive.add(message["dial"])
                reply["reason"] = self.answer
            elif "hangup" in message:
                self.hangups.append(message["hangup"])
                reply["reason"] = "sent"
            elif "act" in message:
                self.acts.append(message["act"])
                if not self.acted:
                    self._unanswered.append((link, reply))
                    return
                reply |= self.acted
            elif "receipts" in message:
                reply["receipts"] = self.receipts.get(message["receipts"], (False, False))
            elif "alive" in message:
                reply["alive"] = sorted(self.alive)
                reply["calls"] = sorted(self.steps.keys() - self.ended)
            _send(link, reply)


def _end(link: socket.socket) -> None:
    """Close it under whoever reads from it."""
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)


def _send(link: socket.socket, message: Mapping[str, Any]) -> None:
    link.sendall(json.dumps(message).encode() + b"\n")


class ScriptedLink:
    """The listener's end: a PbxLink."""

    def __init__(self, port: int, sink: LinkSink) -> None:
        self._port = port
        self._sink = sink
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: socket.socket | None = None
        self._said: dict[str, int] = {}
        self._replies: dict[int, dict[str, Any]] = {}
        self._replied = threading.Condition()
        self._next = 0
        self._started_at = _BEGAN
        self._directory = Directory()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._connection is not None:
            _end(self._connection)

    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def set_directory(self, directory: Directory) -> None:
        self._directory = directory
        if self._connection is not None:
            _send(self._connection, {"directory": dict(directory.agents)})

    def restore(self, live: Mapping[str, str]) -> None:
        self._said = {call: int(state) for call, state in live.items()}

    def remember(self, calls: Sequence[Remembered]) -> None:
        self._said |= {call.id: call.seq for call in calls}

    def dial(self, order: DialOrder) -> Outcome:
        reply = self._ask({"dial": order.attempt}, min(order.until - uptime(), 3.0))
        if reply is None:
            return Outcome(False, Reason.TIMEOUT, "no answer")
        reason = Reason(reply["reason"])
        return Outcome(reason is Reason.SENT, reason)

    def hangup(self, call: str, agent: str | None) -> Outcome:
        reply = self._ask({"hangup": call})
        return Outcome(reply is not None, Reason.SENT if reply else Reason.TIMEOUT)

    def act(self, order: ActionOrder) -> Outcome:
        body = {"action": order.action, "call": order.call, "agent": order.agent, "device": order.device}
        values = {"to": order.to, "digits": order.digits, "sound": order.sound, "side": order.side}
        reply = self._ask({"act": body | values}, order.until - uptime())
        if reply is None:
            return Outcome(False, Reason.TIMEOUT, "no answer")
        reason = Reason(reply["reason"])
        ok = reason in (Reason.SENT, Reason.DONE)
        return Outcome(ok, reason, reply.get("detail", ""), reply.get("data", {}))

    def answer(self, wish: QueueWish, answer: Answer) -> Outcome:
        return Outcome(False, Reason.NOT_FOUND)

    def receipts(self, attempt: str) -> Receipts:
        reply = self._ask({"receipts": attempt})
        return Receipts(*reply["receipts"]) if reply else Receipts(None, None)

    def live_attempts(self) -> frozenset[str]:
        return frozenset(self._alive()["alive"])

    def live_calls(self) -> frozenset[str]:
        return frozenset(self._alive()["calls"])

    def _alive(self) -> dict[str, Any]:
        reply = self._ask({"alive": True})
        if reply is None:
            raise Unavailable("the scripted PBX does not answer")
        return reply

    def members(self) -> None:
        """Its queues are not known."""

    def set_member(self, device: str, member: Member, seconds: float) -> Outcome:
        return Outcome(False, Reason.NOT_FOUND)

    def counts(self) -> Mapping[str, float]:
        return {}

    def _ask(self, message: dict[str, Any], seconds: float = 10.0) -> dict[str, Any] | None:
        """The answer; None where none came in that time, or the line was lost."""
        connection = self._connection
        if connection is None:
            return None
        with self._replied:
            self._next += 1
            number = self._next
        try:
            _send(connection, {**message, "id": number})
        except OSError:
            return None
        end = time.monotonic() + seconds
        with self._replied:
            while number not in self._replies and self._connection is connection and time.monotonic() < end:
                self._replied.wait(0.05)
            return self._replies.pop(number, None)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=1)
                self._connection.settimeout(None)
                self._read(self._connection)
            except OSError:
                pass
            self._connection = None
            if not self._stop.is_set():
                self._sink.link_down("the scripted PBX is away")
            self._stop.wait(0.1)

    def _read(self, connection: socket.socket) -> None:
        self._sink.link_up("scripted")
        _send(connection, {"directory": dict(self._directory.agents)})
        for line in connection.makefile("r", encoding="utf-8"):
            message = json.loads(line)
            if "call" in message:
                self._happened(message["call"], message["steps"], message["ended"])
            elif "die" in message:
                self._stop.set()
            elif "synced" in message:
                self._sink.resynced(PbxFacts(self._started_at, "1"))
            else:
                with self._replied:
                    self._replies[message["reply"]] = message
                    self._replied.notify_all()

    def _happened(self, call: str, steps: int, ended: bool) -> None:
        said = self._said.get(call, 0)
        if steps <= said or (ended and not said):
            # Said before; or it came and went while nobody looked, or is over and was said by a predecessor.
            return
        events: Sequence[CallEvent] = [
            CallEvent(_type(seq, steps, ended), "lab", datetime.now(UTC), call, seq)
            for seq in range(said + 1, steps + 1)
        ]
        self._said[call] = steps
        if ended:
            self._said.pop(call)
        self._sink.events(events, {call: None if ended else str(steps)})


def _type(seq: int, steps: int, ended: bool) -> CallEventType:
    if seq == 1:
        return CallEventType.STARTED
    return CallEventType.ENDED if ended and seq == steps else CallEventType.OFFERED
