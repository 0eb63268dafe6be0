"""A judge's accuracy at telling from previews who will win a race.

    python -m examples.shapes.measure.race MODELS [JUDGE ...] [--finals JUDGE] [--seed SEED]

Protocol, on held-out seeds: the draft denoiser makes 8 images of each of 64 prompts that say
everything, half of them of two objects, 20 steps, guidance 2.5. Each JUDGE, by default that in
MODELS, sees the estimates of the finished images at each tenth of the steps; one judge, by
default that in MODELS, sees the finished ones and gives their calibrated scores. Per judge and
part of the steps:
- `spearman`: the rank correlation of previews and ends, the mean over prompts;
- `regret_half`, `regret_quarter`: the part of the best candidate's score that is missed where 4, or
  2, of the 8 go on from there.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples.shapes import world
from examples.shapes.measure.judge import Judge, Scores
from examples.shapes.measure.renderer import GUIDANCE, STEPS
from examples.shapes.training import common, painter
from examples.shapes.umpire import Images
from pipeline.job import Rung, Score
from pipeline.judging.logistic import Calibration
from pipeline.judging.racing import TENTHS, Finished, agreement, trial

CANDIDATES, TOGETHER = 8, 4


@dataclass(frozen=True)
class Shown:
    """The prompt, the previews by the part of the steps, and the end of each candidate; candidates
    of a prompt stand together.
    """

    prompts: list[str]
    previews: dict[float, Images]
    finals: Images


def shown(models: Path, count: int, seed: int) -> Shown:
    """All candidates of `count` prompts."""
    rng = common.seeded(seed)
    scenes = [world.sample_scene(rng, two=i % 2) for i in range(count)]
    prompts = [world.prompt(scene) for scene in scenes for _ in range(CANDIDATES)]
    maker = painter.load(models / "diffusion", models / "draft-unet", STEPS)
    looks: list[list[Images]] = []
    for start in range(0, len(prompts), TOGETHER * CANDIDATES):
        batch = prompts[start : start + TOGETHER * CANDIDATES]
        estimates = list(maker.denoise(maker.noise(len(batch)), maker.states(batch), GUIDANCE))
        steps = [round(part * STEPS) for part in (*TENTHS, 1)]
        looks.append([maker.decoded(estimates[step - 1]) for step in steps])
    *previews, finals = (np.concatenate(parts) for parts in zip(*looks, strict=True))
    return Shown(prompts, dict(zip(TENTHS, previews, strict=True)), finals)


def contests(found: Shown, early: Judge, late: Judge, chance: Calibration) -> list[Finished]:
    """A contest per prompt: previews as `early` sees them, finished images as `late` does."""
    previews = {
        part: _grouped(early.cosines(images, found.prompts), chance)
        for part, images in found.previews.items()
    }
    finals = _grouped(late.cosines(found.finals, found.prompts), chance)
    return [
        Finished({part: groups[i] for part, groups in previews.items()}, ends)
        for i, ends in enumerate(finals)
    ]


def _grouped(cosines: Scores, chance: Calibration) -> list[list[Score]]:
    scores = [Score(raw=c, calibrated=chance.chance(c)) for c in cosines.tolist()]
    return [scores[i : i + CANDIDATES] for i in range(0, len(scores), CANDIDATES)]


def figures(held: Sequence[Finished]) -> dict[str, dict[str, float]]:
    """The three figures by the part of the steps."""
    return {
        str(part): {
            "spearman": round(agreement(part, held), 3),
            "regret_half": round(trial([Rung(at=part, keep=0.5)], held).regret, 4),
            "regret_quarter": round(trial([Rung(at=part, keep=0.25)], held).regret, 4),
        }
        for part in TENTHS
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("judges", type=Path, nargs="*")
    parser.add_argument("--finals", type=Path, help="the judge of the finished pictures")
    parser.add_argument("--count", type=int, default=64, help="prompts")
    parser.add_argument("--seed", type=int, default=91_000)
    given = parser.parse_args()
    own = given.models / "open_clip"
    finals = given.finals or own
    held = json.loads((finals / "calibration.json").read_text())
    late, chance = Judge(finals), Calibration(held["slope"], held["offset"])
    found = shown(given.models, given.count, given.seed)
    told = {
        str(folder): figures(contests(found, Judge(folder), late, chance))
        for folder in given.judges or [own]
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
