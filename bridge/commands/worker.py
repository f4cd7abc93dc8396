"""`ringbridge worker`: one RQ worker on one queue."""

from __future__ import annotations

import importlib
import signal
import time
from types import FrameType
from typing import Any, NoReturn

import click
import structlog
from rq import Queue, SimpleWorker, worker_registration
from rq.serializers import JSONSerializer

from bridge import log, settings
from bridge.domain.errors import Unavailable
from bridge.live.connection import DOWN, connect_bytes

ALIVE_SECONDS = 30
"""A worker that was killed is missed within this; RQ would believe in it for 80 seconds or more."""

logger = structlog.get_logger(__name__)


_HOMES = {"dial": "dial", "default": "sweep"}
"""Where a queue's jobs are."""


class QuietWorker(SimpleWorker):
    """Waits for a Redis that went away, never names a job's arguments, and always finishes the job at hand.

    Where Redis goes away just as a job ends, RQ raises and the process ends with an error: the supervisor
    starts it anew. Whatever job was lost so, the sweep finds its work.
    """

    max_connection_wait_time = 2.0
    log_job_description = False
    asked_to_stop = False

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """The first signal: what is at hand is finished."""
        self.asked_to_stop = True
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Says also who we are: a flush forgets it, and RQ says it at the start only. It holds for half a minute."""
        pipe = self.connection.pipeline() if pipeline is None else pipeline
        pipe.hset(self.key, mapping=self.serialize())
        worker_registration.register(self, pipe)
        super().heartbeat(timeout, pipeline=pipe)
        pipe.expire(self.key, ALIVE_SECONDS)
        if pipeline is None:
            pipe.execute()

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """A second signal changes nothing: a job is short, and its timeout bounds it."""


@click.command()
@click.option(
    "--queue", type=click.Choice(["dial", "default"]), required=True, help="The one queue to work on."
)
def worker(queue: str) -> None:
    """Run a worker of one job queue.

    It waits while Redis is away; where Redis goes as a job ends, it exits with an error and wants to be started
    again. SIGTERM lets it finish its job.
    """
    loaded = settings.load()
    log.configure(loaded)
    connection = connect_bytes(loaded, reply_seconds=30)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    _wait_for(connection)
    # Else the first job waits for its imports, most of half a second. By name: bridge does not know its workers.
    importlib.import_module(f"workers.{_HOMES[queue]}")
    # The queue's own default would be RQ's pickle: whoever writes to Redis would run code here.
    listened = Queue(queue, connection=connection, serializer=JSONSerializer)
    working = QuietWorker(
        [listened],
        connection=connection,
        serializer=JSONSerializer,
        log_job_description=False,
        worker_ttl=20,
    )
    working.work(logging_level=None)
    if not working.asked_to_stop:
        # RQ gives up without a word of its own where Redis fails at an awkward moment.
        raise Unavailable("the worker lost Redis and ends; start it again")


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """Told to end before RQ listens to signals: there is no job to finish."""
    raise SystemExit(0)


def _wait_for(connection: Any) -> None:
    """Until Redis answers."""
    said = False
    while True:
        try:
            connection.ping()
        except DOWN:
            if not said:
                logger.warning("Redis does not answer; waiting for it")
                said = True
            time.sleep(0.5)
        else:
            return
