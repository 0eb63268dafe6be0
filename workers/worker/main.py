"""One worker process: Celery's thread pool around one device. Its supervisor starts it."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from structlog.contextvars import bound_contextvars

from pipeline.assemble.assembly import Assembly
from pipeline.errors import ConfigError
from pipeline.settings import Settings, load_settings
from pipeline.telemetry import observe
from pipeline.watchdog import beat
from workers.observability.logs import start_logs
from workers.processes.lifecycle import Exit
from workers.worker.shutdown import Shutdown

if TYPE_CHECKING:
    from celery import Celery, Task

    from workers.worker.executor import Executor


def main(pipe: int, assembly: Callable[[Settings], Assembly] = Assembly) -> NoReturn:
    """Work until SIGTERM with the result of `assembly`; `pipe` is the descriptor for heartbeats."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.set_inheritable(pipe, False)
    try:
        settings = load_settings()
        start_logs(settings, libraries=True)
        shutdown = Shutdown(settings, pipe)
        shutdown.start_heartbeats()
        code = serve(settings, shutdown, assembly)
    except ConfigError as error:
        logging.critical("%s", error)
        sys.exit(Exit.MISCONFIGURED)
    shutdown.exit(code)


def serve(settings: Settings, shutdown: Shutdown, assembly: Callable[[Settings], Assembly]) -> int:
    """Work until SIGTERM and return the exit code. Raises ConfigError, Unavailable.

    In threads, because their model calls meet in the batchers that keep the device full.
    """
    # heavy; heartbeats go on meanwhile
    from celery import signals

    from workers.observability.metrics_server import exposed
    from workers.observability.tracing import traced
    from workers.queue.backlog import Backlog
    from workers.queue.celery_app import QUEUE, BrokerWatch, install_transport, make_app
    from workers.worker.executor import Executor

    install_transport()
    app = make_app(settings.redis_url, settings.broker_url)
    ours = assembly(settings)
    shutdown.executor = executor = Executor(settings, shutdown.report_unhealthy, ours)
    register(app, executor)
    signals.worker_shutting_down.connect(shutdown.start_grace_period, weak=False)
    # a job that took no step of any model is no hang either
    signals.task_postrun.connect(lambda **_: beat(), weak=False)
    threading.Thread(target=executor.warm_up, args=(settings.chosen_profile,), daemon=True).start()
    worker = app.Worker(
        pool="threads",
        concurrency=settings.concurrency,
        queues=[QUEUE],
        hostname=executor.name,
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
    )
    shutdown.broker = BrokerWatch(worker, settings.concurrency)
    observe(executor.metrics)
    with (
        traced(settings, "pressrun-worker"),
        exposed(settings, executor.metrics.registry, Backlog.of(settings)),
    ):
        worker.start()
    executor.flush()
    # what still loads is left to the end of the process
    shutdown.close(ours)
    return int(worker.exitcode or Exit.DONE)


def register(app: "Celery", executor: "Executor") -> None:
    """Register the one Celery task: one message, one job.

    Celery retries nothing: the flow decides which jobs are sent again.
    """
    from workers.observability.tracing import job_span
    from workers.queue.backlog import SENT
    from workers.queue.celery_app import TASK
    from workers.queue.messages import Message

    def generate(task: "Task", **fields: Any) -> None:
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


if __name__ == "__main__":
    main(int(sys.argv[1]))
