"""The Prefect flow that reconciles the runs in work and the recent ones."""

from dataclasses import asdict
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.context import flow_settings, masked, runs_in_work
from flows.runs.reconcile import leases, reconcile
from pipeline.assemble.stores import open_store_to_commit
from pipeline.errors import PressrunError, RunError
from pipeline.records.run_folder import RunFolder, run_names


@flow(name="reconcile", flow_run_name="reconcile")
@masked()
def reconcile_runs(
    hours: Annotated[float, Field(gt=0)] = 0.5, read_images: bool = False
) -> list[dict[str, Any]]:
    """Check that each row has one record and each record its image; remove orphans.

    Fails if an image is missing or differs from its record, or if an ended run has too few records.

    Args:
        hours: Runs that were opened, cancelled or ended in the last hours are checked, and all runs
            in work.
        read_images: Read every image and compare its digest, too.
    """
    settings, logger = flow_settings(), get_run_logger()
    store, at_work = open_store_to_commit(settings), runs_in_work()
    reports = []
    recent = {name for name in run_names(store) if RunFolder(store, name).age() < hours * 3600}
    for name in sorted(at_work | recent):
        try:
            run_folder = RunFolder(store, name)
            spec = run_folder.standing_spec()
            if spec is None:
                continue  # it is still being opened
            checked = reconcile(run_folder, spec, leases(settings, name), read_images=read_images)
            summarised = run_folder.summary().get("fingerprint") == spec.fingerprint
            ended = summarised and name not in at_work
            sound = not checked.unexpected and not (ended and checked.lost)
            report = {"run": name, "sound": sound, "ended": ended, **asdict(checked)}
        except PressrunError as error:
            report = {"run": name, "sound": False, "alarms": [str(error)]}
        reports.append(report)
        logger.info("%s", report)
    if reports:
        create_table_artifact(table=reports, key="reconcile", description="Reconciled runs")
    if bad := [report["run"] for report in reports if not report["sound"]]:
        raise RunError(f"The records of {', '.join(bad)} do not balance.")
    return reports
