"""Reads a PBX's mailbox while the lease is held, and hands each command to a thread that carries it out once.

Dials wait for their turn, hang-ups for nobody, and an action on a call for the one that the same people asked for
before it: who holds and resumes at once must not resume first, and a slow one holds up no other.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import structlog

from bridge.domain.errors import Unavailable
from bridge.live.connection import DOWN
from bridge.live.mailbox import Command, Fence, Kind, Mailbox
from bridge.services import actions
from bridge.services.last_words import told
from bridge.services.lease import LeaseKeeper
from bridge.services.orders import Orders

log = structlog.get_logger(__name__)

_COMMANDS_IN_WORK = 16
"""Dials and hang-ups."""
_ACTIONS_IN_WORK = 200
_DIAL_THREADS = 6
_HANGUP_THREADS = 2
_MAILBOX_BLOCK_MS = 500
_LEFT_OVER_SECONDS = 5.0

Work = Callable[[threading.Event], None]


class Mailroom:
    """The mailbox of one PBX, for one term of office."""

    def __init__(
        self, mailbox: Mailbox, orders: Orders, keeper: LeaseKeeper, died: Callable[[str, str], None]
    ) -> None:
        """`died` is told where a thread ends by a fault, and why."""
        self._mailbox = mailbox
        self._orders = orders
        self._keeper = keeper
        self._died = died
        self._lock = threading.Lock()
        self._in_work: dict[str, Command] = {}
        self._carrying_out = 0
        self._dials: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._hangups: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._lanes: dict[actions.Lane, deque[Command]] = {}
        """Actions that wait for one before them; a lane is there while a thread works it off."""

    @property
    def busy(self) -> bool:
        """Whether something is being carried out."""
        return self._carrying_out > 0

    def threads(self) -> Iterator[tuple[str, Work]]:
        """What has to run, each in a thread of its own, until the event it is given."""
        yield "mailbox", self._read
        # Apart, so that a hang-up never waits behind dials that wait for their turn.
        for commands, count in ((self._dials, _DIAL_THREADS), (self._hangups, _HANGUP_THREADS)):
            for _ in range(count):
                yield "commands", partial(self._work, commands)

    def attempts_in_work(self) -> frozenset[str]:
        """Attempts of which a dial was read and not answered yet."""
        with self._lock:
            return frozenset(
                str(command.data.get("attempt"))
                for command in self._in_work.values()
                if command.kind == Kind.DIAL
            )

    def _read(self, stop: threading.Event) -> None:
        next_left_over = 0.0
        while not stop.is_set():
            try:
                if time.monotonic() >= next_left_over:
                    if not self._settle_left_over(stop):
                        stop.wait(0.1)
                        continue
                    next_left_over = time.monotonic() + _LEFT_OVER_SECONDS
                self._take(stop)
            except Unavailable as error:
                log.warning("left-over commands wait for the database", why=error.message)
                stop.wait(0.5)
            except DOWN:
                # The publisher says so. A command may have been read without our knowing: look for left-overs.
                next_left_over = 0.0
                stop.wait(0.2)

    def _take(self, stop: threading.Event) -> None:
        with self._lock:
            acting = sum(command.kind == Kind.ACTION for command in self._in_work.values())
            room = _COMMANDS_IN_WORK - (len(self._in_work) - acting)
        if room <= 0:
            stop.wait(0.02)
            return
        found = self._mailbox.read(room)
        if isinstance(found, Fence):
            self._fenced(found, stop)
            return
        for command in found:
            self._submit(command, acting, stop)
            acting += command.kind == Kind.ACTION
        if not found:
            self._mailbox.wait(_MAILBOX_BLOCK_MS)

    def _fenced(self, fence: Fence, stop: threading.Event) -> None:
        if fence is Fence.FENCED:
            self._keeper.verify()
        else:
            self._mailbox.begin_again()
        # The publisher restores the epoch.
        stop.wait(0.05)

    def _submit(self, command: Command, acting: int, stop: threading.Event) -> None:
        if command.kind == Kind.ACTION and acting >= _ACTIONS_IN_WORK:
            self._orders.answer(command, "refused", "too much is being done at once; nothing was done")
            return
        with self._lock:
            self._in_work[command.entry] = command
        if command.kind == Kind.ACTION:
            self._into_lane(command, stop)
        else:
            (self._dials if command.kind == Kind.DIAL else self._hangups).put(command)

    def _work(self, commands: queue.SimpleQueue[Command], stop: threading.Event) -> None:
        """Carry out commands until `stop`; what was not begun is left over for the next holder."""
        while not stop.is_set():
            try:
                command = commands.get(timeout=0.2)
            except queue.Empty:
                continue
            if stop.is_set():
                return
            self._carry_out(command)

    def _into_lane(self, command: Command, stop: threading.Event) -> None:
        lane = actions.lane(command.data)
        with self._lock:
            waiting = self._lanes.get(lane)
            if waiting is not None:
                waiting.append(command)
                return
            self._lanes[lane] = deque([command])
        threading.Thread(target=self._work_off, args=(lane, stop), name="action", daemon=True).start()

    def _work_off(self, lane: actions.Lane, stop: threading.Event) -> None:
        """One action after the other, until none waits in this lane; what was not begun by `stop` is left over."""
        while not stop.is_set():
            with self._lock:
                waiting = self._lanes[lane]
                if not waiting:
                    del self._lanes[lane]
                    return
                command = waiting.popleft()
            try:
                self._carry_out(command)
            except BaseException as error:  # noqa: BLE001 - told to the main thread, which raises it
                self._died("actions", told(error))
                return

    def _carry_out(self, command: Command) -> None:
        with self._lock:
            self._carrying_out += 1
        try:
            self._orders.carry_out(command)
        except DOWN:
            log.warning("a command could not be answered: Redis does not answer", command=command.id)
        finally:
            with self._lock:
                self._carrying_out -= 1
                self._in_work.pop(command.entry, None)

    def _settle_left_over(self, stop: threading.Event) -> bool:
        """Answer what was read and never answered, without running it again. False while the epoch is not there."""
        with self._lock:
            busy = set(self._in_work)
        found = self._mailbox.left_over()
        if isinstance(found, Fence):
            self._fenced(found, stop)
            return False
        for command in found:
            if command.entry in busy:
                continue
            attempt = command.data.get("attempt")
            if command.kind == Kind.DIAL and isinstance(attempt, str):
                self._orders.never_sent(attempt)
            log.warning("a command was left over and is not run again", command=command.id, kind=command.kind)
            self._orders.answer(
                command,
                "unknown",
                "the listener was interrupted; it is not known whether this happened, look at the call",
            )
        return True
