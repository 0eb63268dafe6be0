"""A run while a flow works on it: opened, reported, dispatched as shards, published, stopped."""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from prefect import get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.futures import PrefectFuture
from prefect.states import Cancelled

from flows import artifacts
from flows.cancelling import INTERRUPT, CancelWatch, Stop
from flows.context import masked
from flows.dispatch.budget import Budget
from flows.dispatch.dispatcher import (
    PATIENCE,
    Dispatcher,
    OutOfBudget,
    QuotaMet,
    Stopped,
    patiently,
)
from flows.dispatch.heartbeat import Heartbeat
from flows.dispatch.metrics import RunMetrics
from flows.dispatch.opening import Opening
from flows.dispatch.progress import Pauses, RunProgress, safely
from flows.dispatch.terminal import bar_or_lines
from flows.dispatch.window import Window
from flows.job_files import at_hand
from flows.runs.costs import Price
from flows.runs.gallery.contact_sheet import contact_sheet
from flows.runs.lines import RunLines
from flows.runs.open import ended_as, forget, open_run, reopened, to_retry
from flows.runs.publish import finished, publish
from flows.runs.reconcile import Report, reconcile
from pipeline.assemble.stores import open_run_folder
from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import RunSpec, Status
from pipeline.records.ids import IdSet
from pipeline.records.manifest import NAME as MANIFEST
from pipeline.records.manifest import read_manifest
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings
from workers.observability.metrics_server import exposed
from workers.observability.tracing import run_span, traced
from workers.queue.backlog import Backlog
from workers.queue.messages import Queue

LOOK = 2.0
"""Seconds between two looks at the number of shards to have in work."""
LAST_PATIENCE = 5.0
"""Seconds to wait for Redis when a run ends early, to drop its jobs from the queue."""


class RunSession:
    """An opened run. Unless `finished` answers, call `reconcile`, `dispatch` and `publish`, in this
    order; then `show`.

    Every step waits while Redis or the store fails, and raises Stopped once the run is cancelled.
    """

    def __init__(
        self,
        opening: Opening,
        retry: Collection[Status],
        run_folder: RunFolder,
        queue: Queue,
        progress: RunProgress,
        stop: Stop,
        settings: Settings,
        budget: Budget,
    ) -> None:
        self._opening, self._retry, self._settings = opening, retry, settings
        self._spec = opening.begun()
        self._run_folder, self._queue = run_folder, queue
        self._progress, self._stop = progress, stop
        self._window = Window(queue.places, settings.shard, settings.window)
        self._metrics = RunMetrics(progress, lambda: opening.rows)
        self._dispatcher = Dispatcher(
            queue,
            run_folder,
            self._spec.fingerprint,
            self._window.of_shard,
            self._metrics,
            budget,
            settings.worker_wait_seconds,
        )
        self._metrics.show(self._dispatcher)

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run with nothing left to do, else None. A cancellation of an earlier
        flow run is withdrawn first.
        """
        spec, check = self._spec, self._stop.check
        patiently(partial(self._queue.reopen, spec.run, spec.fingerprint), PATIENCE, check)
        patiently(self._run_folder.withdraw_cancel, PATIENCE, check)
        summary = patiently(partial(finished, self._run_folder, spec, self._retry), PATIENCE, check)
        if summary:
            self._progress.skip(spec.rows)
        return summary

    def reconcile(self) -> None:
        """Compare rows, records and images; from now on a cancellation stops the dispatcher."""
        self._stop.begin(self._spec, self._dispatcher)
        if interrupt := INTERRUPT.get(None):
            interrupt.heed(self._dispatcher)
        self._reconcile(self._spec)

    def dispatch(self) -> str:
        """Bring every row to its outcome; the reason if a budget or a quota left some of them.

        When anything ends it early, its jobs are dropped from the queue.
        """
        spec, dispatcher = self._spec, self._dispatcher
        if dispatcher.budget.quota is not None:
            dispatcher.budget.accepted = dispatcher.patiently(self._accepted)
        shards = dispatcher.patiently(
            partial(
                Shards, self._run_folder, self._opening, self._retry, dispatcher, self._progress
            )
        )
        try:
            with (
                traced(self._settings, "pressrun-flow"),
                run_span(spec.run),
                exposed(self._settings, self._metrics.registry, Backlog.of(self._settings)),
                self._window,
                dispatcher,
            ):
                work_through(shards, self._window)
        except BaseException:
            dispatcher.stop()
            cancel = partial(self._queue.cancel, spec.run, spec.fingerprint)
            safely(partial(patiently, cancel, LAST_PATIENCE))
            raise
        return shards.stopped

    def _accepted(self) -> int:
        """The images that were accepted before, of rows that are in the file."""
        if not any(self._run_folder.records.ids()):
            return 0
        # the whole file, since its last rows may be among those done before
        return RunLines(self._run_folder, self._opening.whole()).count(Status.ACCEPTED)

    def publish(self, stopped: str) -> dict[str, Any]:
        """Reconcile again and write manifest, gallery and summary; answers the summary."""
        spec = self._opening.whole()
        self._progress.enter("publishing")
        report = self._reconcile(spec)
        report.resent = self._dispatcher.sent_again
        seconds, price = self._progress.snapshot().seconds, Price.of(self._settings)
        budget = self._dispatcher.budget
        return self._dispatcher.patiently(
            partial(publish, self._run_folder, spec, seconds, report, price, stopped, budget)
        )

    def show(self, summary: dict[str, Any]) -> None:
        """Put the ended run's summary and best images on the flow run's page."""

        def artifacts_of_run() -> None:
            artifacts.show_summary(summary, self._run_folder.address(MANIFEST))
            if jpeg := contact_sheet(self._run_folder, read_manifest(self._run_folder)):
                artifacts.show_images(self._spec.run, jpeg)

        safely(artifacts_of_run)
        self._progress.enter("stopped" if "stopped" in summary else "finished")

    def _reconcile(self, spec: RunSpec) -> Report:
        leased = partial(self._queue.leased, spec.run)
        return self._dispatcher.patiently(
            partial(reconcile, self._run_folder, spec, leased, read_images=False)
        )


@contextmanager
def open_session(
    run: str,
    jobs: str | None,
    overrides: Overrides,
    retry: Collection[Status],
    settings: Settings,
    budget: Budget,
) -> Iterator[RunSession]:
    """Open a run and report its progress while the block runs; the job file is read meanwhile.

    At the end the reader and the heartbeat stop first, then the progress with a last report, then
    the bar and Prefect's client. Raises Stopped after the block if the run was cancelled meanwhile.
    """
    logger, flow_run = get_run_logger(), runtime.flow_run.id
    run_folder = open_run_folder(settings, run, committing=True)
    queue = Queue.connect(settings.redis_url, settings.broker_url)
    stop, opening = Stop(run_folder, queue), Opening()
    with ExitStack() as stack:
        client = stack.enter_context(get_client(sync_client=True))
        watch = CancelWatch(flow_run, stop, client)
        artifact = artifacts.LiveArtifact(run, Price.of(settings), client)
        bar = bar_or_lines(run)
        stack.enter_context(bar)
        progress = stack.enter_context(
            RunProgress(run, [bar, artifact, Pauses(logger)], [watch.look])
        )
        progress.enter("opening")

        def stored(spec: RunSpec) -> None:
            stop.check()
            progress.expect(spec.rows)
            opening.stored(spec)

        def waiting(call: Callable[[], Any]) -> Any:
            return patiently(call, PATIENCE, stop.check)

        def read() -> None:
            with opening.reading():
                spec = _open(run_folder, jobs, overrides, settings, stored, waiting)
            progress.expect(spec.rows, whole=True)
            # the number of rows was not known when the flow run got its name
            client.update_flow_run(flow_run, name=f"generate {run} ({spec.rows:,} rows)")
            logger.info("run %s: %d rows in %d shards", run, spec.rows, spec.shards)

        reader = task(name="open", task_run_name=f"{run} open", cache_policy=NO_CACHE)(
            masked()(read)
        ).submit()
        stack.callback(reader.wait)
        stack.callback(opening.stop)
        session = RunSession(opening, retry, run_folder, queue, progress, stop, settings, budget)
        progress.enter("working")
        stack.enter_context(Heartbeat(run_folder, progress.snapshot))
        yield session
    if stop.asked:
        # a flow run that Prefect is cancelling can end in no other state
        raise Stopped("It was finished by then.")


def _open(
    run_folder: RunFolder,
    jobs: str | None,
    overrides: Overrides,
    settings: Settings,
    stored: Callable[[RunSpec], None],
    waiting: Callable[[Callable[[], Any]], Any],
) -> RunSpec:
    """Open the run's job file, or the run as it is."""
    if jobs:
        with at_hand(jobs, settings) as path:
            return open_run(path, overrides, settings, run_folder, stored, waiting)
    spec = reopened(run_folder)
    stored(spec)
    return spec


@dataclass
class Visits:
    """The models of a shard whose rows are left. `anew`: an earlier visit had jobs to do; `doubt`:
    another shard may yet remove a record of this one's rows.
    """

    left: set[str]
    anew: bool = False
    doubt: bool = False


class Shards:
    """The shards of a run and its settled jobs; `stopped` is the reason if some shards are left.

    Each shard is visited once for each model that its rows name: all jobs of one model are done
    before the next model's begin, so that each worker changes its model as seldom as can be.
    """

    def __init__(
        self,
        run_folder: RunFolder,
        opening: Opening,
        retry: Collection[Status],
        dispatcher: Dispatcher,
        progress: RunProgress,
    ) -> None:
        spec = opening.begun()
        self.run, self._run_folder, self._fingerprint = spec.run, run_folder, spec.fingerprint
        # every shard but the last has this size
        self._size, self._opening = spec.shard_size, opening
        self._dispatcher, self._progress = dispatcher, progress
        self._recorded, self._taken = IdSet(run_folder.records.ids()), IdSet()
        self._retry = to_retry(run_folder, spec, retry, len(self._recorded))
        self._lines = RunLines(run_folder, spec)
        self._several = bool(spec.profile.get("renderers"))
        self._loaded_ahead = spec.profile.get("defaults", {}).get("model", "")
        self._visits = dict[int, Visits]()
        self._later = defaultdict[str, list[tuple[int, int]]](list)
        self.stopped = ""
        self._lock = threading.Lock()

    def passes(self) -> Iterator[tuple[str, Iterable[tuple[int, int]]]]:
        """Each model of the run, with the shards to visit for it, each with the number of rows that
        name it, at most. The first pass begins while the job file is read, and visits all shards;
        ask for another one once the last is done.

        The first model is the one that workers load ahead, if the first shard has jobs of it.
        """
        rows = self._rows(1) if self._several else []
        models = [row.model for row in rows if isinstance(row, Job)] or [self._loaded_ahead]
        first = self._loaded_ahead if self._loaded_ahead in models else models[0]
        yield first, ((shard, self._size) for shard in self._opening.shards())
        while self._later:
            model = min(self._later)
            yield model, sorted(self._later.pop(model))

    def span(self, shard: int) -> str:
        """The rows of the file in a shard, counted from 1."""
        first = (shard - 1) * self._size + 1
        return f"rows {first:,} to {min(shard * self._size, self._opening.rows):,}"

    def work(self, shard: int, model: str = "") -> int:
        """Bring a shard's rows of a model to their outcomes; returns the number of jobs that had
        none.
        """
        rows = self._rows(shard)
        every = [row for row in rows if isinstance(row, Job) and row.model == model]
        visits, invalid = self._visit(shard, model, rows)
        with self._lock:  # equal rows, in this shard or another one, are one job
            jobs = [job for job in every if self._taken.add(job.id)]
            recorded = [job.id for job in jobs if job.id in self._recorded]
        again = set[str]()
        if self._retry and recorded:
            again = self._dispatcher.patiently(
                partial(ended_as, self._run_folder, recorded, self._retry)
            )
        # such a job may still have the record that another shard is about to remove
        elsewhere = {job.id for job in every} - {job.id for job in jobs}
        done = set(recorded) - again
        jobs = [job for job in jobs if job.id not in done]
        self._progress.skip(invalid + len(every) - len(jobs), invalid)

        def admitted(admitted: Sequence[Job]) -> None:
            """Remove the records of jobs that are done again, once no limit leaves them out."""
            if gone := again.intersection(job.id for job in admitted):
                self._dispatcher.patiently(partial(forget, self._run_folder, gone, self._retry))
                again.difference_update(gone)

        try:
            self._dispatcher.work(shard, jobs, admitted)
        except (OutOfBudget, QuotaMet) as stop:
            self.stopped = str(stop)
        else:
            visits.left.discard(model)
            visits.anew |= bool(jobs)
            visits.doubt |= bool(self._retry and elsewhere)
            if not visits.left and not visits.doubt:
                self._dispatcher.patiently(partial(self._lines.write, shard, anew=visits.anew))
        return len(jobs)

    def _rows(self, shard: int) -> list[Job | BadRow]:
        rows: list[Job | BadRow] = self._dispatcher.patiently(
            partial(self._run_folder.shards.read, self._fingerprint, shard)
        )
        return rows

    def _visit(self, shard: int, model: str, rows: Sequence[Job | BadRow]) -> tuple[Visits, int]:
        """The visits to a shard, and at the first one the number of its invalid rows; the models of
        its other rows then get a pass of their own.
        """
        with self._lock:
            if shard in self._visits:
                return self._visits[shard], 0
            counts = Counter(row.model for row in rows if isinstance(row, Job))
            visits = self._visits[shard] = Visits(set(counts))
            for other in visits.left - {model}:
                self._later[other].append((shard, counts[other]))
        return visits, sum(isinstance(row, BadRow) for row in rows)


def work_through(shards: Shards, window: Window) -> None:
    """Work through the run's shards, as many at a time as fill the window, one model after the
    other, until all are done, a budget is used up or a quota met.

    Raises Stopped if the run was cancelled, and any error of a shard or of the job file's reader.
    """
    in_flight = deque[tuple[PrefectFuture[Any], int]]()
    try:
        for model, visited in shards.passes():
            for shard, rows in visited:
                while not window.has_room(rows, [others for _, others in in_flight]):
                    in_flight[0][0].wait(LOOK)
                    if in_flight[0][0].state.is_final():
                        in_flight.popleft()[0].result()
                if shards.stopped:
                    break
                in_flight.append((work_on_shard.submit(shard, model, shards), rows))
            while in_flight:
                in_flight.popleft()[0].result()
            if shards.stopped:
                break
    except CancelledRun:
        raise Stopped from None


def _shard_name() -> str:
    parameters = runtime.task_run.parameters
    shard, model, shards = (parameters[name] for name in ("shard", "model", "shards"))
    own = f" of {model}" if model else ""
    return f"{shards.run} shard {shard} ({shards.span(shard)}{own})"


@task(name="shard", task_run_name=_shard_name, cache_policy=NO_CACHE)
@masked()
def work_on_shard(shard: int, model: str, shards: Shards) -> int | State[Any]:
    """Work on one shard's jobs of a model; returns their number, or the state Cancelled."""
    try:
        return shards.work(shard, model)
    except Stopped as stopped:
        return Cancelled(message=str(stopped))
