"""Calibration of a race: how early previews predict the winner, measured on a few jobs."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from flows.runs.open import asked_for
from pipeline.assemble import Assembly, open_jobs, open_run_folder, open_store
from pipeline.errors import RunError
from pipeline.job import ImageArray, Job, Score
from pipeline.jobfile.reader import Overrides
from pipeline.judging.racing import TENTHS, Finished, Trial, agreement, propose, trial
from pipeline.ports import Ports
from pipeline.run import Scoring, render_request, scoring_of
from pipeline.settings import Settings

AT_ONCE = 8


def calibrate_race(
    path: Path, overrides: Overrides, count: int, regret: float, settings: Settings
) -> dict[str, Any]:
    """Render the file's first `count` jobs with all their candidates. The report has Spearman's
    rank correlation of preview and final scores at each tenth of the steps, cost and regret of the
    profile's own race, and the cheapest race with at most `regret`.

    Cost is the share of all steps that a race runs; regret the share of the best candidate's score
    that its winner misses. Raises PressrunError, RunError if the renderer shows no previews.
    """
    rows = open_jobs(path, overrides, settings, store=open_store(settings))
    jobs = list(islice((row for row in rows if isinstance(row, Job)), count))
    if not jobs:
        raise RunError(f"{path} holds no jobs.")
    if any(job.candidates < 2 for job in jobs):
        raise RunError("A race needs rivals: ask for at least two candidates.")
    own = settings.chosen_profile.defaults.rungs
    points = sorted({*TENTHS, *(rung.at for rung in own)})
    spec = asked_for(path, overrides, settings, open_run_folder(settings, "calibration"))
    ports = Assembly(settings).ports(spec)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        held = pool.map(lambda job: _finished(job, ports, points), jobs)
        shown = track(held, "calibrate", len(jobs), console=Console(file=sys.stderr))
        contests = list(shown)
    return {
        "jobs": len(contests),
        "candidates": jobs[0].candidates,
        "spearman": {str(point): round(agreement(point, contests), 3) for point in points},
        "profile": _figures(trial(own, contests)),
        "proposal": _figures(propose(contests, regret)),
    }


class Watcher:
    """A Pruner that scores all candidates at each point and drops none."""

    def __init__(self, points: Sequence[float], scoring: Scoring) -> None:
        self.points, self.seen = points, list[Sequence[Score]]()
        self._scoring = scoring

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        """All of them."""
        self.seen.append(self._scoring(previews))
        return range(len(previews))


def _finished(job: Job, ports: Ports, points: Sequence[float]) -> Finished:
    context = ports.retriever.retrieve(job)
    brief = ports.writer.write(job, context)
    scoring = scoring_of(job, context, brief, ports)
    watcher = Watcher(points, scoring)
    seeds = tuple(job.candidate_seed(index) for index in range(job.candidates))
    request = render_request(job, context, brief, ports.inputs, seeds)
    images = ports.renderer.render(request, watcher)
    if not watcher.seen:
        raise RunError("This profile's renderer shows no previews: it cannot hold a race.")
    finals = scoring([image for image in images if image is not None])
    return Finished(dict(zip(points, watcher.seen, strict=True)), finals)


def _figures(found: Trial) -> dict[str, Any]:
    return {
        "rungs": [rung.model_dump() for rung in found.rungs],
        "cost": round(found.cost, 3),
        "regret": round(found.regret, 4),
    }
