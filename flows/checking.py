"""The dry run: validation and plan, without a model in memory."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.bill import Price
from flows.budget import work_of
from flows.sampling import Spread
from flows.seen import Seen
from pipeline.assemble import check_models, open_store
from pipeline.errors import JobFileError
from pipeline.intake.reader import Notice, Overrides, read_jobs
from pipeline.job import BadRow, Job
from pipeline.settings import Settings

PROBLEMS_SHOWN = 20
COLLECTIONS_SHOWN = 100


def check_jobs(
    path: Path, overrides: Overrides, settings: Settings, pilot: int | None = None
) -> dict[str, Any]:
    """Validate every row and every model; answers what a run would do. With `pilot` so many jobs
    are really run, and what all will cost is estimated from them.

    Raises JobFileError and ModelError; a pilot raises PressrunError. Bad rows are listed up to a
    bound, and counted in full. Memory is constant, whatever the file's size.
    """
    profile = settings.chosen_profile
    check_models(settings, profile)
    open_store(settings)
    plan, warnings = _Plan(Spread(pilot) if pilot else None), list[Notice]()
    for row in read_jobs(path, profile, overrides, warnings.append):
        plan.count(row)
    if not plan.tally["rows"]:
        raise JobFileError(f"{path} holds no rows.")
    report = {
        "profile": profile.name,
        **plan.report(),
        "warnings": [asdict(warning) for warning in warnings],
        "problems": plan.problems,
    }
    if jobs := plan.picked():
        from flows import pilot as flown

        flight = flown.fly(jobs, plan.tally["jobs"], path, overrides, settings)
        price = Price.of(settings)
        report |= flown.report(flight, plan.tally["jobs"], plan.tally["work"], price)
    return report


class _Plan:
    """What a run would do, counted row by row, and the jobs of a pilot."""

    def __init__(self, spread: Spread | None) -> None:
        self._spread = spread
        self.tally = Counter[str]()
        self.problems = list[dict[str, Any]]()
        self._collections = set[str]()
        self._seen = Seen()

    def count(self, row: Job | BadRow) -> None:
        self.tally["rows"] += 1
        if isinstance(row, BadRow):
            self.tally["invalid"] += 1
            if len(self.problems) < PROBLEMS_SHOWN:
                problem = {"line": row.row, "column": row.column, "reason": row.reason}
                self.problems.append(problem)
        elif self._seen.add(row.id):
            self._plan(row)
        else:
            self.tally["duplicates"] += 1

    def report(self) -> dict[str, Any]:
        return {
            **{name: self.tally[name] for name in ("rows", "jobs", "duplicates", "invalid")},
            "candidates_at_most": self.tally["candidates"],
            "denoising_steps_at_most": self.tally["steps"],
            "collections": sorted(filter(None, self._collections)),
        }

    def picked(self) -> list[Job]:
        return self._spread.picked() if self._spread else []

    def _plan(self, job: Job) -> None:
        if self._spread:
            self._spread.add(job)
        if len(self._collections) < COLLECTIONS_SHOWN:
            self._collections.add(job.collection)
        self.tally["jobs"] += 1
        candidates = job.candidates * job.rounds
        self.tally["candidates"] += candidates
        self.tally["steps"] += candidates * job.steps
        self.tally["work"] += work_of(job)
