"""Calibration of contests on a few jobs with all their candidates: how early previews predict the
winner of a race, whether drafts do, and which scores `stop` may expect.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import comb
from pathlib import Path
from statistics import fmean, mean
from typing import Any

from flows.runs.measured_jobs import (
    all_of,
    briefed,
    first_jobs,
    judged_seconds,
    measured,
    opened_ports,
    reason,
    told,
)
from pipeline.errors import RunError
from pipeline.job import ImageArray, Job, Prior, Score
from pipeline.jobfile.reader import Overrides
from pipeline.judging.contest import best, passes
from pipeline.judging.priors import LEAST, LEVELS, fit, forecast
from pipeline.judging.racing import (
    TENTHS,
    Finished,
    Trial,
    agreement,
    drafted,
    enough,
    preview_price,
    propose,
    propose_drafts,
    regret_of,
    trial,
)
from pipeline.ports import Ports
from pipeline.run import Scoring, hold_contest, scored, scoring_of
from pipeline.settings import Settings
from pipeline.telemetry import metered

PLAIN = 8
"""Jobs that are rendered once more without previews, to know the price of these."""
REFUSED = (
    "The profile's rungs win no more than fewer candidates without a race, at the same cost: "
    "take the proposal, or fewer candidates."
)
NEEDED = f"A prior needs {LEAST} jobs of at least two candidates, better 64 of 8."
NO_DRAFTS = (
    "The profile's drafts win no more than fewer candidates without drafts, at the same cost: take "
    "the proposal, or fewer candidates."
)


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
    jobs = _rivals(path, overrides, count, settings)
    own = settings.chosen_profile.defaults.rungs
    points = sorted({*TENTHS, *(rung.at for rung in own)})
    with opened_ports(path, overrides, settings) as ports:
        watched, left_out = measured(jobs, lambda job: _finished(job, ports, points))
        plain, _ = measured([job for job, _ in watched[:PLAIN]], lambda job: _plain(job, ports))
    contests = [contest for _, (contest, _) in watched]
    again = {job.row for job, _ in plain}
    price = preview_price(
        plain=fmean(device["renderer"] for _, device in plain),
        watched=fmean(device["renderer"] for job, (_, device) in watched if job.row in again),
        judged=fmean(judged_seconds(device) for _, (_, device) in watched),
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
        **told(left_out),
        **({"refused": REFUSED} if race.loses else {}),
    }


def _rivals(path: Path, overrides: Overrides, count: int, settings: Settings) -> list[Job]:
    """The file's first jobs, whose contests can be compared. Raises RunError where they cannot."""
    jobs = first_jobs(path, overrides, count, settings)
    if any(job.candidates < 2 for job in jobs):
        raise RunError("A contest needs rivals: ask for at least two candidates.")
    if len({job.candidates for job in jobs}) > 1:
        raise RunError("Rows of different numbers of candidates cannot be compared: name one.")
    return jobs


def calibrate_draft(
    path: Path, overrides: Overrides, count: int, regret: float, settings: Settings
) -> dict[str, Any]:
    """Render the file's first `count` jobs with all their candidates, as drafts and in full. The
    report has Spearman's rank correlation of both scores, the price of a draft in full renders,
    for each number of survivors a forecast of cost, regret, the share of the jobs accepted and the
    denoising steps for each accepted one, the cheapest that has at most `regret` and wins more than
    fewer candidates at its cost, the fewest candidates with that `regret`, and the rows left out as
    in `calibrate_stop`. `refused` says where the profile's own survivors lose to fewer candidates.

    Cost and regret are those of `calibrate_race`. Raises PressrunError.
    """
    jobs = _rivals(path, overrides, count, settings)
    if len({(job.draft_steps, job.steps, job.survivors) for job in jobs}) > 1:
        raise RunError("Rows of different steps, draft_steps or survivors cannot be compared.")
    first = jobs[0]
    if first.draft_steps >= first.steps:
        raise RunError(
            f"Drafts of {first.draft_steps} steps are no shorter than images of {first.steps}."
        )
    with opened_ports(path, overrides, settings) as ports:
        measures, left_out = measured(jobs, lambda job: _drafted(job, ports))
    held = [(job, contest) for job, (contest, *_) in measures]
    contests = [contest for _, contest in held]
    short = fmean(spent for _, (_, spent, _) in measures)
    whole = fmean(spent for _, (_, _, spent) in measures)
    price, numbers = short / max(whole, 1e-9), range(1, first.candidates)
    own = drafted(first.survivors, contests, price)
    proposal = propose_drafts(contests, regret, price)
    return {
        "jobs": len(contests),
        "candidates": first.candidates,
        "steps": first.steps,
        "draft_steps": first.draft_steps,
        "spearman": round(agreement(first.draft_steps / first.steps, contests), 3),
        "draft_price": round(price, 4),
        "profile": _draft_figures(own, held),
        "proposal": _draft_figures(proposal, held) if proposal.survivors else None,
        "forecast": [_draft_figures(drafted(n, contests, price), held) for n in numbers],
        "fewer": _fewer_figures(enough(contests, regret), held),
        **told(left_out),
        **({"refused": NO_DRAFTS} if own.loses else {}),
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
    jobs = first_jobs(path, overrides, count, settings)
    models = {job.model for job in jobs}
    if len(models) > 1:
        raise RunError("Each renderer has scores of its own: choose rows of one, or give --model.")
    if len(jobs) < LEAST or any(job.candidates < 2 for job in jobs):
        raise RunError(NEEDED)
    with opened_ports(path, overrides, settings) as ports:
        contests, left_out = measured(jobs, lambda job: _finals(job, ports))
    if len(contests) < LEAST:
        left = f"{len(left_out)} of {len(jobs)} were left out"
        raise RunError(f"{NEEDED} {left}; the first, {reason(left_out[0])}")
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
        **told(left_out),
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
    context, brief = briefed(job, ports)
    scoring = scoring_of(job, context, brief, ports)
    watcher = Watcher(points, scoring_of(job, context, brief, ports, previews=True))
    with metered() as meter:
        images = ports.renderer.render(all_of(job, context, brief, ports), watcher)
        if not watcher.seen:
            raise RunError("This profile's renderer shows no previews: it cannot hold a race.")
        finals = scored([each for each in images if each is not None], (), scoring, ports)
    return Finished(dict(zip(points, watcher.seen, strict=True)), finals), meter.device


def _plain(job: Job, ports: Ports) -> Mapping[str, float]:
    """The device seconds of a job's candidates without previews, by role."""
    request = all_of(job, *briefed(job, ports), ports)
    with metered() as meter:
        ports.renderer.render(request)
    return meter.device


def _finals(job: Job, ports: Ports) -> list[Score]:
    context, brief = briefed(job, ports)
    found = list[Score]()
    # wave by wave, as `stop` has them: of each the judges with finalists see the best ones
    for first in range(0, job.candidates, job.wave):
        count = min(job.wave, job.candidates - first)
        wave = job.model_copy(update={"contest": "best_of", "candidates": count})
        held = hold_contest(wave, context, brief, ports, first)
        found += [each.score for each in held if each.score]
    return found


def _drafted(job: Job, ports: Ports) -> tuple[Finished, float, float]:
    """A job's contest without drops, with the device seconds of its drafts and of its images, each
    judged.
    """
    context, brief = briefed(job, ports)
    request = all_of(job, context, brief, ports)
    scoring = scoring_of(job, context, brief, ports)
    previewing = scoring_of(job, context, brief, ports, previews=True)
    with metered() as short:
        made = ports.renderer.render(request.model_copy(update={"steps": job.draft_steps}))
        drafts = previewing([each for each in made if each is not None])
    with metered() as whole:
        images = [each for each in ports.renderer.render(request) if each is not None]
        finals = list(scored(images, (), scoring, ports))
    for index, score in enumerate(finals):
        if score.valid and not score.final:
            # a judge with finalists sees each of a few survivors
            (finals[index],) = scored([images[index]], (), scoring, ports)
    spent, all_spent = (
        judged_seconds(each.device) + each.device["renderer"] for each in (short, whole)
    )
    return Finished({job.draft_steps / job.steps: drafts}, finals), spent, all_spent


def _draft_figures(found: Trial, held: Sequence[tuple[Job, Finished]]) -> dict[str, Any]:
    rule = {"contest": "draft", "survivors": found.survivors}
    steps = fmean(job.model_copy(update=rule).contest_steps for job, _ in held)
    accepted = fmean(
        any(passes(job, contest.finals[i]) for i in best(found.survivors, drafts))
        for job, contest in held
        for drafts in contest.previews.values()
    )
    return {
        "survivors": found.survivors,
        "cost": round(found.cost, 3),
        "regret": round(found.regret, 4),
        "fewer_regret": round(found.fewer, 4),
        "loses": found.loses,
        **_accepted(accepted, steps),
    }


def _fewer_figures(count: int, held: Sequence[tuple[Job, Finished]]) -> dict[str, Any]:
    """The figures of so many candidates without drafts, the mean of all choices of them."""
    number = held[0][0].candidates
    failing = [sum(not passes(job, each) for each in contest.finals) for job, contest in held]
    accepted = 1 - fmean(comb(each, count) / comb(number, count) for each in failing)
    rule = {"contest": "best_of", "candidates": count}
    steps = fmean(job.model_copy(update=rule).contest_steps for job, _ in held)
    return {
        "candidates": count,
        "cost": round(count / number, 3),
        "regret": round(regret_of(count, [contest for _, contest in held]), 4),
        **_accepted(accepted, steps),
    }


def _accepted(share: float, steps: float) -> dict[str, float | None]:
    return {
        "accepted": round(share, 3),
        "steps_per_accepted": round(steps / share, 1) if share else None,
    }


def _figures(found: Trial) -> dict[str, Any]:
    return {
        "rungs": [rung.model_dump() for rung in found.rungs],
        "cost": round(found.cost, 3),
        "regret": round(found.regret, 4),
        "fewer_regret": round(found.fewer, 4),
        "loses": found.loses,
    }
