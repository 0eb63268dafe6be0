"""Calibration of contests on a few jobs with all their candidates: how early previews predict the
winner of a race, and which scores `stop` may expect.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from itertools import islice
from math import fsum
from pathlib import Path
from statistics import fmean, mean
from typing import Any, TypedDict, TypeVar

from rich.console import Console
from rich.progress import track

from flows.runs.open import asked_for
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.jobs import open_jobs
from pipeline.assemble.stores import open_run_folder, open_store
from pipeline.errors import Blocked, JobError, RunError
from pipeline.job import (
    Brief,
    Context,
    ImageArray,
    Job,
    Prior,
    RenderRequest,
    Score,
)
from pipeline.jobfile.reader import Overrides
from pipeline.judging.priors import LEAST, LEVELS, fit, forecast
from pipeline.judging.racing import (
    TENTHS,
    Finished,
    Trial,
    agreement,
    enough,
    preview_price,
    propose,
    regret_of,
    trial,
)
from pipeline.ports import Ports
from pipeline.run import Execution, Scoring, hold_contest, render_request, scored, scoring_of
from pipeline.settings import Settings
from pipeline.telemetry import metered

AT_ONCE = 8
PLAIN = 8
"""Jobs that are rendered once more without previews, to know the price of these."""
REFUSED = (
    "The profile's rungs win no more than fewer candidates without a race, at the same cost: "
    "take the proposal, or fewer candidates."
)

Item = TypeVar("Item")
NEEDED = f"A prior needs {LEAST} jobs of at least two candidates, better 64 of 8."

Held = TypeVar("Held")


class LeftOut(TypedDict):
    """A row that has no contest, and why."""

    row: int
    reason: str


def calibrate_race(
    path: Path, overrides: Overrides, count: int, regret: float, settings: Settings
) -> dict[str, Any]:
    """Render the file's first `count` jobs with all their candidates. The report has Spearman's
    rank correlation of preview and final scores at each tenth of the steps, the price of a preview,
    cost and regret of the profile's own race, the cheapest race with at most `regret`, the fewest
    candidates with it, and the rows left out as in `calibrate_stop`. `refused` says where the
    profile's own race loses to fewer candidates at its cost.

    Cost is the share of what all candidates cost; regret the share of the best candidate's score
    that its winner misses. Raises PressrunError, RunError if the renderer shows no previews.
    """
    jobs = _jobs(path, overrides, count, settings)
    if any(job.candidates < 2 for job in jobs):
        raise RunError("A race needs rivals: ask for at least two candidates.")
    if len({job.candidates for job in jobs}) > 1:
        raise RunError("Rows of different numbers of candidates cannot be compared: name one.")
    own = settings.chosen_profile.defaults.rungs
    points = sorted({*TENTHS, *(rung.at for rung in own)})
    with _opened(path, overrides, settings) as ports:
        watched, left_out = _measured(jobs, lambda job: _finished(job, ports, points))
        plain, _ = _measured([job for job, _ in watched[:PLAIN]], lambda job: _plain(job, ports))
    contests = [contest for _, (contest, _) in watched]
    again = {job.row for job, _ in plain}
    price = preview_price(
        plain=fmean(device["renderer"] for _, device in plain),
        watched=fmean(device["renderer"] for job, (_, device) in watched if job.row in again),
        judged=fmean(_judged(device) for _, (_, device) in watched),
        previews=len(points),
    )
    race, proposal = trial(own, contests, price), propose(contests, regret, price)
    fewest = enough(contests, regret)
    return {
        "jobs": len(contests),
        "candidates": jobs[0].candidates,
        "spearman": {str(point): round(agreement(point, contests), 3) for point in points},
        "preview_price": round(price, 4),
        "profile": _figures(race),
        "proposal": _figures(proposal),
        "fewer": {
            "candidates": fewest,
            "cost": round(fewest / jobs[0].candidates, 3),
            "regret": round(regret_of(fewest, contests), 4),
        },
        **_told(left_out),
        **({"refused": REFUSED} if race.loses else {}),
    }


def calibrate_stop(
    path: Path, overrides: Overrides, count: int, settings: Settings, out: Path | None = None
) -> dict[str, Any]:
    """Render the file's first `count` jobs with all their candidates. The report has the prior of
    their scores, the part of the variance that is the prompts', and for some values of `stop_below`
    a forecast of the share accepted and of the candidates for each accepted one. Rows whose jobs
    fail for reasons of their own, or are blocked, are left out and told. With `out` a profile with
    the prior is written there, which extends the settings' one.

    Raises PressrunError, RunError for a file `out` that exists, and for jobs whose scores no prior
    can be fitted to.
    """
    if out and out.exists():
        raise RunError(f"{out} exists; name another file for the profile.")
    settings = _without_stop(settings)
    jobs = _jobs(path, overrides, count, settings)
    models = {job.model for job in jobs}
    if len(models) > 1:
        raise RunError("Each renderer has scores of its own: choose rows of one, or give --model.")
    if len(jobs) < LEAST or any(job.candidates < 2 for job in jobs):
        raise RunError(NEEDED)
    with _opened(path, overrides, settings) as ports:
        contests, left_out = _measured(jobs, lambda job: _finals(job, ports))
    if len(contests) < LEAST:
        left = f"{len(left_out)} of {len(jobs)} were left out"
        raise RunError(f"{NEEDED} {left}; the first, {_reason(left_out[0])}")
    try:
        prior = fit(contests)
        forecasts = [asdict(forecast(contests, level)) for level in LEVELS]
    except ValueError as error:
        raise RunError(f"No prior fits these jobs: {error}.") from error
    figures = {name: float(f"{value:.4g}") for name, value in prior.model_dump().items()}
    if out:
        (model,) = models
        _write_profile(out, settings.profile, model, figures, f"{path.name}, {len(contests)} jobs")
    return {
        "jobs": len(contests),
        "candidates": round(mean(job.candidates for job, _ in contests), 2),
        "prior": figures,
        "between_share": round(prior.between / (prior.between + prior.within), 3),
        "forecast": [
            {name: None if value is None else round(value, 3) for name, value in each.items()}
            for each in forecasts
        ],
        **_told(left_out),
        **({"profile": str(out)} if out else {}),
    }


def _without_stop(settings: Settings) -> Settings:
    """The settings with a prior in their profile wherever it has none, so that rows of `stop` are
    not refused; they are rendered with all candidates in any case.
    """
    profile = settings.chosen_profile
    some = Prior(mean=0, between=1, within=1)
    defaults = profile.defaults.model_copy(update={"prior": profile.defaults.prior or some})
    profile = profile.model_copy(update={"defaults": defaults})
    return settings.model_copy(update={"chosen_profile": profile})


def _write_profile(
    out: Path, base: str, model: str, prior: Mapping[str, float], source: str
) -> None:
    """Write a profile that extends another one by a prior, and by `stop` as its contest."""
    extended = str(Path(base).absolute()) if base.endswith(".toml") else base
    table = f"renderers.{json.dumps(model)}.defaults" if model else "defaults"
    values = ", ".join(f"{name} = {value}" for name, value in prior.items())
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(
                f"# Scores to expect, measured by `pressrun calibrate stop` on {source}.\n\n"
                f"extends = {json.dumps(extended, ensure_ascii=False)}\n\n"
                f'[{table}]\ncontest = "stop"\nprior = {{ {values} }}\n'
            )
    except OSError as error:
        raise RunError(f"{out}: {error.strerror}.") from error


def _jobs(path: Path, overrides: Overrides, count: int, settings: Settings) -> list[Job]:
    """The file's first jobs. Raises RunError where it has none."""
    rows = open_jobs(path, overrides, settings, store=open_store(settings))
    jobs = list(islice((row for row in rows if isinstance(row, Job)), count))
    if not jobs:
        raise RunError(f"{path} holds no jobs.")
    return jobs


@contextmanager
def _opened(path: Path, overrides: Overrides, settings: Settings) -> Iterator[Ports]:
    spec = asked_for(path, overrides, settings, open_run_folder(settings, "calibration"))
    with closing(Assembly(settings)) as assembly:
        yield assembly.ports(spec)


def of_each(items: Sequence[Item], hold: Callable[[Item], Held]) -> list[Held]:
    """The results of `hold` for each item, several at a time, with a bar on standard error."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        held = pool.map(hold, items)
        return list(track(held, "calibrate", len(items), console=Console(file=sys.stderr)))


def _measured(
    jobs: Sequence[Job], hold: Callable[[Job], Held]
) -> tuple[list[tuple[Job, Held]], list[LeftOut]]:
    """The jobs with the results of `hold`, and the rows left out, whose job is blocked or fails for
    a reason of its own. Raises RunError where that is so for all.
    """

    def attempt(job: Job) -> tuple[Job, Held] | LeftOut:
        try:
            return job, hold(job)
        except (Blocked, JobError) as error:
            return LeftOut(row=job.row, reason=error.detail or str(error))

    found = of_each(jobs, attempt)
    held = [each for each in found if isinstance(each, tuple)]
    left_out = [each for each in found if not isinstance(each, tuple)]
    if not held:
        raise RunError(f"No row can be measured; the first, {_reason(left_out[0])}")
    return held, left_out


def _told(left_out: Sequence[LeftOut]) -> dict[str, Any]:
    reasons = {"reasons": list(left_out)} if left_out else {}
    return {"left_out": len(left_out), **reasons}


def _reason(left_out: LeftOut) -> str:
    return f"row {left_out['row']}: {left_out['reason']}"


def _judged(device: Mapping[str, float]) -> float:
    """The device seconds of judging, without the guards', which see no preview."""
    return fsum(spent for role, spent in device.items() if role not in ("renderer", "guard"))


class Watcher:
    """A Pruner that scores all candidates at each point and drops none."""

    def __init__(self, points: Sequence[float], scoring: Scoring) -> None:
        self.points, self.seen = points, list[Sequence[Score]]()
        self._scoring = scoring

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        """All of them."""
        self.seen.append(self._scoring(previews))
        return range(len(previews))


def _finished(
    job: Job, ports: Ports, points: Sequence[float]
) -> tuple[Finished, Mapping[str, float]]:
    """A job's contest without drops, and its device seconds by role."""
    context, brief = _briefed(job, ports)
    scoring = scoring_of(job, context, brief, ports)
    watcher = Watcher(points, scoring_of(job, context, brief, ports, previews=True))
    with metered() as meter:
        images = ports.renderer.render(_all_of(job, context, brief, ports), watcher)
        if not watcher.seen:
            raise RunError("This profile's renderer shows no previews: it cannot hold a race.")
        finals = scored([each for each in images if each is not None], (), scoring, ports)
    return Finished(dict(zip(points, watcher.seen, strict=True)), finals), meter.device


def _plain(job: Job, ports: Ports) -> Mapping[str, float]:
    """The device seconds of a job's candidates without previews, by role."""
    request = _all_of(job, *_briefed(job, ports), ports)
    with metered() as meter:
        ports.renderer.render(request)
    return meter.device


def _briefed(job: Job, ports: Ports) -> tuple[Context, Brief]:
    """A job's context and brief, guarded as in a run."""
    execution = Execution(job, ports)
    execution.retrieve()
    brief = execution.write()
    return execution.context, brief


def _all_of(job: Job, context: Context, brief: Brief, ports: Ports) -> RenderRequest:
    seeds = tuple(job.candidate_seed(index) for index in range(job.candidates))
    return render_request(job, context, brief, ports.inputs, seeds)


def _finals(job: Job, ports: Ports) -> list[Score]:
    context, brief = _briefed(job, ports)
    found = list[Score]()
    # wave by wave, as `stop` has them: of each the judges with finalists see the best ones
    for first in range(0, job.candidates, job.wave):
        count = min(job.wave, job.candidates - first)
        wave = job.model_copy(update={"contest": "best_of", "candidates": count})
        held = hold_contest(wave, context, brief, ports, first)
        found += [each.score for each in held if each.score]
    return found


def _figures(found: Trial) -> dict[str, Any]:
    return {
        "rungs": [rung.model_dump() for rung in found.rungs],
        "cost": round(found.cost, 3),
        "regret": round(found.regret, 4),
        "fewer_regret": round(found.fewer, 4),
        "loses": found.loses,
    }
