"""The rate of Celery alone: a task that does nothing, published and consumed as ours are.

`python -m benchmarks.bare_celery` is one worker process of it: the application, the pool and its
size are those of a Pressrun worker.
"""

import sys
import time
from contextlib import ExitStack
from typing import Any

from redis import Redis

from pipeline.settings import load_settings
from tests.harness.connected import Workdir, await_workers, redis, running
from workers.queue.celery_app import PRIORITIES, QUEUE, TASK, UNACKNOWLEDGED, list_of, make_app
from workers.queue.messages import Message, Queue

LOOK = 0.05


def main() -> None:
    """Consume until SIGTERM."""
    settings = load_settings()
    app = make_app(settings.redis_url)

    def nothing(**fields: Any) -> None:
        """The task."""

    app.task(nothing, name=TASK)
    app.Worker(
        pool="threads",
        concurrency=settings.concurrency,
        queues=[QUEUE],
        hostname=f"bare-{time.monotonic_ns()}@benchmark",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
    ).start()


def messages_per_second(workdir: Workdir, count: int, processes: int) -> float:
    """Publish so many messages over one connection to so many workers; how fast it all goes."""
    with ExitStack() as stack:
        stack.enter_context(redis(workdir))
        for _ in range(processes):
            worker = workdir.start(sys.executable, "-m", "benchmarks.bare_celery")
            stack.enter_context(running(worker))
        await_workers(workdir, processes, worker)
        begun = time.monotonic()
        Queue.connect(workdir.url).publish(
            Message("bare", "0" * 24, 1 + number // 250, f"{number:024x}")
            for number in range(count)
        )
        _await_nothing(Redis.from_url(workdir.url))
        return count / (time.monotonic() - begun)


def _await_nothing(client: "Redis") -> None:
    """Wait until no message is queued or in hand."""
    lists = [list_of(priority) for priority in range(PRIORITIES)]
    while client.exists(UNACKNOWLEDGED, *lists):
        time.sleep(LOOK)


if __name__ == "__main__":
    main()
