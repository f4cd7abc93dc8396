"""One native thread with a gevent hub of its own, which other threads ask to do things.

Nothing is monkey-patched: outside this thread the process is an ordinary one, and inside it only greenswitch's
gevent sockets and our gevent waits are used.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gevent
from gevent.event import Event

log = logging.getLogger(__name__)
T = TypeVar("T")

Work = Callable[[], None]


class HubThread:
    """Runs some greenlets until it is stopped or the first of them ends; `ask` runs one more and waits for it."""

    def __init__(self, name: str, keepers: Callable[[Event], Sequence[Work]]) -> None:
        """`keepers` gives what to run; each is handed nothing and looks at the event, which says that it is over."""
        self._name = name
        self._keepers = keepers
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        """Guards the bell, which must not be rung once its loop is gone."""
        self._bell: Any = None
        self._asked: deque[Work] = deque()
        self._working: set[gevent.Greenlet] = set()

    @property
    def begun(self) -> bool:
        """Whether it was ever started."""
        return self._thread is not None

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread; returns when it can be asked."""
        if self._thread is not None:
            return
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=self._name, daemon=True)
        self._thread.start()
        ready.wait(5)

    def stop(self) -> None:
        """End the thread and all that runs in it; waits for some seconds."""
        self._stopping.set()
        self._ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(10)

    def is_running(self) -> bool:
        """False before the start, once stopped, and where it died."""
        return self._thread is not None and self._thread.is_alive()

    def ask(self, work: Callable[[], T], deadline: float, otherwise: T) -> T:
        """What `work` gives, run in a greenlet of the hub; `otherwise` where it does not end in time.

        Work that has not begun by then never begins. Raises what the work raises.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def carry_out() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except gevent.GreenletExit:
                future.set_result(otherwise)
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
                future.set_exception(error)

        self._asked.append(carry_out)
        if not self._ring():
            return otherwise
        try:
            return future.result(deadline)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            return otherwise

    def _ring(self) -> bool:
        with self._lock:
            if self._bell is None:
                return False
            self._bell.send()
            return True

    # --- in the thread ---

    def _run(self, ready: threading.Event) -> None:
        try:
            hub = gevent.get_hub()
            ending = Event()

            def rung() -> None:
                if self._stopping.is_set():
                    ending.set()
                while self._asked:
                    greenlet = gevent.spawn(self._asked.popleft())
                    self._working.add(greenlet)
                    greenlet.rawlink(self._working.discard)

            bell = hub.loop.async_()
            bell.start(rung)
            with self._lock:
                self._bell = bell
            ready.set()
            self._ring()
            try:
                self._keep(ending)
            finally:
                with self._lock:
                    self._bell = None
                rung()
                end_all(list(self._working))
                bell.stop()
                bell.close()
                hub.destroy(destroy_loop=True)
            log.debug("the thread %s has ended", self._name)
        except BaseException as error:
            # Whoever holds the link asks whether it runs.
            log.critical("the thread %s died of a fault (%s)", self._name, type(error).__name__)
            log.debug("the fault", exc_info=error)
            ready.set()

    def _keep(self, ending: Event) -> None:
        # Not by killing them alone: of what they wait for, the one exception may be swallowed.
        keepers = [gevent.spawn(keeper) for keeper in self._keepers(ending)]
        try:
            over = gevent.wait([ending, *keepers], count=1)
            for keeper in over:
                if keeper is not ending:
                    keeper.get()
        finally:
            end_all(keepers)


def end_all(greenlets: Sequence[gevent.Greenlet]) -> None:
    """Kill until they have ended: a wait that is over in the same moment may swallow one kill."""
    pending = [greenlet for greenlet in greenlets if not greenlet.dead]
    while pending:
        for greenlet in pending:
            greenlet.kill(block=False)
        gevent.joinall(pending, timeout=0.1)
        pending = [greenlet for greenlet in pending if not greenlet.dead]
