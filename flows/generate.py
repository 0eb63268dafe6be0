"""The Prefect flow of a batch: open the run, work through its shards, publish."""

import threading
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from structlog.contextvars import bind_contextvars

from flows import artifacts
from flows.dispatch import Dispatcher
from flows.metrics import RunMetrics
from flows.opening import forget, open_run
from flows.progress import RunProgress
from flows.publish import finished, publish
from flows.reconcile import reconcile
from pipeline.assemble import open_books
from pipeline.intake.reader import Overrides
from pipeline.job import BadRow, Job, RunSpec, Verdict
from pipeline.settings import load_settings
from pipeline.storing.books import RunBooks
from workers.backlog import Backlog
from workers.exposition import exposed
from workers.logs import start_logs
from workers.queue import Queue
from workers.tracing import run_span, traced

AT_ONCE = 2  # shards in work: the second fills the window while the first one drains


RUNNER = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(AT_ONCE))


@flow(name="pressrun", flow_run_name="{run}", task_runner=RUNNER)
def generate(
    run: str,
    jobs: Path | None = None,
    overrides: Overrides | None = None,
    retry: Collection[Verdict] = (Verdict.FAILED,),
) -> dict[str, Any]:
    """Turn a job file into pictures; answers the summary of the run.

    Rows that already have a record in this run are not made again, but for those that ended in one
    of the verdicts to `retry`. Without `jobs` the run goes on with the file that it was opened
    with. Where things are comes from the PRESSRUN_ environment variables of this process.
    """
    start = time.monotonic()
    settings = load_settings()
    start_logs(settings)
    bind_contextvars(run=run)
    books = open_books(settings, run, committing=True)
    queue = Queue.connect(settings.redis_url, settings.broker_url)
    opening = task(name="open", cache_policy=NO_CACHE)(_open)
    spec = opening(books, jobs, overrides or Overrides(), retry)
    queue.reopen(spec.run, spec.edition)
    books.withdraw_cancel()
    if summary := finished(books, spec, ()):
        return summary
    reconcile(books, spec, read_pictures=False)
    with (
        traced(settings, "pressrun-flow"),
        run_span(spec.run),
        RunProgress(spec.run, spec.rows) as progress,
    ):
        window = settings.window // AT_ONCE
        metrics = RunMetrics(progress, spec.rows)
        dispatcher = Dispatcher(queue, books, spec.edition, window, metrics)
        metrics.show(dispatcher)
        try:
            with exposed(settings, metrics.registry, Backlog.of(settings)):
                _work_through(spec, Shards(books, spec.edition, dispatcher, progress))
        except BaseException:
            dispatcher.stop()
            queue.cancel(spec.run, spec.edition)
            raise
    report = reconcile(books, spec, read_pictures=False)
    report.recovered += dispatcher.sent_again
    summary = publish(books, spec, time.monotonic() - start, report)
    artifacts.show_summary(summary)
    return summary


def _open(
    books: RunBooks, jobs: Path | None, overrides: Overrides, retry: Collection[Verdict]
) -> RunSpec:
    spec = open_run(jobs, overrides, load_settings(), books) if jobs else books.spec()
    # a run that was never published may hold anything
    ended = books.summary() or dict.fromkeys(retry, any(books.recorded()))
    if again := {verdict for verdict in retry if ended.get(verdict)}:
        forget(books, spec, again)
    return spec


class Shards:
    """The shards of a run, and which jobs need no more work."""

    def __init__(
        self, books: RunBooks, edition: str, dispatcher: Dispatcher, progress: RunProgress
    ) -> None:
        self._books, self._edition = books, edition
        self._dispatcher, self._progress = dispatcher, progress
        self._settled = set(books.recorded())
        self._lock = threading.Lock()

    def work(self, part: int) -> int:
        """Take a shard's rows to their outcomes; answers how many jobs were sent."""
        rows = self._books.part(self._edition, part)
        jobs = self._claim(rows)
        self._progress.skip(len(rows) - len(jobs))
        self._dispatcher.work(part, jobs)
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
    flying = deque[PrefectFuture[int]]()
    for part in range(1, spec.parts + 1):
        if len(flying) == AT_ONCE:
            flying.popleft().result()
        flying.append(work_on_shard.submit(part, shards))
    for future in flying:
        future.result()


@task(name="shard", task_run_name="shard {part}", cache_policy=NO_CACHE)
def work_on_shard(part: int, shards: Shards) -> int:
    """One shard as one task run; answers how many jobs were sent."""
    return shards.work(part)
