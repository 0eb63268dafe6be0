"""The dry run: validation and plan, without a model in memory."""

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.dispatch.budget import work_of
from flows.runs.costs import Price
from flows.runs.dedupe import SeenIds
from flows.runs.sampling import Spread
from pipeline.assemble import check_models, open_store
from pipeline.errors import JobError, JobFileError
from pipeline.job import BadRow, Context, Job
from pipeline.jobfile.reader import Notice, Overrides, read_jobs
from pipeline.jobfile.remarks import Remarks
from pipeline.profile import Profile
from pipeline.settings import Settings
from pipeline.telemetry import metered
from pipeline.writing.template import TemplateWriter

PROBLEMS_SHOWN = 20
COLLECTIONS_SHOWN = 100

_WAS_CUT = re.compile(r"was cut from \d+ to \d+ characters")


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
    filled = _Filled(profile, remarks := Remarks())
    for row in read_jobs(path, profile, overrides, warnings.append):
        plan.count(row)
        filled.see(row)
    remarks.tell(warnings.append)
    if not plan.tally["rows"]:
        raise JobFileError(f"{path} holds no rows.")
    report = {
        "profile": profile.name,
        **plan.report(),
        "warnings": [asdict(warning) for warning in warnings],
        "problems": plan.problems,
    }
    if jobs := plan.picked():
        from flows.runs import pilot as flown

        flight = flown.fly(jobs, plan.tally["jobs"], path, overrides, settings)
        price = Price.of(settings)
        report |= flown.report(flight, plan.tally["jobs"], plan.tally["work"], price)
    return report


class _Filled:
    """What the template writer would make of the rows: remarks on cuts and failures that need no
    model to be known.
    """

    def __init__(self, profile: Profile, remarks: Remarks) -> None:
        self._note = remarks.event
        writer = profile.writer
        self._writer = TemplateWriter(writer) if writer.kind == "template" else None
        # retrieved texts may fill what is empty now
        self._alone = not re.search(r"\{\s*(passages|text)\s*\}", writer.prompt_template)

    def see(self, row: Job | BadRow) -> None:
        if self._writer is None or isinstance(row, BadRow):
            return
        with metered() as meter:
            try:
                self._writer.write(row, Context())
            except JobError as error:
                if self._alone:
                    meter.notices.append(f"the row will fail: {error.detail}")
        for said in meter.notices:
            self._note(row.row, "keywords", _WAS_CUT.sub("will be cut", said))


class _Plan:
    """What a run would do, counted row by row, and the jobs of a pilot."""

    def __init__(self, spread: Spread | None) -> None:
        self._spread = spread
        self.tally = Counter[str]()
        self.problems = list[dict[str, Any]]()
        self._collections = set[str]()
        self._seen = SeenIds()

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
