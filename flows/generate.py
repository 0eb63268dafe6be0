"""The Prefect flow of a batch: open the run, reconcile, dispatch its shards, publish."""

from collections.abc import Collection
from contextlib import ExitStack
from typing import Annotated, Any, cast

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Cancelled
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field
from structlog.contextvars import bind_contextvars

from flows.context import GENERATE, flow_settings, masked
from flows.dispatch.budget import Budget, require_countable
from flows.dispatch.dispatcher import Stopped
from flows.dispatch.window import MOST_SHARDS
from flows.session import open_session
from flows.stack.embedded import services
from flows.webhook import notify
from pipeline.jobfile.reader import Overrides
from pipeline.record import Status
from pipeline.settings import Settings
from workers.observability.logs import start_logs

RUNNER = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(MOST_SHARDS + 1))


@flow(name=GENERATE, flow_run_name="generate {run}", task_runner=RUNNER)
@masked()
def generate(
    run: str,
    jobs: str | None = None,
    overrides: Overrides | None = None,
    retry: tuple[Status, ...] = (Status.FAILED,),
    profile: str | None = None,
    budget_gpu_seconds: float | None = None,
    quota: Annotated[int, Field(ge=0)] | None = None,
) -> dict[str, Any] | State[Any]:
    """Turn a job file into judged images, one outcome for each row.

    Rows that already have a record in this run are not made again, except rows with one of the
    statuses to retry. Settings come from the PRESSRUN_ environment variables of the process that
    runs the flow. Returns the run's summary, or the state Cancelled.

    Args:
        run: The run's name. A run that exists goes on with the rows that are left.
        jobs: The job file (xlsx, CSV, JSON or Parquet), a path that the Prefect worker sees, or
            s3://bucket/key. A sheet and names of columns are those of FILE.columns.toml beside it.
            Empty, the run goes on with the file that it was opened with.
        overrides: Values for rows that set none themselves.
        retry: Rows with these statuses are done again.
        profile: A shipped profile's name, or a TOML file. Empty, PRESSRUN_PROFILE.
        budget_gpu_seconds: Device seconds that the run may use; after that no more jobs start, and
            the summary says that it stopped. Empty, no limit.
        quota: Accepted images that the run shall have, those of earlier flow runs included; then
            no more jobs start, and the summary says that it stopped. Empty, no limit. Not together
            with accepted among the statuses to retry.
    """
    settings = flow_settings(profile=profile)
    try:
        require_countable(quota, retry)
        with ExitStack() as stack:
            if not settings.redis_url:
                log = settings.home / "worker.log"
                settings = stack.enter_context(services(settings, log))
            budget = Budget(budget_gpu_seconds, quota)
            summary = _generate(run, jobs, overrides or Overrides(), retry, settings, budget)
    except Stopped as stopped:
        get_run_logger().warning("run %s: %s", run, stopped)
        notify(settings, run, "cancelled", {"reason": str(stopped)})
        return Cancelled(message=str(stopped))
    except Exception as error:
        notify(settings, run, "failed", {"reason": f"{type(error).__name__}: {error}"})
        raise
    except BaseException:
        # Ctrl-C, or Prefect ends this process and waits half a minute: post once, without retries
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
    budget: Budget,
) -> dict[str, Any]:
    start_logs(settings)
    bind_contextvars(run=run)
    with open_session(run, jobs, overrides, retry, settings, budget) as session:
        summary = session.finished()
        if summary is None:
            session.reconcile()
            stopped = session.dispatch()
            summary = session.publish(stopped)
        session.show(summary)
    get_run_logger().info("run %s: %s", run, summary)
    return summary
