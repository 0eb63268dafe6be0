"""Runs a batch from the command line: starts what is missing, then the flow."""

import os
from pathlib import Path
from typing import Any

from flows.knowledge import require_collection
from flows.local import environment, quiet_prefect, services
from flows.opening import run_name
from pipeline.assemble import check_models, open_books
from pipeline.errors import JobFileError
from pipeline.intake.reader import Overrides
from pipeline.settings import Settings


def run_batch(
    jobs: Path, run: str | None, overrides: Overrides, settings: Settings
) -> dict[str, Any]:
    """Take a job file to a published run; answers its summary. Raises PressrunError."""
    if not jobs.is_file():
        raise JobFileError(f"There is no file {jobs}.")
    run = run or run_name(jobs)
    _check(run, overrides, settings)
    quiet_prefect(settings)
    with services(settings, log=settings.home / "worker.log") as settings:
        # the flow reads its settings where a deployed one finds them
        os.environ.update(environment(settings))
        from flows.generate import generate

        return generate(jobs.resolve(), run, overrides)


def _check(run: str, overrides: Overrides, settings: Settings) -> None:
    """What can be told at once is told before anything starts."""
    check_models(settings, settings.chosen_profile)
    open_books(settings, run)
    if overrides.collection and overrides.retrieval:
        require_collection(overrides.collection, settings)
