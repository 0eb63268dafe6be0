"""The one Celery task: one message, one job."""

from typing import Any

from celery import Celery, Task
from structlog.contextvars import bound_contextvars

from workers.app import TASK
from workers.backlog import SENT
from workers.queue import Message
from workers.runtime import Runtime
from workers.tracing import job_span


def register(app: Celery, runtime: Runtime) -> None:
    """Give the application its task, bound to this process's runtime.

    Celery tries nothing again by itself: when a job is sent again is the flow's affair.
    """

    def generate(task: Task, **fields: Any) -> None:
        """Execute one job."""
        message, headers = Message(**fields), task.request.headers or {}
        runtime.metrics.begun(headers.get(SENT))
        with (
            bound_contextvars(run=message.run, job=message.job),
            job_span(message.run, message.job, headers, runtime.traced),
            runtime.metrics.working(),
        ):
            runtime.execute(message)

    app.task(generate, name=TASK, shared=False, bind=True)
