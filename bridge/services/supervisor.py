"""A small supervisor: starts children, restarts those that end, passes on their lines, and stops them in order."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.services import guard

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
STEADY_SECONDS = 30.0
"""A child that lived so long starts again at the shortest back-off."""
LINE_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Child:
    """A process to keep running. Children are stopped by rising `rank`, those of one rank together."""

    name: str
    command: tuple[str, ...]
    rank: int
    stop_seconds: float
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Run:
    child: Child
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    restart_at: float | None = None
    buffer: bytes = b""


class Supervisor:
    """Everything happens in the thread that calls `run`; `say` gets (child's name, one line without its end).

    `lock_fd` is inherited by the guard, so that whatever it locks stays locked until the last child is gone.
    """

    def __init__(
        self, say: Callable[[str, str], None], *, lock_fd: int | None = None, name: str = "up"
    ) -> None:
        self._say_line = say
        self._name = name
        self._lock_fd = lock_fd
        self._runs: list[_Run] = []
        self._selector = selectors.DefaultSelector()
        self._guard: subprocess.Popen[bytes] | None = None
        self._signals: list[int] = []
        self._caught: dict[signal.Signals, Any] = {}
        self._killed = False
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)

    @property
    def asked_to_stop(self) -> bool:
        return bool(self._signals)

    def catch_signals(self) -> None:
        """From now on SIGINT, SIGTERM and SIGHUP (unless ignored, as under nohup) ask for an orderly stop."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN or number is signal.SIGINT:
                self._caught[number] = signal.signal(
                    number, lambda number, _frame: self._signals.append(number)
                )

    def start(self, child: Child) -> None:
        """Start a child and keep it running. Raises OSError where it cannot be started at all."""
        run = _Run(child)
        self._spawn(run)
        self._runs.append(run)

    def run(self, until: Callable[[], bool] = lambda: False, timeout: float | None = None) -> bool:
        """Supervise until `until()` holds (True), or a signal asked to stop, or the time is over (False)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._signals:
            if until():
                return True
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return False
            self._turn(0.2)
        return False

    def alive(self, name: str) -> bool:
        """Whether that child runs at this moment."""
        return any(run.child.name == name and run.process is not None for run in self._runs)

    def stop(self) -> bool:
        """Stop all children in order and wait for them. True where none had to be killed.

        A second signal while stopping kills whatever is left at once.
        """
        signals_before = len(self._signals)
        for run in self._runs:
            run.restart_at = None
        for rank in sorted({run.child.rank for run in self._runs}):
            self._stop_rank([run for run in self._runs if run.child.rank == rank], signals_before)
        for run in self._runs:
            self._flush(run)
        self._close()
        return not self._killed

    def _close(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()
        if self._caught:
            # Nothing is left to stop: from here on a signal does what it does to any program.
            signal.set_wakeup_fd(-1)
            for number, handler in self._caught.items():
                signal.signal(number, handler)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _stop_rank(self, runs: Sequence[_Run], signals_before: int) -> None:
        running = [run for run in runs if run.process is not None]
        for run in running:
            self._signal(run, signal.SIGTERM)
        deadline = time.monotonic() + max((run.child.stop_seconds for run in running), default=0)
        while any(run.process is not None for run in running):
            hurried = len(self._signals) > signals_before
            if hurried or time.monotonic() > deadline:
                for run in running:
                    if run.process is not None:
                        self._killed = True
                        self._tell(f"{run.child.name} did not stop in time and is killed")
                        guard.send(guard.session_members([run.process.pid]), signal.SIGKILL)
                deadline = time.monotonic() + 5
                signals_before = len(self._signals)
            self._turn(0.05, restart=False)

    def _turn(self, seconds: float, *, restart: bool = True) -> None:
        """Pass on what the children wrote, reap those that ended, start again those whose time has come."""
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                os.read(self._wake_read, 512)
            else:
                self._read(key.data, key.fd)
        self._mind_guard()
        for run in self._runs:
            if run.process is not None and run.process.poll() is not None:
                self._ended(run, restart)
            elif restart and run.restart_at is not None and time.monotonic() >= run.restart_at:
                self._spawn(run)

    def _spawn(self, run: _Run) -> None:
        self._mind_guard()
        run.restart_at = None
        run.started = time.monotonic()
        # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the children in order.
        run.process = subprocess.Popen(
            run.child.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **run.child.environ},
        )
        self._guard_line(f"+{run.process.pid}")
        if run.process.stdout is not None:
            os.set_blocking(run.process.stdout.fileno(), False)
            self._selector.register(run.process.stdout, selectors.EVENT_READ, run)

    def _ended(self, run: _Run, restart: bool) -> None:
        process = run.process
        if process is None:
            return
        if process.stdout is not None:
            # What it wrote last; where one that it started still holds the pipe, there is no end of file.
            if process.stdout in self._selector.get_map():
                self._read(run, process.stdout.fileno())
            if process.stdout in self._selector.get_map():
                self._selector.unregister(process.stdout)
            process.stdout.close()
        # What the child itself started must not outlive it.
        guard.send(guard.session_members([process.pid]), signal.SIGKILL)
        self._guard_line(f"-{process.pid}")
        run.process = None
        self._flush(run)
        if not restart:
            return
        if time.monotonic() - run.started >= STEADY_SECONDS:
            run.failures = 0
        wait = BACKOFF_SECONDS[min(run.failures, len(BACKOFF_SECONDS) - 1)]
        run.failures += 1
        run.restart_at = time.monotonic() + wait
        self._tell(f"{run.child.name} {_how(process.returncode)}; starting it again in {wait:g} s")

    def _signal(self, run: _Run, number: signal.Signals) -> None:
        if run.process is not None:
            guard.send([run.process.pid], number)

    def _read(self, run: _Run, fd: int) -> None:
        """Everything that is there; a child's line may come in pieces."""
        while True:
            try:
                piece = os.read(fd, LINE_LIMIT)
            except BlockingIOError:
                return
            if not piece:
                self._selector.unregister(fd)
                return
            *lines, run.buffer = (run.buffer + piece).split(b"\n")
            for line in lines:
                self._say_line(run.child.name, line.decode("utf-8", "replace").rstrip("\r"))
            if len(run.buffer) > LINE_LIMIT:
                self._flush(run)

    def _flush(self, run: _Run) -> None:
        if run.buffer:
            self._say_line(run.child.name, run.buffer.decode("utf-8", "replace"))
            run.buffer = b""

    def _tell(self, text: str) -> None:
        self._say_line(self._name, text)

    def _mind_guard(self) -> None:
        if self._guard is not None and self._guard.poll() is None:
            return
        self._guard = subprocess.Popen(
            [sys.executable, "-I", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=() if self._lock_fd is None else (self._lock_fd,),
        )
        for run in self._runs:
            if run.process is not None:
                self._guard_line(f"+{run.process.pid}")

    def _guard_line(self, line: str) -> None:
        if self._guard is None or self._guard.stdin is None:
            return
        try:
            self._guard.stdin.write(line.encode() + b"\n")
            self._guard.stdin.flush()
        except BrokenPipeError:
            # It died; the next turn starts another and tells it everything.
            return


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
