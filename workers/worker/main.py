"""One worker process: Celery's threads pool around one device. Its supervisor starts it."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from pipeline.assemble import Assembly
from pipeline.errors import ConfigError
from pipeline.settings import Settings, load_settings
from pipeline.telemetry import observe
from pipeline.watchdog import beat
from workers.observability.logs import start_logs
from workers.processes.exit_codes import Exit
from workers.worker.shutdown import Lifeline


def main(pipe: int, assembly: Callable[[Settings], Assembly] = Assembly) -> NoReturn:
    """Work until SIGTERM with what `assembly` makes; the pulse goes to the descriptor `pipe`."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.set_inheritable(pipe, False)
    try:
        settings = load_settings()
        start_logs(settings, libraries=True)
        lifeline = Lifeline(settings, pipe)
        lifeline.start()
        code = serve(settings, lifeline, assembly)
    except ConfigError as error:
        logging.critical("%s", error)
        sys.exit(Exit.MISCONFIGURED)
    lifeline.end(code)


def serve(settings: Settings, lifeline: Lifeline, assembly: Callable[[Settings], Assembly]) -> int:
    """Work until told to stop, and return the exit code. Raises ConfigError, Unavailable.

    Threads, because their calls meet in the batchers that keep the device full.
    """
    # heavy, and the pulse shows meanwhile that this process lives
    from celery import signals

    from workers.observability.metrics_server import exposed
    from workers.observability.tracing import traced
    from workers.queue.backlog import Backlog
    from workers.queue.celery_app import QUEUE, make_app
    from workers.queue.keepalive import Hearing
    from workers.queue.transport import install
    from workers.worker.executor import Executor
    from workers.worker.tasks import register

    install()
    app = make_app(settings.redis_url, settings.broker_url)
    lifeline.executor = executor = Executor(settings, lifeline.fall_ill, assembly(settings))
    register(app, executor)
    signals.worker_shutting_down.connect(lifeline.start_clock, weak=False)
    signals.task_postrun.connect(_job_ended, weak=False)
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
    lifeline.hearing = Hearing(worker, settings.concurrency)
    observe(executor.metrics)
    with (
        traced(settings, "pressrun-worker"),
        exposed(settings, executor.metrics.registry, Backlog.of(settings)),
    ):
        worker.start()
    executor.flush()
    return int(worker.exitcode or Exit.DONE)


def _job_ended(**_: object) -> None:
    """A job that took no step of any model, or went back, is no hang either."""
    beat()


if __name__ == "__main__":
    main(int(sys.argv[1]))
