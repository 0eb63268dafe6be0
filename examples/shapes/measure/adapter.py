"""The share of images that take a reference image's colour while the prompt keeps the shape.

Prompts say everything but the colour; the reference shows another shape in some colour, elsewhere,
on the same background. The umpire reads the results.
"""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from examples.shapes import umpire, world
from examples.shapes.measure.judge import Judge
from examples.shapes.measure.renderer import GUIDANCE, STEPS
from examples.shapes.umpire import Images

SCALES, EACH = (0.0, 0.6, 1.0), 4
UNCOLOURED = world.ALL - {"colour"}


def measure(models: Path, seed: int, references: int = 24) -> dict[str, float]:
    """Shares of images, `EACH` per reference, with the colour shown and with the shape said."""
    rng = np.random.default_rng(seed)
    shown = [world.sample_scene(rng, two=0) for _ in range(references)]
    wanted = [[_elsewhere(scene, rng) for _ in range(EACH)] for scene in shown]
    images = np.stack([world.draw(scene, rng) for scene in shown])
    embeddings = Judge(models / "open_clip").embed(images)
    pipe = with_adapter(models)
    reader = umpire.load(models / "umpire")
    figures = {}
    for scale in SCALES:
        pairs: list[tuple[world.Thing, world.Thing]] = []
        for scenes, embedding in zip(wanted, embeddings, strict=True):
            prompts = [world.prompt(scene, UNCOLOURED) for scene in scenes]
            read = reader.read(render(pipe, prompts, embedding, scale, seed + len(pairs)))
            pairs += [(r.things[0], w.things[0]) for r, w in zip(read, scenes, strict=True)]
        figures[f"colour_at_{scale}"] = float(np.mean([r.colour == w.colour for r, w in pairs]))
        figures[f"shape_at_{scale}"] = float(np.mean([r.shape == w.shape for r, w in pairs]))
    return figures


def _elsewhere(scene: world.Scene, rng: np.random.Generator) -> world.Scene:
    """Another shape, size and place in the same colours."""
    other = world.sample_scene(rng, two=0).things[0]
    while other.shape == scene.things[0].shape:
        other = world.sample_scene(rng, two=0).things[0]
    return replace(scene, things=(replace(other, colour=scene.things[0].colour),))


def with_adapter(models: Path) -> StableDiffusionPipeline:
    """The pipeline with the image adapter loaded."""
    pipe = StableDiffusionPipeline.from_pretrained(models / "diffusion", use_safetensors=True)
    state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in load_file(models / "image-adapter/ip-adapter.safetensors").items():
        part, _, key = name.partition(".")
        state[part][key] = value.float()
    pipe.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(dtype=torch.float32)


def render(
    pipe: StableDiffusionPipeline, prompts: list[str], embedding: Tensor, scale: float, seed: int
) -> Images:
    """One image per prompt; one reference for all, its embedding [128] of length 1."""
    pipe.set_ip_adapter_scale(scale)
    reference = (embedding * math.sqrt(len(embedding)))[None, None]
    images = pipe(
        prompts,
        ip_adapter_image_embeds=[torch.cat([torch.zeros_like(reference), reference])],
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images
    return (images * 255).round().astype(np.uint8)


def main() -> None:
    """`python -m examples.shapes.measure.adapter MODELS [SEED]` prints the figures as JSON."""
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 88_000
    figures = measure(Path(sys.argv[1]), seed)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
