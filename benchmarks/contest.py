"""The cost of a contest: eight ways to the best of N images, on the same jobs, in one run.

- `naive`: diffusers' pipeline, called for one image after another;
- `batched`: diffusers' pipeline, called once for all candidates of a job;
- `best_of`, `race`, `race_above`, `first_above`, `stop`, `draft`: the engine's contests, several
  jobs at a time as in a worker; `race_above` in waves of 2, `first_above` and `stop` in waves of 1.
  There is no contest that both gives up and races.

All judge with the same judges, and share settings and seeds: with `--gate clip` the example's CLIP,
with `--gate sees` CLIP and the model that sees, as in `benchmarks.gate`. The prior of `stop` is
measured before, on other jobs. Jobs are prompts of held-out seeds for the example's draft renderer,
half of them of two objects. `kept_per_s` are jobs per second: each keeps one image.
`samples_per_kept` are rows that the denoiser was given, guidance's second row included. `right` is
the share of kept images in which the umpire sees what was asked for, and `right_per_s` are images
per second that pass and in which it does. `stop_vs_first_above` and `right_vs_naive` compare the
`right_per_s` of `stop` with those of the two, and `stop_accepted` its passing jobs with those of
`first_above`; `draft_vs_best_of` and `draft_vs_race` compare the `right_per_s` of `draft`, and
`draft_score_ratio` its score with that of `best_of`. The rounds alternate, since the machine may be
slower at one time than at another.

`occupancy` is the mean filled part of the engine's batch while a longer run of races lasts, until
the last 2% of its jobs; `stop_occupancy` the same for `stop` in waves of 1, with twice as many jobs
in work as the batch has places.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import gate
from benchmarks.common import EXAMPLE, arguments, show, wired
from examples.shapes import umpire, world
from pipeline.job import Brief, Candidate, ContestMode, Context, ImageArray, Job, Score
from pipeline.jobfile.reader import Overrides
from pipeline.judging import contest
from pipeline.judging.priors import fit
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.local import EngineRenderer
from pipeline.run import hold_contest, render_request, scoring_of
from pipeline.settings import Settings

# without the image adapter, for which the plain pipeline would want images in every call
RENDERER = '[renderer]\nimage_adapter = ""\n'
GATES = {"clip": 'extends = "shapes-draft"\n', "sees": gate.PROFILE}
"""Profiles by the judges in them."""
ENGINE: dict[ContestMode, dict[str, Any]] = {
    "best_of": {},
    "race": {},
    "race_above": {"wave": 2},
    "first_above": {"wave": 1},
    "stop": {"wave": 1},
    "draft": {},
}
LAST = 0.02

Candidates = list[Candidate]


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--threshold", type=float, default=0.5, help="what a score has to reach")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--endurance", type=int, default=500, help="jobs of the longer run")
    parser.add_argument("--prior", type=int, default=64, help="jobs that the prior is fitted to")
    parser.add_argument("--stop-below", type=float, default=0.02, help="chance to give up at")
    parser.add_argument("--gate", choices=GATES, default="clip", help="the judges")
    parser.add_argument("--draft-steps", type=int, default=8, help="steps of a draft")
    parser.add_argument("--survivors", type=int, default=2, help="drafts rendered again")
    parser.add_argument("--seed", type=int, default=90_001, help="no training used it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = Overrides(candidates=given.candidates, threshold=given.threshold)
        bench = Bench(Path(folder), overrides, given.gate)
        bench.rules["draft"] |= {"draft_steps": given.draft_steps, "survivors": given.survivors}
        most = max(given.jobs, given.endurance)
        drawn = bench.jobs(most + given.prior, given.seed)
        jobs = drawn[:most]
        bench.measure(drawn[most:], given.stop_below)
        results = bench.contests(jobs[: given.jobs], given.rounds)
        show_ways(results)
        longer = jobs[: given.endurance]
        filled = {
            "occupancy": bench.occupancy(longer, "race"),
            "stop_occupancy": bench.occupancy(longer, "stop"),
        }
    figures = compared(results) | filled
    show("Contests", figures)
    if given.json:
        print(json.dumps(results | figures))


def show_ways(results: dict[str, dict[str, float]]) -> None:
    """A row for each way."""
    names = list(results["naive"])
    table = Table("way", *(name.replace("_", " ") for name in names))
    for way, figures in results.items():
        table.add_row(way, *(f"{figures[name]:.3f}" for name in names))
    Console().print(table)


def compared(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """The ratios between the ways."""
    naive, batched, best_of, race, above, first_above, stop, draft = (
        results[name] for name in ("naive", "batched", *ENGINE)
    )
    return {
        "engine_vs_naive": best_of["kept_per_s"] / naive["kept_per_s"],
        "engine_vs_batched": best_of["kept_per_s"] / batched["kept_per_s"],
        "race_vs_batched": race["kept_per_s"] / batched["kept_per_s"],
        "race_score_ratio": race["score"] / best_of["score"],
        "first_above_vs_batched": above["kept_per_s"] / batched["kept_per_s"],
        "pass_rate_difference": above["pass_rate"] - batched["pass_rate"],
        "stop_vs_first_above": ratio(stop["right_per_s"], first_above["right_per_s"]),
        "stop_accepted": ratio(stop["pass_rate"], first_above["pass_rate"]),
        "draft_vs_best_of": ratio(draft["right_per_s"], best_of["right_per_s"]),
        "draft_vs_race": ratio(draft["right_per_s"], race["right_per_s"]),
        "draft_score_ratio": draft["score"] / best_of["score"],
        "right_vs_naive": ratio(stop["right_per_s"], naive["right_per_s"]),
    }


def ratio(a: float, b: float) -> float:
    """A ratio; 0 where nothing is compared with."""
    return a / b if b else 0.0


@dataclass
class Held:
    """The contests of some jobs by one way."""

    seconds: float = 0.0
    samples: int = 0
    winners: list[tuple[ImageArray, Score]] = field(default_factory=list)


class Bench:
    """The example's models, wired as in a worker, with the denoiser's input rows counted."""

    def __init__(self, workdir: Path, overrides: Overrides, judges: str) -> None:
        profile = workdir / "profile.toml"
        profile.write_text(GATES[judges] + RENDERER)
        self._settings = Settings(
            profile=str(profile), home=workdir / "home", store=str(workdir / "out")
        )
        self._overrides = overrides
        self._umpire = umpire.load(EXAMPLE / "models" / "umpire")
        self._samples = 0
        self.rules = {mode: dict(rule) for mode, rule in ENGINE.items()}

    def jobs(self, count: int, seed: int) -> Sequence[Job]:
        """Jobs in this number; the models are loaded then."""
        rng = np.random.default_rng(seed)
        prompts = dict[str, None]()
        while len(prompts) < count:
            prompts[world.prompt(world.sample_scene(rng, two=0.5))] = None
        assembly, self._ports, jobs = wired(self._settings, [*prompts], self._overrides)
        renderer = self._settings.chosen_profile.renderer
        assert renderer.kind == "diffusers"
        self._renderers, self._section = assembly.renderers, renderer
        self._pipe = assembly.models.diffusion(renderer)
        self._pipe.unet.register_forward_pre_hook(self._count)
        return jobs

    def measure(self, jobs: Sequence[Job], stop_below: float) -> None:
        """Fit the prior of `stop` to these jobs' candidates."""
        contests = self._engine(jobs, "best_of")
        scores = [[each.score for each in held if each.score] for held in contests]
        prior = fit(list(zip(jobs, scores, strict=True)))
        self.rules["stop"] |= {"prior": prior, "stop_below": stop_below}

    def contests(self, jobs: Sequence[Job], rounds: int) -> dict[str, dict[str, float]]:
        """The figures of each way over these jobs."""
        ways: dict[str, Callable[[Sequence[Job]], list[Candidates]]] = {
            "naive": partial(self._diffusers, batch=1),
            "batched": partial(self._diffusers, batch=jobs[0].candidates),
            **{mode: partial(self._engine, mode=mode) for mode in ENGINE},
        }
        held = {name: Held() for name in ways}
        for way in ways.values():
            way(jobs[:1])
        for _ in range(rounds):
            for name, way in track(ways.items(), "contests", console=Console(stderr=True)):
                self._hold(held[name], way, jobs)
        return {name: self._figures(one, jobs) for name, one in held.items()}

    def occupancy(self, jobs: Sequence[Job], mode: ContestMode) -> float:
        """The filled part of the batch while these jobs' contests run."""
        with self._renderers.lent(self._section) as renderer:
            assert isinstance(renderer, EngineRenderer)
        jobs = [job.model_copy(update={"contest": mode} | self.rules[mode]) for job in jobs]
        before = copy(renderer.engine.stats)
        in_work = 2 * self._section.batch if mode == "stop" else self._settings.concurrency
        with ThreadPoolExecutor(in_work) as pool:
            ended = as_completed([pool.submit(self._contest, job) for job in jobs])
            most = round((1 - LAST) * len(jobs))
            for _ in track(islice(ended, most), mode, most, console=Console(stderr=True)):
                pass
            after = copy(renderer.engine.stats)
        return (after.used - before.used) / (after.places - before.places)

    def _hold(
        self, held: Held, way: Callable[[Sequence[Job]], list[Candidates]], jobs: Sequence[Job]
    ) -> None:
        begun, before = perf_counter(), self._samples
        contests = way(jobs)
        held.seconds += perf_counter() - begun
        held.samples += self._samples - before
        held.winners += [best(candidates) for candidates in contests]

    def _figures(self, held: Held, jobs: Sequence[Job]) -> dict[str, float]:
        asked = [jobs[place % len(jobs)] for place in range(len(held.winners))]
        scores = [score for _, score in held.winners]
        images = np.stack([image for image, _ in held.winners])
        seen = self._umpire.read((images * 255).round().astype(np.uint8))
        rights = [umpire.confirms(s, job.keywords) for s, job in zip(seen, asked, strict=True)]
        return {
            "kept_per_s": len(held.winners) / held.seconds,
            "samples_per_kept": held.samples / len(held.winners),
            "score": fmean(score.calibrated for score in scores),
            "pass_rate": fmean(
                contest.passes(job, score) for job, score in zip(asked, scores, strict=True)
            ),
            "right": fmean(rights),
            "right_per_s": sum(
                contest.passes(job, score) and right
                for job, score, right in zip(asked, scores, rights, strict=True)
            )
            / held.seconds,
        }

    def _engine(self, jobs: Sequence[Job], mode: ContestMode) -> list[Candidates]:
        jobs = [job.model_copy(update={"contest": mode} | self.rules[mode]) for job in jobs]
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            return list(pool.map(self._contest, jobs))

    def _contest(self, job: Job) -> Candidates:
        return hold_contest(job, Context(), _brief(job), self._ports)

    def _diffusers(self, jobs: Sequence[Job], batch: int) -> list[Candidates]:
        return [self._plain(job, batch) for job in jobs]

    def _plain(self, job: Job, batch: int) -> Candidates:
        """The job's candidates, so many in a call, and then judged."""
        seeds = [job.candidate_seed(index) for index in range(job.candidates)]
        request = render_request(job, Context(), _brief(job), self._ports.inputs, tuple(seeds))
        arguments = call_arguments(self._pipe, [request])
        images: list[Any] = []
        for first in range(0, len(seeds), batch):
            generators = [torch.Generator().manual_seed(s) for s in seeds[first : first + batch]]
            made = self._pipe(
                num_images_per_prompt=len(generators), generator=generators, **arguments
            )
            images.extend(made.images)
        scores = scoring_of(job, Context(), _brief(job), self._ports)(images)
        return [
            Candidate(index, seed, image, score)
            for index, (seed, image, score) in enumerate(zip(seeds, images, scores, strict=True))
        ]

    def _count(self, _: object, inputs: tuple[Any, ...]) -> None:
        self._samples += len(inputs[0])


def best(candidates: Candidates) -> tuple[ImageArray, Score]:
    """The contest's winner. Raises ValueError where no candidate was rendered to its end."""
    winner = contest.winner([candidate.score for candidate in candidates])
    if winner is None:
        raise ValueError("no candidate was rendered to its end")
    image, score = candidates[winner].image, candidates[winner].score
    assert image is not None
    assert score is not None
    return image, score


def _brief(job: Job) -> Brief:
    return Brief(text=job.keywords, prompt=job.keywords)


if __name__ == "__main__":
    main()
