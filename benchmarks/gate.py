"""The gate's precision: are the images that a contest accepts right, by the umpire's word?

Contests of 8 candidates each by the example's draft renderer, on prompts of held-out seeds that say
everything, half of them of two objects. A panel of two judges scores them: CLIP, and the model that
sees, asked whether the image shows the prompt. A contest's winner is its best score; it is accepted
at a threshold.

- `precision`: the share of accepted winners that are right; `recall`: accepted right winners per
  contest that had a right candidate. The threshold is the lowest that reaches a precision of .95 on
  one half of the contests, the figures are those of the other half; both ways, then the mean.
- `clip_precision`: that of CLIP alone at the same recall, over all contests.
- `precision_at_80`, `clip_precision_at_80`: where the accepted right ones are .80 of the contests
  that had a right candidate.
- `label_free_gap`: the precision at the threshold that `pressrun calibrate gate` finds without
  labels, by contests against contrasts, less that at the labelled threshold; absolute. A gate that
  no threshold makes precise enough accepts none, a precision of 1.
- `final_precision`: the precision of the finished renderer's winners at the labelled threshold.

With several umpires, each trained apart, a candidate is right where all confirm it, and contests
whose winner some confirm and some do not are left out: `settled` is the share of the others.

Candidates are kept in `--cache`, so judging can be repeated without rendering.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
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
from pipeline.errors import RunError
from pipeline.job import ImageArray, JudgeRequest
from pipeline.judging.contrasts import contrasts
from pipeline.judging.gate import gate_by_contrasts
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
    parser.add_argument("--umpire", type=Path, nargs="+", default=[MODELS / "umpire"])
    given = parser.parse_args()
    count = given.final or max(1, given.contests // 5)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.umpire)
        draft = bench.contests(given.cache, "draft-unet", given.contests, given.seed)
        final = bench.contests(given.cache, "", count, given.seed + 1)
    figures = compared(draft, final)
    show("Gate", figures)
    if given.json:
        print(json.dumps(figures))


@dataclass(frozen=True)
class Winners:
    """Each contest's best score, whether it is right, and whether any candidate was.

    `wrong` is the best chance of a contest of contrasts, for winners of the better half, else NaN.
    """

    scores: Floats
    right: Flags
    possible: Flags
    wrong: Floats

    def at(self, chosen: Flags) -> "Winners":
        """Some of them."""
        return Winners(
            self.scores[chosen], self.right[chosen], self.possible[chosen], self.wrong[chosen]
        )


@dataclass(frozen=True)
class Contests:
    """[contests, CANDIDATES] each: the chances by judge, whether all umpires confirm, and whether
    they agree. `wrong` [contests] as of the panel's winners.
    """

    clip: Floats
    panel: Floats
    right: Flags
    settled: Flags
    wrong: Floats

    def winners(self, scores: Floats) -> Winners:
        """The settled winners by these scores."""
        best = np.arange(len(scores)), scores.argmax(1)
        winners = Winners(scores[best], self.right[best], self.right.max(1), self.wrong)
        return winners.at(self.settled[best])


class Bench:
    """The judges as a worker has them, and the umpires that judge them."""

    def __init__(self, workdir: Path, umpires: Sequence[Path]) -> None:
        path = workdir / "profile.toml"
        path.write_text(PROFILE)
        settings = Settings(profile=str(path), home=workdir / "home", store=str(workdir / "out"))
        profile, models = settings.chosen_profile, Assembly(settings).models
        self._clip, self._sees = profile.judge
        judges = [
            (each, resolve_name(JUDGES[each.kind].made_by)(models, each)) for each in profile.judge
        ]
        self._panel = Panel(judges, profile.panel)
        self._umpires = [umpire.load(folder) for folder in umpires]

    def contests(self, cache: Path, unet: str, count: int, seed: int) -> Contests:
        """The contests, rendered where the cache lacks them, and judged."""
        parts, winners = (
            list[tuple[Floats, Floats, Flags, Flags]](),
            list[tuple[ImageArray, JudgeRequest]](),
        )
        total = -(-count // TOGETHER)
        for images, prompts in track(
            candidates(cache, unet, count, seed), "contests", total, console=Console(stderr=True)
        ):
            for at in range(0, len(prompts), CANDIDATES):
                own, prompt = images[at : at + CANDIDATES], prompts[at]
                request = JudgeRequest(prompt=prompt, text=prompt, keywords=prompt)
                parts.append(self._judged(own, request))
                winners.append((own[parts[-1][1].argmax()].astype(np.float32) / 255, request))
        clip, panel, right, settled = (np.stack(part) for part in zip(*parts[:count], strict=True))
        return Contests(clip, panel, right, settled, self._wrong(winners[:count], panel.max(1)))

    def _wrong(self, winners: Sequence[tuple[ImageArray, JudgeRequest]], best: Floats) -> Floats:
        """Contests against contrasts, as `calibrate gate` holds them."""
        requests = [request for _, request in winners]
        against = {self._clip.against, self._sees.against}
        wrong = np.full(len(winners), np.nan)
        for at in np.flatnonzero(best >= np.median(best)).tolist():
            image, request = winners[at]
            others = [*requests[:at], *requests[at + 1 :]]
            drawn = contrasts(request, others, against, CANDIDATES, at)
            wrong[at] = max(
                self._panel.score([image], each.request)[0].calibrated for each in drawn
            )
        return wrong

    def _judged(
        self, images: umpire.Images, request: JudgeRequest
    ) -> tuple[Floats, Floats, Flags, Flags]:
        """One contest's row of each."""
        scores = self._panel.score(list(images.astype(np.float32) / 255), request)
        parts = [{part.judge: part.calibrated for part in score.parts} for score in scores]
        confirmed = np.array(
            [
                [umpire.confirms(read, request.prompt) for read in each.read(images)]
                for each in self._umpires
            ]
        )
        return (
            np.array([part[self._clip.name] for part in parts]),
            np.array([score.calibrated for score in scores]),
            confirmed.min(0),
            confirmed.min(0) == confirmed.max(0),
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
    winners, clip = draft.winners(draft.panel), draft.winners(draft.clip)
    even = np.arange(len(winners.scores)) % 2 == 0
    found, free = [], []
    halves = winners.at(even), winners.at(~even)
    for known, other in (halves, halves[::-1]):
        found.append(shares(other, labelled(known)))
        free.append(shares(other, label_free(known)))
    precision, recall = np.mean(found, 0)
    unlabelled, _ = np.mean(free, 0)
    level = labelled(winners)
    ends = shares(final.winners(final.panel), level)
    return {
        "precision": float(precision),
        "recall": float(recall),
        "clip_precision": at_recall(clip, float(recall)),
        "precision_at_80": at_recall(winners, 0.8),
        "clip_precision_at_80": at_recall(clip, 0.8),
        "label_free_gap": float(abs(unlabelled - precision)),
        "label_free_precision": float(unlabelled),
        "final_precision": ends[0],
        "final_recall": ends[1],
        "threshold": level,
        "winners_right": float(winners.right.mean()),
        "clip_winners_right": float(clip.right.mean()),
        "contests_with_a_right_candidate": float(winners.possible.mean()),
        "settled": len(winners.scores) / len(draft.right),
        "contests": float(len(draft.right)),
    }


def shares(winners: Winners, level: float) -> tuple[float, float]:
    """Precision and recall of accepting at the level; a precision of 1 where none is accepted."""
    accepted = winners.scores >= level
    hits, count = int((accepted & winners.right).sum()), int(accepted.sum())
    return hits / count if count else 1.0, hits / winners.possible.sum()


def labelled(winners: Winners) -> float:
    """The lowest threshold whose accepted are right to the wanted part; above all where none is."""
    scores = winners.scores
    order = np.argsort(-scores)
    precision = np.cumsum(winners.right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= WANTED)
    return float(scores[order[enough[-1]]]) if len(enough) else float(np.nextafter(scores.max(), 2))


def label_free(winners: Winners) -> float:
    """The threshold by contrasts; above all where none is precise enough."""
    wrong = winners.wrong[~np.isnan(winners.wrong)]
    try:
        return gate_by_contrasts(winners.scores, wrong, WANTED)[0].threshold
    except RunError:
        return float(np.nextafter(winners.scores.max(), 2))


def at_recall(winners: Winners, recall: float) -> float:
    """The precision at the highest threshold that reaches the recall, else at the lowest."""
    for level in np.unique(winners.scores)[::-1]:
        precision, reached = shares(winners, float(level))
        if reached >= recall:
            return precision
    return float(winners.right.mean())


if __name__ == "__main__":
    main()
