"""The Prefect flow of a batch: open the run, work through its shards, publish."""

from collections.abc import Collection
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Cancelled
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from structlog.contextvars import bind_contextvars

from flows import artifacts
from flows.cancelling import INTERRUPT, CancelWatch, Stop
from flows.context import GENERATE, flow_settings, masked
from flows.dispatch.budget import Budget
from flows.dispatch.dispatcher import PATIENCE, Dispatcher, Stopped, patiently
from flows.dispatch.heartbeat import Heartbeat
from flows.dispatch.metrics import RunMetrics
from flows.dispatch.progress import Pauses, RunProgress, safely
from flows.dispatch.terminal import bar_or_lines
from flows.dispatch.window import MOST_SHARDS, Window
from flows.job_files import at_hand
from flows.runs.costs import Price
from flows.runs.gallery.contact_sheet import contact_sheet
from flows.runs.open import forget, open_run
from flows.runs.publish import finished, publish
from flows.runs.reconcile import reconcile
from flows.shards import Shards, work_through
from flows.stack.embedded import services
from flows.webhook import notify
from pipeline.assemble import open_run_folder
from pipeline.job import RunSpec, Status
from pipeline.jobfile.reader import Overrides
from pipeline.records.manifest import NAME as MANIFEST
from pipeline.records.manifest import read_manifest
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings
from workers.observability.logs import start_logs
from workers.observability.metrics_server import exposed
from workers.observability.tracing import run_span, traced
from workers.queue.backlog import Backlog
from workers.queue.messages import Queue

LAST_PATIENCE = 5.0
"""Seconds that a run which ends early waits for Redis, to have its jobs dropped from the queue."""
RUNNER = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(MOST_SHARDS))


@flow(name=GENERATE, flow_run_name="generate {run}", task_runner=RUNNER)
@masked()
def generate(
    run: str,
    jobs: str | None = None,
    overrides: Overrides | None = None,
    retry: tuple[Status, ...] = (Status.FAILED,),
    profile: str | None = None,
    budget_gpu_seconds: float | None = None,
) -> dict[str, Any] | State[Any]:
    """Turn a job file into judged images, one outcome for each row.

    Rows that already have a record in this run are not made again, but for those that ended in one
    of the statuses to retry. Where things are comes from the PRESSRUN_ environment variables of
    the process that runs the flow. Answers the run's summary, or that it was cancelled.

    Args:
        run: The run's name. One that is there already goes on with what is left of it.
        jobs: The job file (CSV, JSONL or Parquet), a path that the Prefect worker sees, or
            s3://bucket/key. Empty, the run goes on with the file that it was opened with.
        overrides: For rows that say nothing themselves.
        retry: Rows that ended so are done again.
        profile: A shipped profile's name, or a TOML file. Empty, PRESSRUN_PROFILE.
        budget_gpu_seconds: Device seconds that the run may use; then no more jobs are begun, and
            the summary says that it stopped. Empty, as many as it takes.
    """
    settings = flow_settings(profile=profile)
    try:
        with ExitStack() as stack:
            if not settings.redis_url:
                log = settings.home / "worker.log"
                settings = stack.enter_context(services(settings, log))
            summary = _generate(
                run, jobs, overrides or Overrides(), retry, settings, budget_gpu_seconds
            )
    except Stopped as stopped:
        get_run_logger().warning("run %s: %s", run, stopped)
        notify(settings, run, "cancelled", {"reason": str(stopped)})
        return Cancelled(message=str(stopped))
    except Exception as error:
        notify(settings, run, "failed", {"reason": f"{type(error).__name__}: {error}"})
        raise
    except BaseException:
        # Ctrl-C, or Prefect ends this process, which it waits for half a minute only
        reason = "It was interrupted; `pressrun resume` goes on."
        notify(settings, run, "cancelled", {"reason": reason}, attempts=1)
        raise
    notify(settings, run, "finished", {"summary": summary})
    return summary


def _generate(
    run: str,
    jobs: str | None,
    overrides: Overrides,
    retry: Collection[Status],
    settings: Settings,
    budget: float | None,
) -> dict[str, Any]:
    logger = get_run_logger()
    start_logs(settings)
    bind_contextvars(run=run)
    run_folder = open_run_folder(settings, run, committing=True)
    queue = Queue.connect(settings.redis_url, settings.broker_url)
    with ExitStack() as stack:
        stop = Stop(run_folder, queue)
        client = stack.enter_context(get_client(sync_client=True))
        watch = CancelWatch(runtime.flow_run.id, stop, client)
        artifact = artifacts.LiveArtifact(run, Price.of(settings), client)
        shown = bar_or_lines(run)
        stack.enter_context(shown)
        progress = stack.enter_context(
            RunProgress(run, [shown, artifact, Pauses(logger)], [watch.look])
        )
        progress.enter("opening")
        opening = task(name="open", task_run_name=f"{run} open", cache_policy=NO_CACHE)(
            masked()(_open)
        )
        spec = opening(run_folder, jobs, overrides, retry, settings)
        progress.enter("working", spec.rows)
        stack.enter_context(Heartbeat(run_folder, progress.snapshot))
        # it tells more than could be known when it started
        client.update_flow_run(runtime.flow_run.id, name=f"generate {run} ({spec.rows:,} rows)")
        logger.info("run %s: %d rows in %d shards", run, spec.rows, spec.shards)
        patiently(partial(queue.reopen, spec.run, spec.fingerprint), PATIENCE, stop.check)
        patiently(run_folder.withdraw_cancel, PATIENCE, stop.check)
        summary = patiently(partial(finished, run_folder, spec, ()), PATIENCE, stop.check)
        if summary:
            progress.skip(spec.rows)
        else:
            summary = _work(spec, run_folder, queue, progress, stop, settings, budget)
        safely(partial(_show, run_folder, summary))
        progress.enter("stopped" if "stopped" in summary else "finished")
    if stop.asked:
        # Prefect lets a run that it is told to cancel end as nothing else
        raise Stopped("It was finished by then.")
    logger.info("run %s: %s", run, summary)
    return summary


def _work(
    spec: RunSpec,
    run_folder: RunFolder,
    queue: Queue,
    progress: RunProgress,
    stop: Stop,
    settings: Settings,
    budget: float | None,
) -> dict[str, Any]:
    """Work through the run and publish it; answers the summary."""
    window = Window(queue.places, settings.shard, settings.window)
    metrics = RunMetrics(progress, spec.rows)
    dispatcher = Dispatcher(
        queue,
        run_folder,
        spec.fingerprint,
        window.of_shard,
        metrics,
        Budget(budget),
        settings.worker_wait_seconds,
    )
    metrics.show(dispatcher)
    stop.begin(spec, dispatcher)
    if interrupt := INTERRUPT.get(None):
        interrupt.heed(dispatcher)
    leased = partial(queue.leased, spec.run)
    reconciling = partial(reconcile, run_folder, spec, leased, read_images=False)
    dispatcher.patiently(reconciling)
    shards = dispatcher.patiently(partial(Shards, run_folder, spec, dispatcher, progress))
    try:
        with (
            traced(settings, "pressrun-flow"),
            run_span(spec.run),
            exposed(settings, metrics.registry, Backlog.of(settings)),
            window,
        ):
            work_through(spec, shards, lambda: window.shards)
    except BaseException:
        dispatcher.stop()
        safely(partial(patiently, partial(queue.cancel, spec.run, spec.fingerprint), LAST_PATIENCE))
        raise
    progress.enter("publishing")
    report = dispatcher.patiently(reconciling)
    report.resent = dispatcher.sent_again
    seconds = progress.snapshot().seconds
    price = Price.of(settings)
    publishing = partial(publish, run_folder, spec, seconds, report, price, shards.stopped)
    return dispatcher.patiently(publishing)


def _open(
    run_folder: RunFolder,
    jobs: str | None,
    overrides: Overrides,
    retry: Collection[Status],
    settings: Settings,
) -> RunSpec:
    if jobs:
        with at_hand(jobs, settings) as path:
            spec = open_run(path, overrides, settings, run_folder)
    else:
        spec = run_folder.spec()
    ended, records = run_folder.summary(), sum(1 for _ in run_folder.records.ids())
    if ended.get("fingerprint") != spec.fingerprint or ended.get("records") != records:
        # what was not published as it stands may hold anything
        ended = dict.fromkeys(retry, bool(records))
    if again := {status for status in retry if ended.get(status)}:
        forget(run_folder, spec, again)
    return spec


def _show(run_folder: RunFolder, summary: dict[str, Any]) -> None:
    """What Prefect's UI shows of a run that has ended."""
    artifacts.show_summary(summary, run_folder.address(MANIFEST))
    if jpeg := contact_sheet(run_folder, read_manifest(run_folder)):
        artifacts.show_images(run_folder.run, jpeg)
