"""The whole flow of one job. Called from many threads; the ports batch their model calls."""

from pipeline.errors import Blocked, JobError
from pipeline.job import Job
from pipeline.judging import contest
from pipeline.ports import Ports
from pipeline.record import Outcome, Status
from pipeline.run.execution import Execution
from pipeline.run.rounds import refine
from pipeline.telemetry import metered


def run_job(job: Job, ports: Ports) -> Outcome:
    """Take one job from keywords to a committed outcome.

    A fault of the job's own ends as `blocked` or `failed`. Unavailable and unforeseen errors are
    raised, for the caller to try the job again.
    """
    execution = Execution(job, ports)
    with metered() as execution.meter:
        try:
            execution.retrieve()
            execution.hold(execution.write())
            while contest.another_round(job, execution.scores, len(execution.rounds)):
                if not refine(execution):
                    break
            status, reason = execution.status()
        except Blocked as error:
            status, reason = Status.BLOCKED, error.detail
        except JobError as error:
            status, reason = Status.FAILED, error.detail
    return execution.commit(status, reason)


def failed(job: Job, ports: Ports, reason: str) -> Outcome:
    """Commit that a job failed, after an unforeseen error."""
    return Execution(job, ports).commit(Status.FAILED, reason)
