"""The Prefect flow that removes old runs."""

from fnmatch import fnmatchcase
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.context import flow_settings, masked, runs_in_work
from flows.runs.publish import finished
from pipeline.assemble.stores import open_store
from pipeline.errors import RunError
from pipeline.records.run_folder import RunFolder, run_names

DAY = 86400.0


@flow(name="retention", flow_run_name="retention of {runs}")
@masked()
def remove_runs(
    runs: str, days: Annotated[int, Field(ge=1)] = 90, dry_run: bool = True
) -> list[dict[str, Any]]:
    """Remove runs with all their images and records, for good.

    An open run is never touched: one in work, or one with rows that have no outcome unless it was
    cancelled.

    Args:
        runs: Names of the runs, with * as wildcard, such as spring-2024-*.
        days: Only runs that were not opened, cancelled or ended for this many days.
        dry_run: Only list the runs that would be removed.
    """
    store, at_work = open_store(flow_settings()), runs_in_work()
    found = []
    for name in run_names(store):
        if fnmatchcase(name, runs):
            run_folder = RunFolder(store, name)
            age = run_folder.age()
            reason = _kept(run_folder, age < days * DAY, name in at_work)
            if not (reason or dry_run):
                run_folder.remove()
                get_run_logger().info("run %s is removed", name)
            done = reason or ("would be removed" if dry_run else "removed")
            found.append({"run": name, "days": round(age / DAY, 1), "what": done})
    create_table_artifact(table=found, key="retention", description=f"Runs named {runs}")
    return found


def _kept(run_folder: RunFolder, young: bool, at_work: bool) -> str:
    """The reason to keep a run; empty if it may go."""
    if at_work:
        return "kept: it is being worked on"
    if run_folder.is_going():
        return ""
    if young:
        return "kept: too young"
    try:
        spec = run_folder.standing_spec()
    except RunError as error:
        return f"kept: {error}"
    if spec is None:
        return "kept: it is being opened"
    if run_folder.is_cancelled() or finished(run_folder, spec, ()):
        return ""
    return "kept: it is open; cancel it first"
