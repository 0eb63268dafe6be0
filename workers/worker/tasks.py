"""The one Celery task: one message, one job."""

from typing import Any

from celery import Celery, Task
from structlog.contextvars import bound_contextvars

from workers.observability.tracing import job_span
from workers.queue.backlog import SENT
from workers.queue.celery_app import TASK
from workers.queue.messages import Message
from workers.worker.executor import Executor


def register(app: Celery, executor: Executor) -> None:
    """Give the application its task, bound to this process's runtime.

    Celery tries nothing again by itself: when a job is sent again is the flow's affair.
    """

    def generate(task: Task, **fields: Any) -> None:
        """Execute one job."""
        message, headers = Message(**fields), task.request.headers or {}
        executor.metrics.begun(headers.get(SENT))
        with (
            bound_contextvars(run=message.run, job=message.job),
            job_span(message.run, message.job, headers, executor.traced),
            executor.metrics.working(),
        ):
            executor.execute(message)

    app.task(generate, name=TASK, shared=False, bind=True)
