"""The gate's precision: are the images that a contest accepts right, by the umpire's word?

Contests of 8 candidates each by the example's draft renderer, on prompts of held-out seeds that say
everything, half of them of two objects. A panel of two judges scores them: CLIP, and the model that
sees, asked whether the image shows the prompt. A contest's winner is its best score; it is accepted
at a threshold.

- `precision`: the share of accepted winners that are right; `recall`: accepted right winners per
  contest that had a right candidate. The threshold is the lowest that reaches a precision of .95 on
  one half of the contests, the figures are those of the other half; both ways, then the mean.
- `clip_precision`: that of CLIP alone at the same recall, over all contests.
- `label_free_gap`: the precision at a threshold found without labels, where the mean chance of the
  accepted is .95, less that at the labelled threshold; absolute.
- `final_precision`: the precision of the finished renderer's winners at the labelled threshold.

Candidates are kept in `--cache`, so judging can be repeated without rendering.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.common import EXAMPLE, arguments, show
from examples.shapes import umpire, world
from examples.shapes.measure.renderer import render
from pipeline.assemble.assembly import Assembly
from pipeline.job import JudgeRequest
from pipeline.judging.panel import Panel
from pipeline.profile import JUDGES
from pipeline.settings import Settings

MODELS = EXAMPLE / "models"
CANDIDATES, TOGETHER = 8, 20
WANTED = 0.95
PROFILE = """
extends = "shapes-draft"
[[judge]]
kind = "clip"
model = "open_clip"
[[judge]]
kind = "questions"
model = "sees"
batch = 64
"""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--contests", type=int, default=1000)
    parser.add_argument(
        "--final", type=int, help="contests of the finished renderer; default: a fifth"
    )
    parser.add_argument("--cache", type=Path, default=Path(".build/gate"))
    parser.add_argument("--seed", type=int, default=310_000, help="no training used it")
    given = parser.parse_args()
    count = given.final or max(1, given.contests // 5)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        draft = bench.contests(given.cache, "draft-unet", given.contests, given.seed)
        final = bench.contests(given.cache, "", count, given.seed + 1)
    figures = compared(draft, final)
    show("Gate", figures)
    if given.json:
        print(json.dumps(figures))


@dataclass(frozen=True)
class Contests:
    """[contests, CANDIDATES] each: the chances by judge, and whether the umpire confirms."""

    clip: Floats
    panel: Floats
    right: Flags

    def winners(self, scores: Floats) -> tuple[Floats, Flags]:
        """Score and rightness of each contest's best."""
        best = scores.argmax(1)[:, None]
        return (
            np.take_along_axis(scores, best, 1)[:, 0],
            np.take_along_axis(self.right, best, 1)[:, 0],
        )


class Bench:
    """The judges as a worker has them, and the umpire that judges them."""

    def __init__(self, workdir: Path) -> None:
        path = workdir / "profile.toml"
        path.write_text(PROFILE)
        settings = Settings(profile=str(path), home=workdir / "home", store=str(workdir / "out"))
        profile, models = settings.chosen_profile, Assembly(settings).models
        self._clip, self._sees = profile.judge
        judges = [
            (each, resolve_name(JUDGES[each.kind].made_by)(models, each)) for each in profile.judge
        ]
        self._panel = Panel(judges, profile.panel)
        self._umpire = umpire.load(MODELS / "umpire")

    def contests(self, cache: Path, unet: str, count: int, seed: int) -> Contests:
        """The contests, rendered where the cache lacks them, and judged."""
        parts = list[tuple[Floats, Floats, Flags]]()
        total = -(-count // TOGETHER)
        for images, prompts in track(
            candidates(cache, unet, count, seed), "contests", total, console=Console(stderr=True)
        ):
            parts += [
                self._judged(images[at : at + CANDIDATES], prompts[at])
                for at in range(0, len(prompts), CANDIDATES)
            ]
        clip, panel, right = (np.stack(part) for part in zip(*parts[:count], strict=True))
        return Contests(clip, panel, right)

    def _judged(self, images: umpire.Images, prompt: str) -> tuple[Floats, Floats, Flags]:
        """One contest's row of each."""
        request = JudgeRequest(prompt=prompt, text=prompt, keywords=prompt)
        scores = self._panel.score(list(images.astype(np.float32) / 255), request)
        parts = [{part.judge: part.calibrated for part in score.parts} for score in scores]
        right = [umpire.confirms(read, prompt) for read in self._umpire.read(images)]
        return (
            np.array([part[self._clip.name] for part in parts]),
            np.array([score.calibrated for score in scores]),
            np.array(right),
        )


def candidates(
    cache: Path, unet: str, count: int, seed: int
) -> Iterator[tuple[umpire.Images, list[str]]]:
    """Images and prompts of so many contests, some at a time; a contest's stand together."""
    folder = cache / f"{unet or 'final'}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    rng, pipe = np.random.default_rng(seed), None
    for part in range(-(-count // TOGETHER)):
        scenes = [world.sample_scene(rng, two=i % 2) for i in range(TOGETHER)]
        prompts = [world.prompt(scene) for scene in scenes for _ in range(CANDIDATES)]
        file = folder / f"{part:05}.npy"
        if not file.exists():
            pipe = pipe or _pipeline(unet)
            fresh = file.with_suffix(".new")
            with fresh.open("wb") as held:
                np.save(held, render(pipe, prompts, seed + part), allow_pickle=False)
            fresh.replace(file)
        yield np.load(file, allow_pickle=False), prompts


def _pipeline(unet: str) -> Any:
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    pipe = StableDiffusionPipeline.from_pretrained(MODELS / "diffusion", use_safetensors=True)
    if unet:
        pipe.unet = UNet2DConditionModel.from_pretrained(MODELS / unet, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(dtype=torch.float32)


def compared(draft: Contests, final: Contests) -> dict[str, float]:
    """The figures above, and how many contests were right without a gate."""
    scores, right = draft.winners(draft.panel)
    possible = draft.right.max(1)
    even = np.arange(len(scores)) % 2 == 0
    found, free = [], []
    for known in (even, ~even):
        level = labelled(scores[known], right[known])
        found.append(shares(scores[~known], right[~known], possible[~known], level))
        level = label_free(scores[known])
        free.append(shares(scores[~known], right[~known], possible[~known], level))
    precision, recall = np.mean(found, 0)
    unlabelled, _ = np.mean(free, 0)
    level = labelled(scores, right)
    ends = shares(*final.winners(final.panel), final.right.max(1), level)
    clip = draft.winners(draft.clip)
    return {
        "precision": float(precision),
        "recall": float(recall),
        "clip_precision": at_recall(*clip, possible, float(recall)),
        "label_free_gap": float(abs(unlabelled - precision)),
        "label_free_precision": float(unlabelled),
        "final_precision": ends[0],
        "final_recall": ends[1],
        "threshold": level,
        "winners_right": float(right.mean()),
        "clip_winners_right": float(clip[1].mean()),
        "contests_with_a_right_candidate": float(possible.mean()),
        "contests": float(len(scores)),
    }


def shares(scores: Floats, right: Flags, possible: Flags, level: float) -> tuple[float, float]:
    """Precision and recall of accepting at the level; a precision of 1 where none is accepted."""
    accepted = scores >= level
    hits = int((accepted & right).sum())
    return hits / max(1, int(accepted.sum())) if accepted.any() else 1.0, hits / possible.sum()


def labelled(scores: Floats, right: Flags) -> float:
    """The lowest threshold whose accepted are right to the wanted part; above all where none is."""
    order = np.argsort(-scores)
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= WANTED)
    return float(scores[order[enough[-1]]]) if len(enough) else float(np.nextafter(scores.max(), 2))


def label_free(scores: Floats) -> float:
    """The lowest threshold whose accepted have the wanted mean chance: no label is needed."""
    order = np.sort(scores)[::-1]
    means = np.cumsum(order) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(means >= WANTED)
    return float(order[enough[-1]]) if len(enough) else float(np.nextafter(order[0], 2))


def at_recall(scores: Floats, right: Flags, possible: Flags, recall: float) -> float:
    """The precision at the highest threshold that reaches the recall, else at the lowest."""
    for level in np.unique(scores)[::-1]:
        precision, reached = shares(scores, right, possible, float(level))
        if reached >= recall:
            return precision
    return float(right.mean())


if __name__ == "__main__":
    main()
