"""Fit the chance that an image shows all that is said, from the judge's cosine.

    python -m examples.shapes.training.judge.calibration --models DIR

Logistic regression with one slope and one offset on drawn and generated images, each with its
prompt, with one that is wrong in one attribute, and with one that says less; the umpire says
whether a generated image shows it. Right and wrong pairs weigh the same. The threshold is the
highest chance that nineteen of twenty right generated images reach with their own prompts.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from examples.shapes import world
from examples.shapes.measure.judge import Judge, Scores, Trial, drawn, trials
from examples.shapes.training import common
from examples.shapes.training.judge import data as judge_data

ACCEPTED = 0.95


def pairs(judge: Judge, trial: Trial, rng: np.random.Generator) -> tuple[Scores, np.ndarray]:
    """Cosines of a trial's images with three kinds of sentences, and which of these are true."""
    full = [world.prompt(scene) for scene in trial.scenes]
    wrong = [world.prompt(scene) for scene in trial.wrong]
    less = [judge_data.sentence(scene, rng, full=0) for scene in trial.scenes]
    cosines = [judge.cosines(trial.images, texts) for texts in (full, wrong, less)]
    truths = [trial.shown, np.zeros(len(full), bool), trial.shown]
    kept = [np.ones(len(full), bool), trial.shown, trial.shown]
    at = np.concatenate(kept)
    return np.concatenate(cosines)[at], np.concatenate(truths)[at]


def fit(cosines: Scores, truths: np.ndarray, rounds: int = 50) -> tuple[float, float]:
    """Slope and offset of the most likely logistic curve, by Newton's method.

    Right and wrong weigh the same in sum.
    """
    weights = np.where(truths, 0.5 / truths.sum(), 0.5 / (~truths).sum())
    inputs = np.stack([cosines, np.ones_like(cosines)], 1)
    found = np.zeros(2)
    for _ in range(rounds):
        chance = 1 / (1 + np.exp(-inputs @ found))
        slope = inputs.T @ (weights * (truths - chance)) - 1e-6 * found
        bend = (inputs * (weights * chance * (1 - chance))[:, None]).T @ inputs + 1e-6 * np.eye(2)
        found += np.linalg.solve(bend, slope)
    return float(found[0]), float(found[1])


def threshold(cosines: Scores, slope: float, offset: float) -> float:
    """The chance that `ACCEPTED` of these cosines reach."""
    level = float(np.quantile(cosines, 1 - ACCEPTED))
    return round(1 / (1 + float(np.exp(-slope * level - offset))), 3)


def calibrate(models: Path, count: int, seed: int) -> dict[str, float]:
    """Slope, offset and recommended threshold of the judge in models/open_clip."""
    judge, rng = Judge(models / "open_clip"), common.seeded(seed)
    made = trials(models, count, seed)
    known = [pairs(judge, trial, rng) for trial in (*made.values(), drawn(count, rng))]
    slope, offset = fit(*(np.concatenate(parts) for parts in zip(*known, strict=True)))
    right = [t.of(t.shown) for t in made.values()]
    own = [judge.cosines(t.images, [world.prompt(s) for s in t.scenes]) for t in right]
    level = threshold(np.concatenate(own), slope, offset)
    return {"slope": round(slope, 4), "offset": round(offset, 4), "threshold": level}


def main() -> None:
    """Write calibration.json into the judge's folder and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--count", type=int, default=240, help="pictures per denoiser")
    parser.add_argument("--seed", type=int, default=66_000)
    given = parser.parse_args()
    found = calibrate(given.models, given.count, given.seed)
    path = given.models / "open_clip" / "calibration.json"
    path.write_text(json.dumps(found) + "\n")
    common.report(**found)


if __name__ == "__main__":
    main()
