"""The judge's accuracy at telling an image that shows its prompt from one that does not.

Protocol, on held-out seeds. Every figure is an area under the ROC curve pooled over images, apart
for scenes of one and of two objects; prompts are canonical and say everything.
- `drawn_*`: drawn images; the cosine with the true prompt against that with a prompt that has one
  attribute wrong.
- `final_*`, `draft_*`: images that the renderer (with its final or its draft denoiser) made of
  fresh prompts, 20 steps, guidance 4. Where the umpire confirms the prompt: the cosine with it
  against that with a prompt that has one attribute wrong.
- `*_seen`: confirmed images against those that the umpire does not confirm, each with the prompt
  it was made for. This is what a gate has to tell apart.
- `accepted_right`, `accepted_wrong`: the shares of confirmed and of other generated images at or
  above the threshold in calibration.json.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from examples.shapes import umpire, world
from examples.shapes.measure.renderer import render
from examples.shapes.umpire import Images, to_pixels

Scores = np.ndarray[tuple[int], np.dtype[np.float64]]


class Judge:
    """An OpenCLIP folder, asked for cosines."""

    def __init__(self, folder: Path) -> None:
        self.model = open_clip.create_model(f"local-dir:{folder}").eval()
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    @torch.inference_mode()
    def embed(self, images: Images) -> torch.Tensor:
        """Embeddings of length 1, [n, 128]."""
        parts = to_pixels(images).split(128)
        return torch.cat([self.model.encode_image(part, normalize=True) for part in parts])

    @torch.inference_mode()
    def cosines(self, images: Images, prompts: Sequence[str]) -> Scores:
        """The cosine of each image with the prompt at its place."""
        parts = [list(prompts[i : i + 128]) for i in range(0, len(prompts), 128)]
        tokens = [self.tokenizer(part) for part in parts]
        text = torch.cat([self.model.encode_text(part, normalize=True) for part in tokens])
        return (self.embed(images) * text).sum(1).double().numpy()


@dataclass(frozen=True)
class Trial:
    """Images, the scene asked of each, whether it is shown, and a scene that is wrong by one."""

    images: Images
    scenes: list[world.Scene]
    shown: np.ndarray
    wrong: list[world.Scene]

    def of(self, chosen: np.ndarray) -> "Trial":
        """The ones where `chosen` is true."""
        at = np.flatnonzero(chosen)
        scenes, wrong = [self.scenes[i] for i in at], [self.wrong[i] for i in at]
        return Trial(self.images[at], scenes, self.shown[at], wrong)

    @property
    def pairs(self) -> np.ndarray:
        """True for each scene of two objects."""
        return np.array([len(scene.things) == 2 for scene in self.scenes])


def drawn(count: int, rng: np.random.Generator) -> Trial:
    """Drawn images, half of them of two objects."""
    scenes = [world.sample_scene(rng, two=0.5) for _ in range(count)]
    images = np.stack([world.draw(scene, rng) for scene in scenes])
    wrong = [world.one_wrong(scene, rng) for scene in scenes]
    return Trial(images, scenes, np.ones(count, bool), wrong)


def generated(pipe: StableDiffusionPipeline, reader: umpire.Umpire, count: int, seed: int) -> Trial:
    """Generated images, half of them of two objects, with the umpire's word on each."""
    rng = np.random.default_rng(seed)
    scenes = [world.sample_scene(rng, two=0.5) for _ in range(count)]
    prompts = [world.prompt(scene) for scene in scenes]
    images = render(pipe, prompts, seed)
    read = reader.read(images)
    shown = [umpire.confirms(r, text) for r, text in zip(read, prompts, strict=True)]
    return Trial(images, scenes, np.array(shown), [world.one_wrong(s, rng) for s in scenes])


def trials(models: Path, count: int, seed: int) -> dict[str, Trial]:
    """Generated images of the final and of the draft denoiser."""
    reader = umpire.load(models / "umpire")
    pipe = StableDiffusionPipeline.from_pretrained(models / "diffusion", use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    made = {"final": generated(pipe.to(dtype=torch.float32), reader, count, seed)}
    pipe.unet = UNet2DConditionModel.from_pretrained(models / "draft-unet", use_safetensors=True)
    return made | {"draft": generated(pipe.to(dtype=torch.float32), reader, count, seed + 1)}


def measure(models: Path, seed: int, count: int = 160) -> dict[str, float]:
    """The figures above; `count` generated images per denoiser and five times as many drawn."""
    judge = Judge(models / "open_clip")
    figures = one_wrong_areas(judge, drawn(5 * count, np.random.default_rng(seed)), "drawn")
    made = trials(models, count, seed)
    for name, trial in made.items():
        figures |= one_wrong_areas(judge, trial.of(trial.shown), name)
        figures |= seen_areas(judge, trial, name)
    return figures | gate_shares(judge, list(made.values()), models / "open_clip")


def one_wrong_areas(judge: Judge, trial: Trial, name: str) -> dict[str, float]:
    """The true prompt against one that is wrong in one attribute, on images that show it."""
    right = judge.cosines(trial.images, [world.prompt(s) for s in trial.scenes])
    wrong = judge.cosines(trial.images, [world.prompt(s) for s in trial.wrong])
    two = trial.pairs
    return {
        f"{name}_one": area(right[~two], wrong[~two]),
        f"{name}_two": area(right[two], wrong[two]),
    }


def seen_areas(judge: Judge, trial: Trial, name: str) -> dict[str, float]:
    """Images that show their prompt against those that do not."""
    cosines = judge.cosines(trial.images, [world.prompt(s) for s in trial.scenes])
    figures = {}
    for kind, chosen in (("one", ~trial.pairs), ("two", trial.pairs)):
        shown, other = cosines[chosen & trial.shown], cosines[chosen & ~trial.shown]
        figures[f"{name}_{kind}_seen"] = area(shown, other)
        figures[f"{name}_{kind}_failed"] = float(len(other))
    return figures


def gate_shares(judge: Judge, made: list[Trial], folder: Path) -> dict[str, float]:
    """Shares of right and of wrong images that pass a gate at the recommended threshold."""
    held = json.loads((folder / "calibration.json").read_text())
    level = (np.log(held["threshold"] / (1 - held["threshold"])) - held["offset"]) / held["slope"]
    passed = [judge.cosines(t.images, [world.prompt(s) for s in t.scenes]) >= level for t in made]
    accepted, shown = np.concatenate(passed), np.concatenate([t.shown for t in made])
    return {
        "accepted_right": float(accepted[shown].mean()),
        "accepted_wrong": float(accepted[~shown].mean()),
    }


def area(positive: Scores, negative: Scores) -> float:
    """Probability that a positive scores above a negative, ties half; nan where one is missing."""
    if not len(positive) or not len(negative):
        return float("nan")
    below = positive[:, None] > negative[None]
    return float((below + 0.5 * (positive[:, None] == negative[None])).mean())


def main() -> None:
    """`python -m examples.shapes.measure.judge MODELS [SEED]` prints the figures as JSON."""
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 77_000
    figures = measure(Path(sys.argv[1]), seed)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
