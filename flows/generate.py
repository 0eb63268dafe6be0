"""The Prefect flow of a batch: open the run, work through its shards, publish."""

import threading
import time
from collections import deque
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any, cast

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.futures import PrefectFuture
from prefect.states import Cancelled
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from structlog.contextvars import bind_contextvars

from flows import artifacts
from flows.bill import Price
from flows.budget import Budget
from flows.cancelling import CancelWatch
from flows.contact_sheet import contact_sheet
from flows.deployed import GENERATE, flow_settings
from flows.dispatch import Dispatcher, OutOfBudget, Stopped
from flows.job_files import at_hand
from flows.local import services
from flows.metrics import RunMetrics
from flows.opening import forget, open_run
from flows.progress import Pauses, RunProgress
from flows.publish import finished, publish
from flows.reconcile import reconcile
from flows.terminal import Bar
from flows.webhook import announce
from pipeline.assemble import open_books
from pipeline.intake.reader import Overrides
from pipeline.job import BadRow, Job, RunSpec, Verdict
from pipeline.settings import Settings
from pipeline.storing.books import RunBooks
from pipeline.storing.manifest import NAME as MANIFEST
from pipeline.storing.manifest import read_manifest
from workers.backlog import Backlog
from workers.exposition import exposed
from workers.logs import start_logs
from workers.queue import Queue
from workers.tracing import run_span, traced

AT_ONCE = 2  # shards in work: the second fills the window while the first one drains


RUNNER = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(AT_ONCE))


@flow(name=GENERATE, flow_run_name="generate {run}", task_runner=RUNNER)
def generate(
    run: str,
    jobs: str | None = None,
    overrides: Overrides | None = None,
    retry: tuple[Verdict, ...] = (Verdict.FAILED,),
    profile: str | None = None,
    budget_gpu_seconds: float | None = None,
) -> dict[str, Any] | State[Any]:
    """Turn a job file into judged pictures, one outcome for each row.

    Rows that already have a record in this run are not made again, but for those that ended in one
    of the verdicts to retry. Where things are comes from the PRESSRUN_ environment variables of
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
        announce(settings, run, "cancelled", {"reason": str(stopped)})
        return Cancelled(message=str(stopped))
    except Exception as error:
        announce(settings, run, "failed", {"reason": f"{type(error).__name__}: {error}"})
        raise
    except BaseException:
        # Ctrl-C, or Prefect ends this process, which it waits for half a minute only
        reason = "It was interrupted; `pressrun resume` goes on."
        announce(settings, run, "cancelled", {"reason": reason}, attempts=1)
        raise
    announce(settings, run, "finished", {"summary": summary})
    return summary


def _generate(
    run: str,
    jobs: str | None,
    overrides: Overrides,
    retry: Collection[Verdict],
    settings: Settings,
    budget: float | None,
) -> dict[str, Any]:
    start, logger, price = time.monotonic(), get_run_logger(), Price.of(settings)
    start_logs(settings)
    bind_contextvars(run=run)
    books = open_books(settings, run, committing=True)
    queue = Queue.connect(settings.redis_url, settings.broker_url)
    with ExitStack() as stack:
        stop = Stop(books, queue)
        bar = stack.enter_context(Bar(run))
        artifact = stack.enter_context(artifacts.LiveArtifact(run, price))
        watch = stack.enter_context(CancelWatch(runtime.flow_run.id, stop))
        progress = stack.enter_context(
            RunProgress(run, [bar, artifact, Pauses(logger)], [watch.look])
        )
        progress.enter("opening")
        opening = task(name="open", task_run_name=f"{run} open", cache_policy=NO_CACHE)(_open)
        spec = opening(books, jobs, overrides, retry, settings)
        progress.enter("working", spec.rows)
        _name(f"generate {run} ({spec.rows:,} rows)")
        logger.info("run %s: %d rows in %d shards", run, spec.rows, spec.parts)
        queue.reopen(spec.run, spec.edition)
        books.withdraw_cancel()
        if summary := finished(books, spec, ()):
            return summary
        reconcile(books, spec, read_pictures=False)
        stack.enter_context(traced(settings, "pressrun-flow"))
        stack.enter_context(run_span(spec.run))
        window, metrics = settings.window // AT_ONCE, RunMetrics(progress, spec.rows)
        dispatcher = Dispatcher(queue, books, spec.edition, window, metrics, Budget(budget))
        metrics.show(dispatcher)
        shards = Shards(books, spec, dispatcher, progress)
        stop.begin(spec, dispatcher)
        try:
            with exposed(settings, metrics.registry, Backlog.of(settings)):
                _work_through(spec, shards)
        except BaseException:
            dispatcher.stop()
            queue.cancel(spec.run, spec.edition)
            raise
        progress.enter("publishing")
        report = reconcile(books, spec, read_pictures=False)
        report.recovered += dispatcher.sent_again
        summary = publish(books, spec, time.monotonic() - start, report, price, shards.stopped)
        artifacts.show_summary(summary, books.address(MANIFEST))
        if jpeg := contact_sheet(books, read_manifest(books)):
            artifacts.show_pictures(run, jpeg)
        progress.enter("finished")
    if stop.asked:
        # Prefect lets a run that it is told to cancel end as nothing else
        raise Stopped("It was finished by then.")
    logger.info("run %s: %s", run, summary)
    return summary


def _open(
    books: RunBooks,
    jobs: str | None,
    overrides: Overrides,
    retry: Collection[Verdict],
    settings: Settings,
) -> RunSpec:
    if jobs:
        with at_hand(jobs, settings) as path:
            spec = open_run(path, overrides, settings, books)
    else:
        spec = books.spec()
    # a run that was never published may hold anything
    ended = books.summary() or dict.fromkeys(retry, any(books.recorded()))
    if again := {verdict for verdict in retry if ended.get(verdict)}:
        forget(books, spec, again)
    return spec


def _name(text: str) -> None:
    """Give the flow run a name that tells more than could be known when it started."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(runtime.flow_run.id, name=text)


class Stop:
    """Stops the run everywhere: here, in the workers, and for whoever else works on it."""

    def __init__(self, books: RunBooks, queue: Queue) -> None:
        self._books, self._queue = books, queue
        self.asked, self._lock = False, threading.Lock()
        self._dispatcher: Dispatcher | None = None
        self._edition = ""

    def begin(self, spec: RunSpec, dispatcher: Dispatcher) -> None:
        """There is something to stop from now on."""
        with self._lock:
            self._dispatcher, self._edition = dispatcher, spec.edition
        if self.asked:
            self()

    def __call__(self) -> None:
        """Stop it: jobs in work are finished, those in the queue are dropped."""
        with self._lock:
            self.asked = True
            dispatcher = self._dispatcher
        if dispatcher:
            dispatcher.stop()
            self._books.request_cancel()
            self._queue.cancel(self._books.run, self._edition)


class Shards:
    """The shards of a run, and which jobs need no more work; `stopped` says why some are left."""

    def __init__(
        self, books: RunBooks, spec: RunSpec, dispatcher: Dispatcher, progress: RunProgress
    ) -> None:
        self.run, self._books, self._edition = spec.run, books, spec.edition
        # every part but the last holds as many
        self._size, self._rows = len(books.part(spec.edition, 1)), spec.rows
        self._dispatcher, self._progress = dispatcher, progress
        self._settled = set(books.recorded())
        self.stopped = ""
        self._lock = threading.Lock()

    def span(self, part: int) -> str:
        """Which rows of the file a shard holds, counted from 1."""
        first = (part - 1) * self._size + 1
        return f"rows {first:,} to {min(part * self._size, self._rows):,}"

    def work(self, part: int) -> int:
        """Take a shard's rows to their outcomes; answers how many jobs there were to do."""
        rows = self._books.part(self._edition, part)
        jobs = self._claim(rows)
        invalid = sum(isinstance(row, BadRow) for row in rows)
        self._progress.skip(len(rows) - len(jobs), invalid)
        try:
            self._dispatcher.work(part, jobs)
        except OutOfBudget as stop:
            self.stopped = str(stop)
        return len(jobs)

    def _claim(self, rows: list[Job | BadRow]) -> list[Job]:
        """The jobs that nobody has done or claimed; equal rows are one job."""
        jobs = []
        with self._lock:
            for row in rows:
                if isinstance(row, Job) and row.id not in self._settled:
                    self._settled.add(row.id)
                    jobs.append(row)
        return jobs


def _work_through(spec: RunSpec, shards: Shards) -> None:
    flying = deque[PrefectFuture[Any]]()
    try:
        for part in range(1, spec.parts + 1):
            if len(flying) == AT_ONCE:
                flying.popleft().result()
            if shards.stopped:
                break
            flying.append(work_on_shard.submit(part, shards))
        for future in flying:
            future.result()
    except CancelledRun:
        raise Stopped from None


def _shard_name() -> str:
    asked = runtime.task_run.parameters
    part, shards = asked["part"], asked["shards"]
    return f"{shards.run} shard {part} ({shards.span(part)})"


@task(name="shard", task_run_name=_shard_name, cache_policy=NO_CACHE)
def work_on_shard(part: int, shards: Shards) -> int | State[Any]:
    """One shard as one task run; answers how many jobs were sent, or that the run was stopped."""
    try:
        return shards.work(part)
    except Stopped as stopped:
        return Cancelled(message=str(stopped))
