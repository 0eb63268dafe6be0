"""The one Celery task: one message, one job."""

import random
from dataclasses import asdict
from typing import Any

from celery import Celery, Task

from pipeline.errors import StoreError, Unavailable
from workers.app import TASK
from workers.queue import Message
from workers.runtime import Runtime

TRIES = 5
LONGEST_WAIT = 60.0


def register(app: Celery, runtime: Runtime) -> None:
    """Give the application its task, bound to this process's runtime."""

    def generate(self: "Task[Any, Any]", **fields: Any) -> None:
        """Execute one job; a service that fails puts it back with growing waits."""
        message = Message(**fields)
        try:
            runtime.execute(message)
        except (Unavailable, StoreError) as error:
            if self.request.retries >= TRIES - 1:
                runtime.give_up(message, f"{TRIES} tries: {error}")
                return
            raise self.retry(
                kwargs=asdict(message), exc=error, countdown=_wait(self.request.retries)
            ) from error

    app.task(generate, name=TASK, bind=True, shared=False, max_retries=TRIES - 1)


def _wait(retries: int) -> float:
    """Seconds before the next try: exponential with full jitter."""
    return random.uniform(0.5, min(LONGEST_WAIT, 2.0**retries + 0.5))
