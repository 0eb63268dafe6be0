"""The dry run: validation and plan, without a model in memory."""

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.dispatch.budget import work_of
from flows.runs.costs import Price
from flows.runs.estimate import StratifiedSample
from pipeline.assemble.jobs import open_jobs
from pipeline.assemble.models import check_models, model_remarks
from pipeline.assemble.stores import open_store
from pipeline.errors import JobError, JobFileError
from pipeline.job import BadRow, Context, Job
from pipeline.jobfile.reader import Notice, Overrides
from pipeline.jobfile.remarks import Remarks
from pipeline.profile import Profile
from pipeline.records.ids import IdSet
from pipeline.settings import Settings
from pipeline.telemetry import metered
from pipeline.writing.template import TemplateWriter

PROBLEMS_SHOWN = 20
COLLECTIONS_SHOWN = 100

_WAS_CUT = re.compile(r"was cut from \d+ to \d+ characters")


def check_jobs(
    path: Path, overrides: Overrides, settings: Settings, pilot: int | None = None
) -> dict[str, Any]:
    """Validate every row and every model; reports the work of a run. With `pilot`, that many jobs
    are really run, and the cost of all is estimated from them.

    Raises JobFileError and ModelError; a pilot raises PressrunError. All bad rows are counted, the
    first PROBLEMS_SHOWN are listed. Memory does not grow with the file.
    """
    profile = settings.chosen_profile
    check_models(settings, profile)
    said = model_remarks(settings, profile)
    open_store(settings)
    plan, warnings = _Plan(StratifiedSample(pilot) if pilot else None), list[Notice]()
    filled = _Filled(profile, remarks := Remarks())
    for row in open_jobs(path, overrides, settings, warnings.append):
        plan.count(row)
        filled.see(row)
    remarks.report(warnings.append)
    if not plan.counts["rows"]:
        raise JobFileError(f"{path} holds no rows.")
    report = {
        "profile": profile.name,
        **plan.report(),
        **(plan.models() if profile.renderers else {}),
        **({"model_remarks": said} if said else {}),
        "warnings": [asdict(warning) for warning in warnings],
        "problems": plan.problems,
    }
    if jobs := plan.picked():
        from flows.runs import pilot as trial

        result = trial.run_pilot(jobs, plan.counts["jobs"], path, overrides, settings)
        price = Price.of(settings)
        report |= trial.report(result, plan.counts["jobs"], plan.counts["work"], price)
    return report


class _Filled:
    """A trial of the template writer on each row, which remarks cuts and failures that can be found
    without a model.
    """

    def __init__(self, profile: Profile, remarks: Remarks) -> None:
        self._remark = remarks.add
        writer = profile.writer
        self._writer = None
        if writer.kind == "template":
            self._writer = TemplateWriter(writer)
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
        for notice in meter.notices:
            self._remark(row.row, "keywords", _WAS_CUT.sub("will be cut", notice))


class _Plan:
    """The work of a run, counted row by row, and the sample of jobs for a pilot."""

    def __init__(self, sample: StratifiedSample | None) -> None:
        self._sample = sample
        self.counts = Counter[str]()
        self.problems = list[dict[str, Any]]()
        self._collections = set[str]()
        self._models = Counter[str]()
        self._seen = IdSet()

    def count(self, row: Job | BadRow) -> None:
        self.counts["rows"] += 1
        if isinstance(row, BadRow):
            self.counts["invalid"] += 1
            if len(self.problems) < PROBLEMS_SHOWN:
                problem = {"line": row.row, "column": row.column, "reason": row.reason}
                self.problems.append(problem)
        elif not self._seen.add(row.id):
            self.counts["duplicates"] += 1
        else:
            if self._sample:
                self._sample.add(row)
            if len(self._collections) < COLLECTIONS_SHOWN:
                self._collections.add(row.collection)
            self.counts["jobs"] += 1
            self._models[row.model] += 1
            self.counts["candidates"] += row.candidates * row.rounds
            self.counts["steps"] += row.contest_steps * row.rounds
            self.counts["work"] += work_of(row)

    def report(self) -> dict[str, Any]:
        return {
            **{name: self.counts[name] for name in ("rows", "jobs", "duplicates", "invalid")},
            "candidates_at_most": self.counts["candidates"],
            "denoising_steps_at_most": self.counts["steps"],
            "collections": sorted(filter(None, self._collections)),
        }

    def models(self) -> dict[str, Any]:
        """The jobs of each model, and how often a worker changes its model at most."""
        return {
            "by_model": [{"model": name, "jobs": jobs} for name, jobs in self._models.items()],
            "model_changes_per_worker": max(0, len(self._models) - 1),
        }

    def picked(self) -> list[Job]:
        return self._sample.picked() if self._sample else []
