"""What one worker process holds: the implementations, and the runs it has met."""

import threading
from functools import lru_cache

import structlog

from pipeline.assemble import Assembly
from pipeline.errors import PressrunError, RunError, StoreError, Unavailable
from pipeline.job import BadRow, Job, Outcome
from pipeline.ports import Stages
from pipeline.run import failed, run_job
from pipeline.settings import Profile, Settings
from workers.queue import Message, Queue

log = structlog.get_logger(__name__)


class Superseded(RunError):
    """The run was submitted again with another file or other settings."""


class Runtime:
    """Executes jobs in this process; called from every thread of the pool."""

    def __init__(self, settings: Settings) -> None:
        self._assembly = Assembly(settings)
        self._queue = Queue.connect(settings.redis_url)
        self._loading = threading.Lock()
        self._stages = lru_cache(maxsize=8)(self._read_stages)
        self._part = lru_cache(maxsize=8)(self._read_part)

    def warm_up(self, profile: Profile) -> None:
        """Load a profile's models, so that the first job need not wait for them.

        What goes wrong here is only logged: a run that needs the models will say it again.
        """
        try:
            with self._loading:
                self._assembly.load(profile)
        except PressrunError as error:
            log.warning("the profile's models cannot be loaded", reason=str(error))

    def execute(self, message: Message) -> None:
        """Take one job to its outcome and announce it.

        Does nothing for a run that was cancelled or submitted again as another edition. Raises
        Unavailable and StoreError, for the job to be tried again.
        """
        if self._queue.is_cancelled(message.run, message.edition):
            return
        try:
            self._queue.announce(_outcome(*self._find(message)))
        except Superseded:
            log.info("edition is over", run=message.run, job=message.job)
        except (Unavailable, StoreError):
            raise
        except PressrunError as error:
            self._complain(message.run, error)

    def give_up(self, message: Message, reason: str) -> None:
        """Record a job as failed after its last try; where even that fails, stop the run."""
        try:
            self._queue.announce(failed(*self._find(message), reason))
        except PressrunError as error:
            self._complain(message.run, error)

    def _complain(self, run: str, error: PressrunError) -> None:
        log.error("this worker cannot work on the run", run=run, exc_info=error)
        self._queue.complain(run, str(error))

    def _find(self, message: Message) -> tuple[Job, Stages]:
        with self._loading:
            stages = self._stages(message.run, message.edition)
            jobs = self._part(message.run, message.edition, message.part)
        if message.job not in jobs:
            raise Superseded(message.run)
        return jobs[message.job], stages

    def _read_stages(self, run: str, edition: str) -> Stages:
        spec = self._assembly.books(run).spec()
        if spec.edition != edition:
            raise Superseded(run)
        return self._assembly.stages(spec)

    def _read_part(self, run: str, edition: str, part: int) -> dict[str, Job]:
        del edition  # only keys the cache: an edited file rewrites the parts
        rows = self._assembly.books(run).part(part)
        return {row.id: row for row in rows if not isinstance(row, BadRow)}


def _outcome(job: Job, stages: Stages) -> Outcome:
    try:
        return run_job(job, stages)
    except PressrunError:
        raise
    except Exception as error:
        log.exception("a job failed", run=stages.run, job=job.id)
        return failed(job, stages, f"{type(error).__name__}: {error}")
