"""Executes job messages in one worker process: lease, job, outcome, event."""

import gc
import socket
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import structlog

from pipeline.assemble.assembly import Assembly
from pipeline.cancellation import Cancelled
from pipeline.errors import (
    ModelError,
    OtherStore,
    PressrunError,
    RunError,
    StoreError,
    StoreFull,
    Unavailable,
)
from pipeline.job import ImageArray, Job
from pipeline.profile import Profile
from pipeline.record import Outcome
from pipeline.records.run_folder import RunFolder
from pipeline.run import failed, run_job
from pipeline.settings import Settings
from pipeline.storage.identity import known_identity
from pipeline.telemetry import stage
from workers.observability import tracing
from workers.queue.leases import TRIES, Fenced, Lease
from workers.queue.messages import Message, Queue
from workers.worker.cancellation import Cancellations
from workers.worker.metrics import WorkerMetrics

FLUSH_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Superseded(RunError):
    """The run was submitted again with another file or other settings."""


class OpenRun:
    """A run that this worker executes jobs of: its folder, spec and ports.

    Raises Superseded if the run no longer has this fingerprint, ModelError, RunError, StoreError.
    """

    def __init__(self, assembly: Assembly, run: str, fingerprint: str) -> None:
        self.folder = assembly.run_folder(run)
        self.spec = self.folder.spec()
        if self.spec.fingerprint != fingerprint:
            raise Superseded(run)
        self.ports = assembly.ports(self.spec)


@dataclass(frozen=True)
class FencedRecords:
    """The Records port of one execution: it commits only while it holds the job's lease."""

    run_folder: RunFolder
    lease: Lease
    metrics: WorkerMetrics

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        """Store an outcome and return the stored one, as `Records.commit`.

        Raises Fenced if another worker has taken the job over.
        """

        def confirm() -> None:
            if not self.run_folder.store.conditional:
                self.lease.confirm()
            elif not self.lease.fresh:
                # this store refuses a second record, so a finished image need not wait for Redis
                with suppress(Unavailable):
                    self.lease.confirm()

        mine = {"attempt": self.lease.attempt, "epoch": self.lease.epoch}
        with self.metrics.committing(), stage("commit"):
            stored = self.run_folder.records.commit(outcome.model_copy(update=mine), image, confirm)
        tracing.set_attributes(status=stored.status.value)
        if stored.attempt == self.lease.attempt:  # else another execution came first
            self.metrics.ended(stored)
        return stored


class Executor:
    """Executes jobs in this process; called from every thread of the pool.

    `on_unhealthy` receives the reason when this process cannot go on at all: a model is broken, the
    disk is full, the device is lost. Its job has been handed back by then.
    """

    def __init__(
        self, settings: Settings, on_unhealthy: Callable[[str], None], assembly: Assembly
    ) -> None:
        self.traced = settings.traces
        self.name = f"pressrun-{uuid.uuid4().hex[:8]}@{socket.gethostname()}"
        self._on_unhealthy = on_unhealthy
        self._assembly = assembly
        self._queue = Queue.connect(settings.redis_url, settings.broker_url)
        self._leases = self._queue.leases()
        self._cancellations = Cancellations(self._queue)
        self.metrics = WorkerMetrics(settings, self._leases.ages)
        self._loading = threading.Lock()
        self._store_id = ""
        # one thread reads tables: Arrow keeps 10 MB for each one that ever did
        self._reader = ThreadPoolExecutor(1, "shards")
        self._open = lru_cache(maxsize=8)(partial(OpenRun, assembly))
        # unparsed: this worker executes only some of a shard's jobs
        self._documents = lru_cache(maxsize=8)(
            lambda run, shard: self._reader.submit(
                run.folder.shards.documents, run.spec.fingerprint, shard
            ).result()
        )

    @property
    def in_flight(self) -> int:
        """Jobs being executed now."""
        return len(self._leases.held)

    def warm_up(self, profile: Profile) -> None:
        """Load a profile's models, so that the first job need not wait for them.

        Errors are only logged: a run that needs the models meets them again.
        """
        # searching what is imported and loaded for garbage is a quarter of the time
        gc.disable()
        try:
            with self._loading:
                self._assembly.load(profile)
        except PressrunError as error:
            log.warning("the profile's models cannot be loaded", reason=str(error))
        finally:
            gc.enable()

    def execute(self, message: Message) -> None:
        """Take one job to its outcome and report it, unless another worker executes the job.

        Raises nothing that a job can cause: a job without an outcome is handed back, and the flow
        sends it again.
        """
        lease = self._leases.acquire(message.run, message.fingerprint, message.job)
        if lease is None:
            return
        try:
            with self._cancellations.watched(message.run, message.fingerprint):
                outcome = self._outcome(message, lease)
            self._queue.publish_result(outcome, lease)
        except Cancelled:
            # no event: the flow has stopped, and resuming the run sends the job again
            log.info("a job is given up with its run", run=message.run, job=message.job)
            self._leases.end(lease)
        except (Superseded, Fenced) as error:
            log.info("the job is not ours any more", job=message.job, reason=str(error))
            self._leases.end(lease)
        except (StoreFull, ModelError, OtherStore) as error:
            self._report_unhealthy(lease, str(error))
        except (Unavailable, StoreError) as error:
            why = "store" if isinstance(error, StoreError) else "unavailable"
            self._requeue(lease, str(error), why)
        except PressrunError as error:
            log.warning("nobody can work on the run", run=message.run, reason=str(error))
            self._leases.end(lease)
            self._queue.report_error(message.run, str(error), worker=self.name, fatal=True)
        except Exception as error:
            log.exception("a job ended in an error", run=message.run, job=message.job)
            reason = f"{type(error).__name__}: {error}"
            if _device_lost(error):
                self._report_unhealthy(lease, reason)
            else:
                self._requeue(lease, reason, "error", charged=True)

    def requeue_all(self) -> None:
        """Hand every job in flight back, uncharged, so that other workers can take it at once."""
        for lease in self._leases.held:
            self._requeue(lease, "its worker stops", "stopping")
        self.flush()

    def flush(self) -> None:
        """Wait for reports that are under way, FLUSH_SECONDS at most."""
        self._leases.flush(FLUSH_SECONDS)

    def _outcome(self, message: Message, lease: Lease) -> Outcome:
        """The job's outcome: the stored one, or the result of executing it now."""
        run, job = self._read(message)
        if stored := run.folder.records.outcome(job.id):
            return stored
        ports = replace(run.ports, records=FencedRecords(run.folder, lease, self.metrics))
        if lease.tries > TRIES:
            return failed(job, ports, f"{TRIES} executions of it ended with their worker")
        try:
            return run_job(job, ports)
        except PressrunError:
            raise
        except Exception as error:
            if lease.tries < TRIES or _device_lost(error):
                raise
            log.exception("a job failed", run=message.run, job=job.id)
            return failed(job, ports, f"{TRIES} tries: {type(error).__name__}: {error}")

    def _requeue(self, lease: Lease, reason: str, why: str, *, charged: bool = False) -> None:
        log.warning("a job goes back", run=lease.run, job=lease.job, reason=reason)
        self.metrics.requeued(why)
        self._leases.end(lease, charged=charged)
        self._queue.requeue(lease.run, lease.job, reason)

    def _report_unhealthy(self, lease: Lease, reason: str) -> None:
        log.error("this worker cannot go on", run=lease.run, job=lease.job, reason=reason)
        self.metrics.requeued("unhealthy")
        self._leases.end(lease)
        self._queue.report_error(lease.run, reason, worker=self.name, fatal=False)
        self._queue.requeue(lease.run, lease.job, reason)
        self._on_unhealthy(reason)

    def _read(self, message: Message) -> tuple[OpenRun, Job]:
        """The message's run and job.

        Raises Superseded for a job that the run no longer has, OtherStore, RunError, StoreError.
        """
        with self._loading:
            if message.store and message.store != self._store_id:
                store = self._assembly.run_folder(message.run).store
                # read at every mismatch: a flow may have begun to use this store meanwhile
                self._store_id = known_identity(store)
                if message.store != self._store_id:
                    raise OtherStore(f"Here it is {store.address('')}.")
            run = self._open(message.run, message.fingerprint)
            try:
                documents = self._documents(run, message.shard)
            except KeyError:
                raise Superseded(f"{message.run} has no shard {message.shard}") from None
        if message.job not in documents:
            raise Superseded(message.run)
        where = f"job {message.job} in shard {message.shard} of run {message.run}"
        try:
            job = Job.model_validate_json(documents[message.job])
        except ValueError as error:
            raise RunError(
                f"{where} is damaged or of another version of Pressrun: {error}"
            ) from error
        if job.id != message.job:
            raise RunError(f"{where} is another job's: {job.id}")
        return run, job


def _device_lost(error: Exception) -> bool:
    # late: it imports torch, which a process that met no error may not need
    from pipeline.models.faults import device_lost

    return device_lost(error)
