"""The dry run: validation, plan and estimate, without a model in memory."""

from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.assemble import check_models, open_store
from pipeline.intake.reader import Overrides, read_jobs
from pipeline.job import BadRow
from pipeline.settings import Settings

PROBLEMS_SHOWN = 20


def check_jobs(path: Path, overrides: Overrides, settings: Settings) -> dict[str, Any]:
    """Validate every row and every model; answers what a run would do.

    Raises JobFileError and ModelError. Bad rows are listed up to a bound, and counted in full.
    """
    profile = settings.chosen_profile
    check_models(settings, profile)
    open_store(settings)
    tally = Counter[str]()
    collections = set[str]()
    problems, seen = list[dict[str, Any]](), set[str]()
    for row in read_jobs(path, profile, overrides):
        tally["rows"] += 1
        if isinstance(row, BadRow):
            tally["invalid"] += 1
            if len(problems) < PROBLEMS_SHOWN:
                problems.append({"line": row.row, "column": row.column, "reason": row.reason})
        elif row.id in seen:
            tally["duplicates"] += 1
        else:
            seen.add(row.id)
            collections.add(row.collection)
            tally["jobs"] += 1
            tally["candidates"] += row.candidates
            tally["steps"] += row.candidates * row.steps
    return {
        "profile": profile.name,
        **{name: tally[name] for name in ("rows", "jobs", "duplicates", "invalid")},
        "candidates_at_most": tally["candidates"],
        "denoising_steps_at_most": tally["steps"],
        "collections": sorted(filter(None, collections)),
        "problems": problems,
    }
