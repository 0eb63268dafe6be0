"""The shards of a run as Prefect task runs."""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.futures import PrefectFuture
from prefect.states import Cancelled

from flows.context import masked
from flows.dispatch.dispatcher import Dispatcher, OutOfBudget, Stopped
from flows.dispatch.progress import RunProgress
from pipeline.job import BadRow, Job, RunSpec
from pipeline.records.run_folder import RunFolder

LOOK = 2.0
"""Seconds between two looks at the number of shards to have in work."""


class Shards:
    """The shards of a run and its settled jobs; `stopped` is the reason if some shards are left."""

    def __init__(
        self, run_folder: RunFolder, spec: RunSpec, dispatcher: Dispatcher, progress: RunProgress
    ) -> None:
        self.run, self._run_folder, self._fingerprint = spec.run, run_folder, spec.fingerprint
        # every shard but the last has this size
        self._size, self._rows = len(run_folder.shards.read(spec.fingerprint, 1)), spec.rows
        self._dispatcher, self._progress = dispatcher, progress
        self._settled = set(run_folder.records.ids())
        self.stopped = ""
        self._lock = threading.Lock()

    def span(self, shard: int) -> str:
        """The rows of the file in a shard, counted from 1."""
        first = (shard - 1) * self._size + 1
        return f"rows {first:,} to {min(shard * self._size, self._rows):,}"

    def work(self, shard: int) -> int:
        """Bring a shard's rows to their outcomes; returns the number of jobs that had none."""
        rows = self._dispatcher.patiently(
            partial(self._run_folder.shards.read, self._fingerprint, shard)
        )
        jobs = []
        with self._lock:  # equal rows, in this shard or another one, are one job
            for row in rows:
                if isinstance(row, Job) and row.id not in self._settled:
                    self._settled.add(row.id)
                    jobs.append(row)
        invalid = sum(isinstance(row, BadRow) for row in rows)
        self._progress.skip(len(rows) - len(jobs), invalid)
        try:
            self._dispatcher.work(shard, jobs)
        except OutOfBudget as stop:
            self.stopped = str(stop)
        return len(jobs)


def work_through(spec: RunSpec, shards: Shards, at_once: Callable[[], int]) -> None:
    """Work through the run's shards, `at_once()` at a time, until all are done or a budget is used
    up.

    Raises Stopped if the run was cancelled, and any error of a shard.
    """
    in_flight = deque[PrefectFuture[Any]]()
    try:
        for shard in range(1, spec.shards + 1):
            while len(in_flight) >= at_once():
                in_flight[0].wait(LOOK)
                if in_flight[0].state.is_final():
                    in_flight.popleft().result()
            if shards.stopped:
                break
            in_flight.append(work_on_shard.submit(shard, shards))
        for future in in_flight:
            future.result()
    except CancelledRun:
        raise Stopped from None


def _shard_name() -> str:
    parameters = runtime.task_run.parameters
    shard, shards = parameters["shard"], parameters["shards"]
    return f"{shards.run} shard {shard} ({shards.span(shard)})"


@task(name="shard", task_run_name=_shard_name, cache_policy=NO_CACHE)
@masked()
def work_on_shard(shard: int, shards: Shards) -> int | State[Any]:
    """Work on one shard; returns its number of jobs, or the state Cancelled."""
    try:
        return shards.work(shard)
    except Stopped as stopped:
        return Cancelled(message=str(stopped))
