"""The share of images that show what a fresh prompt says, as the umpire reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from examples.shapes import umpire, world

STEPS, GUIDANCE, BATCH = 20, 2.5, 32


def measure(models: Path, seed: int, prompts: int = 64, seeds: int = 8) -> dict[str, float]:
    """Shares of images that are right, for the final denoiser and for the draft.

    Per denoiser `prompts` × `seeds` images of one object fully said, a quarter as many of one
    object partly said, half as many of two objects. An image with an unclear shape is wrong.
    """
    judge = umpire.load(models / "umpire")
    pipe = StableDiffusionPipeline.from_pretrained(models / "diffusion", use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    figures = rights(pipe, judge, seed, prompts, seeds)
    pipe.unet = UNet2DConditionModel.from_pretrained(models / "draft-unet", use_safetensors=True)
    draft = rights(pipe, judge, seed, prompts, seeds)
    return figures | {f"draft_{name}": share for name, share in draft.items()}


def rights(
    pipe: StableDiffusionPipeline, judge: umpire.Umpire, seed: int, prompts: int, seeds: int
) -> dict[str, float]:
    """The shares for one denoiser."""
    rng = np.random.default_rng(seed)
    one = [world.sample_scene(rng, two=0) for _ in range(prompts)]
    part = [world.sample_scene(rng, two=0) for _ in range(prompts // 4)]
    two = [world.sample_scene(rng, two=1) for _ in range(prompts // 2)]
    said_one = [world.prompt(scene) for scene in one]
    said_part = [world.prompt(scene, _some(rng)) for scene in part]
    said_two = [world.prompt(scene) for scene in two]
    read_one = readings(pipe, judge, said_one, seeds, seed)
    read_part = readings(pipe, judge, said_part, seeds, seed)
    read_two = readings(pipe, judge, said_two, seeds, seed)
    return {
        "one_shape_and_colour": _share(read_one, [_things(text) for text in said_one]),
        "one_everything": _share(read_one, [world.parse(text) for text in said_one]),
        "one_partly_said": _share(read_part, [world.parse(text) for text in said_part]),
        "two_things": _share(read_two, [_things(text) for text in said_two]),
        "two_everything": _share(read_two, [world.parse(text) for text in said_two]),
    }


def readings(
    pipe: StableDiffusionPipeline, judge: umpire.Umpire, prompts: list[str], seeds: int, seed: int
) -> list[list[world.Scene]]:
    """The umpire's readings of `seeds` images of each prompt."""
    asked = [text for text in prompts for _ in range(seeds)]
    seen = judge.read(render(pipe, asked, seed))
    return [seen[i : i + seeds] for i in range(0, len(seen), seeds)]


def render(pipe: StableDiffusionPipeline, prompts: list[str], seed: int) -> umpire.Images:
    """One image per prompt, uint8 [n, 64, 64, 3], seeded by its place."""
    parts = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        places = range(start, start + len(batch))
        images = pipe(
            batch,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(1_000_003 * seed + i) for i in places],
            height=world.PIXELS,
            width=world.PIXELS,
            output_type="np",
        ).images
        parts.append((images * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def _some(rng: np.random.Generator) -> frozenset[str]:
    return frozenset(name for name in sorted(world.ALL) if rng.random() < 0.5)


def _things(prompt: str) -> dict[str, Any]:
    """Shapes and colours only; of two, in their order."""
    said = world.parse(prompt)
    things = [{k: t[k] for k in ("shape", "colour")} for t in said["things"]]
    return {k: v for k, v in said.items() if k == "arrangement"} | {"things": things}


def _share(readings: list[list[world.Scene]], said: list[dict[str, Any]]) -> float:
    pairs = zip(readings, said, strict=True)
    return float(np.mean([world.agrees(what, scene) for seen, what in pairs for scene in seen]))
