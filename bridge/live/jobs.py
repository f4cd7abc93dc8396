"""Enqueueing RQ jobs by name: JSON, ids only, never RQ's `Retry`, and never an exception for Redis.

What must happen is in SQL; a job only makes it happen sooner. So a Redis that is down costs time (the sweep
finds the work), never the work.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from redis import Redis
from rq import Queue
from rq.exceptions import DuplicateJobError
from rq.serializers import JSONSerializer

from bridge.live.connection import DOWN, bytes_twin

DIAL = "dial"
DEFAULT = "default"
_JOB_SECONDS = 60
_FAILED_KEPT_SECONDS = 24 * 3600
_QUEUED_KEPT_SECONDS = 3600

_queues: WeakKeyDictionary[Redis, dict[str, Queue]] = WeakKeyDictionary()


def enqueue(
    redis: Redis,
    queue: str,
    function: str,
    *ids: str,
    job_id: str | None = None,
    also: Callable[[Redis], None] | None = None,
) -> bool:
    """Enqueue `function` (a dotted name) with ids as its only arguments; False where Redis does not answer.

    With `job_id`, a job of that id that is still queued or running is left alone, and that is True too.
    The job's result is not kept, a failed job is for a day, one that no worker took within an hour is dropped.
    `also` writes onto the transaction in which the job goes out: nobody takes the job before that is done too.
    """
    try:
        target = _queue(redis, queue)
        with target.connection.pipeline() as pipe:
            target.enqueue_call(
                function,
                args=list(ids),
                timeout=_JOB_SECONDS,
                result_ttl=0,
                ttl=_QUEUED_KEPT_SECONDS,
                failure_ttl=_FAILED_KEPT_SECONDS,
                # RQ would put the arguments here, and into its log.
                description=function,
                job_id=job_id,
                unique=job_id is not None,
                pipeline=pipe,
            )
            if also is not None:
                also(pipe)
            pipe.execute()
    except DuplicateJobError:
        return True
    except DOWN:
        return False
    return True


def _queue(redis: Redis, name: str) -> Queue:
    """Made once for a server and name: a new one asks the server for its version."""
    queues = _queues.setdefault(redis, {})
    if name not in queues:
        others = [queue.connection for queue in queues.values()]
        twin = others[0] if others else bytes_twin(redis)
        queues[name] = Queue(name, connection=twin, serializer=JSONSerializer)
    return queues[name]
