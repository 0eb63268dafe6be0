"""The worth of rounds where the first prompt is wrong: what ends right with and without them.

Each row says a scene of two things, of held-out seeds. Its first prompt says another one, as a
faulty template's would: in every other row the two things have exchanged their colours, or where
they have the same one some attribute is another (`swapped`); in the others one thing is left out
(`missing`). The example's draft renderer renders it. CLIP compares the images with the keywords,
and the model that sees answers a check for each thing, for their places and for the background.
Where no image passes some check, the example's own writer gets the prompt and the failed checks,
and writes another one. Three ways, with the same seeds:

- `repaired`: up to three rounds of `--candidates` images each, until one passes;
- `plain`: one round with the first prompt, and row by row as many images as `repaired` rendered;
- `unspoiled`: the same, with the prompt that says the keywords.

The figure of each is the share of the rows whose kept image shows all that the keywords say, by the
umpire; `…_swapped` and `…_missing` are those of one fault. `…_accepted` is the share that reaches
the threshold, and `…_precision` the right part of these. `rewritten` is the share of the rows with
another prompt, `faithful` the part of their last prompts that say the keywords, and `images` the
mean number of images of a row.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.common import EXAMPLE, arguments, show, wired
from examples.shapes import umpire, world
from pipeline.job import Brief, Check, Context, ImageArray, Job, Rejected
from pipeline.jobfile.reader import Overrides
from pipeline.ports import Writer
from pipeline.record import Outcome, Status
from pipeline.run import run_job
from pipeline.settings import Settings

PROFILE = """
extends = "shapes-draft"
[renderer]
image_adapter = ""
[[judge]]
kind = "clip"
model = "open_clip"
against = "keywords"
[[judge]]
kind = "questions"
model = "sees"
batch = 64
"""
ROUNDS = 3
FAULTS = ("swapped", "missing")


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--candidates", type=int, default=4, help="images of a round")
    parser.add_argument("--threshold", type=float, default=0.5, help="what a score has to reach")
    parser.add_argument("--seed", type=int, default=420_000, help="no training used it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = Overrides(
            candidates=given.candidates, threshold=given.threshold, retrieval=False
        )
        figures = Bench(Path(folder), overrides, given.jobs, given.seed).measure()
    show("Repair", figures)
    if given.json:
        print(json.dumps(figures))


def spoiled(scene: world.Scene, fault: str, rng: np.random.Generator) -> world.Scene:
    """Another scene than one of two things, by a fault."""
    one, two = scene.things
    if fault == "missing":
        return world.Scene((one if rng.random() < 0.5 else two,), scene.background)
    if one.colour == two.colour:
        return world.one_wrong(scene, rng)
    turned = (replace(one, colour=two.colour), replace(two, colour=one.colour))
    return replace(scene, things=turned)


def checks_of(scene: world.Scene) -> tuple[Check, ...]:
    """A check for each thing of a scene of two, for their places and for the background."""
    said = world.ALL - {"background"}
    texts = [world.prompt(world.Scene((thing,), scene.background), said) for thing in scene.things]
    texts += [world.prompt(scene, said), f"a {scene.background} background"]
    kinds = ("object", "object", "relation", "attribute")
    return tuple(
        Check(kind=kind, question=f'Does this image show "{text}"?')
        for kind, text in zip(kinds, texts, strict=True)
    )


@dataclass(frozen=True)
class FirstPrompts:
    """A Writer with given first briefs, by keywords; in place of a rejected prompt it has the
    `writer` write one.
    """

    writer: Writer
    briefs: Mapping[str, Brief]

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        """The given brief, or the writer's."""
        return self.writer.write(job, context, rejected) if rejected else self.briefs[job.keywords]


@dataclass(frozen=True)
class Kept:
    """Records that keep outcomes and images in memory, by keywords."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    images: dict[str, ImageArray] = field(default_factory=dict)

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        """Keep both. Raises ValueError for a job that failed."""
        if image is None:
            raise ValueError(f"{outcome.keywords}: {outcome.status}, {outcome.reason}")
        self.images[outcome.keywords] = image
        return self.outcomes.setdefault(outcome.keywords, outcome)


class Bench:
    """The rows with their briefs, and a worker's ports but for the first prompts."""

    def __init__(self, workdir: Path, overrides: Overrides, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        scenes = dict[str, world.Scene]()
        while len(scenes) < count:
            scene = world.sample_scene(rng, two=1)
            scenes[world.prompt(scene)] = scene
        self._briefs = {
            text: Brief(text=text, prompt=text, checks=checks_of(scene))
            for text, scene in scenes.items()
        }
        self._faults = {text: FAULTS[place % 2] for place, text in enumerate(scenes)}
        self._spoiled = {
            text: brief.model_copy(
                update={"prompt": world.prompt(spoiled(scenes[text], self._faults[text], rng))}
            )
            for text, brief in self._briefs.items()
        }
        profile = workdir / "profile.toml"
        profile.write_text(PROFILE)
        self._settings = Settings(
            profile=str(profile), home=workdir / "home", store=str(workdir / "out")
        )
        _, self._ports, self._jobs = wired(self._settings, [*scenes], overrides)
        self._umpire = umpire.load(EXAMPLE / "models" / "umpire")

    def measure(self) -> dict[str, float]:
        """The figures of the three ways."""
        repaired = self._held("repaired", self._spoiled, rounds=ROUNDS)
        rendered = {text: len(each.candidates) for text, each in repaired.outcomes.items()}
        plain = self._held("plain", self._spoiled, rendered)
        unspoiled = self._held("unspoiled", self._briefs, rendered)
        last = {
            text: found[-1].prompt
            for text, outcome in repaired.outcomes.items()
            if (found := [each.brief for each in outcome.refinements if each.brief])
        }
        faithful = [world.parse(prompt) == world.parse(text) for text, prompt in last.items()]
        return {
            **self._shares("repaired", repaired),
            **self._shares("plain", plain),
            **self._shares("unspoiled", unspoiled),
            "rewritten": len(last) / len(rendered),
            "faithful": fmean(faithful) if faithful else 0.0,
            "images": fmean(rendered.values()),
            "jobs": float(len(rendered)),
        }

    def _held(
        self,
        way: str,
        briefs: Mapping[str, Brief],
        candidates: Mapping[str, int] | None = None,
        rounds: int = 1,
    ) -> Kept:
        """The outcomes of all jobs with these first briefs, and with so many candidates in place of
        their own.
        """
        kept = Kept()
        ports = replace(self._ports, writer=FirstPrompts(self._ports.writer, briefs), records=kept)
        jobs = [
            job.model_copy(
                update={
                    "rounds": rounds,
                    "candidates": (candidates or {}).get(job.keywords, job.candidates),
                }
            )
            for job in self._jobs
        ]
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            ended = pool.map(lambda job: run_job(job, ports), jobs)
            list(track(ended, way, len(jobs), console=Console(stderr=True)))
        return kept

    def _shares(self, way: str, kept: Kept) -> dict[str, float]:
        """The shares of one way."""
        texts = [*kept.images]
        images = np.stack([kept.images[text] for text in texts])
        seen = self._umpire.read((images * 255).round().astype(np.uint8))
        right = {text: umpire.confirms(s, text) for text, s in zip(texts, seen, strict=True)}
        accepted = [t for t in texts if kept.outcomes[t].status is Status.ACCEPTED]
        of_fault = {
            f"{way}_{fault}": _share([right[t] for t in texts if self._faults[t] == fault])
            for fault in FAULTS
        }
        return {
            way: _share([*right.values()]),
            **of_fault,
            f"{way}_accepted": len(accepted) / len(texts),
            f"{way}_precision": _share([right[text] for text in accepted]),
        }


def _share(rights: Sequence[bool]) -> float:
    """The right part; 0 of none."""
    return fmean(rights) if rights else 0.0


if __name__ == "__main__":
    main()
