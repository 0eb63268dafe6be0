"""A batch from the command line: start the missing services, then run the flow."""

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any, TypedDict, cast

from flows.dispatch.budget import require_countable
from flows.dispatch.dispatcher import Stopped
from flows.dispatch.terminal import say
from flows.runs.costs import Price
from flows.runs.open import asked_for, reopened, run_name, taken_over
from flows.runs.publish import finished, publish, status_of
from flows.runs.reconcile import leases, reconcile
from flows.stack.embedded import (
    private_prefect,
    quiet_prefect,
    require_prefect,
    services,
)
from pipeline.assemble.models import check_models
from pipeline.assemble.stores import open_run_folder, reach_store
from pipeline.errors import Unavailable
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.profile import profile_of
from pipeline.record import RunSpec, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings
from workers.queue.messages import Queue
from workers.worker.devices import require_device


class Limits(TypedDict, total=False):
    """The limits that may end a run before its rows do, as the flow takes them."""

    budget_gpu_seconds: float | None
    quota: int | None


FLUSH_SECONDS = 2.0
"""Seconds for each of Prefect's client services to send its buffer."""


def run_batch(
    jobs: Path,
    run: str | None,
    overrides: Overrides,
    retry: Collection[Status],
    settings: Settings,
    limits: Limits,
    agree: Callable[[str], None],
) -> dict[str, Any]:
    """Take a job file to a published run, or as far as its limits allow; returns its summary. If
    the run was made of another file or profile, `agree` gets a sentence on that, and raises to
    refuse. Raises PressrunError.
    """
    require_countable(limits.get("quota"), retry)
    run = run or run_name(jobs)
    # everything that can be refused is refused before anything starts
    next(read_jobs(jobs, settings.chosen_profile, overrides, lambda _: None), None)  # the header
    if not settings.redis_url:
        require_device(settings.device)
    require_prefect()
    check_models(settings, settings.chosen_profile)
    reach_store(settings)
    if overrides.collection and overrides.retrieval:
        from flows.runs.knowledge import require_collection

        require_collection(overrides.collection, settings)
    run_folder = open_run_folder(settings, run)
    spec = asked_for(jobs, overrides, settings, run_folder)
    if summary := _settled(run_folder, spec, retry, settings):
        return summary
    if change := taken_over(jobs, overrides, spec, run_folder, settings):
        agree(change)
    asked = {"jobs": str(jobs.resolve()), "overrides": overrides}
    return _work({"run": run, **asked, "retry": retry, **limits}, settings)


def resume_run(
    run: str, retry: Collection[Status], settings: Settings, limits: Limits
) -> dict[str, Any]:
    """Go on with a run as it was opened; returns its summary. Raises PressrunError."""
    require_countable(limits.get("quota"), retry)
    reach_store(settings)
    run_folder = open_run_folder(settings, run)
    spec = reopened(run_folder)
    if summary := _settled(run_folder, spec, retry, settings):
        return summary
    if not settings.redis_url:
        require_device(settings.device)
        check_models(settings, profile_of(spec))
    require_prefect()
    return _work({"run": run, "retry": retry, **limits}, settings)


def cancel_run(run: str, settings: Settings) -> dict[str, Any]:
    """Cancel the run in every flow and worker; returns its status."""
    run_folder = open_run_folder(settings, run)
    spec = run_folder.spec()
    run_folder.request_cancel()
    if settings.redis_url:
        Queue.connect(settings.redis_url, settings.broker_url).cancel(run, spec.fingerprint)
    return status_of(settings, run)


def _settled(
    run_folder: RunFolder, spec: RunSpec, retry: Collection[Status], settings: Settings
) -> dict[str, Any] | None:
    """The summary of a run with nothing left to do and nothing to retry, else None. If the flow of
    the last rows was killed before it wrote the summary, it is written now.
    """
    summary = finished(run_folder, spec, ())
    if summary is None and spec.rows and not run_folder.left(spec):
        report = reconcile(run_folder, spec, leases(settings, spec.run), read_images=False)
        seconds = run_folder.summary().get("seconds", 0.0)
        publish(run_folder, spec, seconds, report, Price.of(settings))
        summary = finished(run_folder, spec, ())
    if summary is None or any(summary[status] for status in retry):
        return None
    kinds = [kind.value for kind in Status if summary[kind] and kind is not Status.INVALID]
    hint = f"; --retry {','.join(kinds)} makes them again" if kinds else ""
    say(f"Nothing to do: {spec.rows:,} rows have their outcome{hint}.")
    return summary


def _work(asked: dict[str, Any], settings: Settings) -> dict[str, Any]:
    own = [] if settings.redis_url else ["Redis", "a worker"]
    own += [] if os.environ.get("PREFECT_API_URL") else ["Prefect"]
    say(f"Starting {', '.join(own) or 'the flow'}…")
    quiet_prefect(settings)
    # Prefect and the flow are imported while the services start, which takes longer
    Thread(target=import_module, args=["flows.generate"], daemon=True).start()
    with ExitStack() as stack:
        settings = stack.enter_context(services(settings, log=settings.home / "worker.log"))
        private = None
        if not os.environ.get("PREFECT_API_URL"):
            private = stack.enter_context(private_prefect(settings))
        from prefect.settings import PREFECT_API_URL, temporary_settings

        if private:
            stack.enter_context(temporary_settings({PREFECT_API_URL: private}))
        stack.callback(_flush_prefect)
        return _flow(asked, settings)


def _flow(asked: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Run the flow in its own thread: Prefect then leaves signals alone, and Ctrl-C cannot break
    into its engine but ends the flow in order.
    """
    from httpx import TransportError
    from prefect.exceptions import CancelledRun

    from flows.cancelling import INTERRUPT, Interrupt
    from flows.context import SETTINGS
    from flows.generate import generate

    interrupt = Interrupt()
    context = copy_context()
    context.run(INTERRUPT.set, interrupt)
    context.run(SETTINGS.set, settings)
    with ThreadPoolExecutor(1, "flow") as pool:
        flow = pool.submit(context.run, partial(generate, **asked))
        try:
            return cast("dict[str, Any]", flow.result())
        except CancelledRun:
            raise Stopped from None
        except TransportError as error:
            raise Unavailable(
                f"Prefect's server went away ({type(error).__name__}). What is done is kept; once "
                f"there is a server, `pressrun resume {asked['run']}` goes on."
            ) from error
        except KeyboardInterrupt:
            interrupt()
            raise


def _flush_prefect() -> None:
    """Flush the logs and events of Prefect's client before its server or this process ends. The
    rest is dropped in the end: the client would wait for its server for ever.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    both: list[Any] = [APILogWorker, EventsWorker]
    for service in both:
        running = [(each._loop, each._task) for each in service._instances.values()]
        service.drain_all(timeout=FLUSH_SECONDS)
        for loop, task in running:
            if loop and task:
                loop.call_soon_threadsafe(task.cancel)
