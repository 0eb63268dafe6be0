"""A job file worked through by this process, for tests of what the pipeline makes of its rows."""

from pathlib import Path
from typing import Any

from flows.runs.open import open_run
from flows.runs.publish import publish
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.models import check_models
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides
from pipeline.records.manifest import COLUMNS, read_manifest
from pipeline.run import run_job
from pipeline.settings import Settings


def work_through(jobs: Path, run: str, settings: Settings) -> list[dict[str, Any]]:
    """Take a file of up to a shard's rows to a published run, one job after the other, as a worker
    does but without queue and flow; return its manifest.
    """
    check_models(settings, settings.chosen_profile)
    assembly = Assembly(settings)
    run_folder = assembly.run_folder(run)
    spec = open_run(jobs, Overrides(), settings, run_folder)
    ports = assembly.ports(spec)
    for row in run_folder.shards.read(spec.fingerprint, 1):
        if isinstance(row, Job):
            run_job(row, ports)
    publish(run_folder, spec, seconds=0.0)
    return list(read_manifest(run_folder).lines(*COLUMNS))
