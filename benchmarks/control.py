"""ControlNets: whether what is drawn lies where a control image has it, in the prompt's colours.

Rows of a colour and a shape, such as "a red circle", render with the edges of an image of the same
shape in other colours, and without. `placed` is the share of images in which the umpire sees one
object in the control image's place; `sized`, `shaped` and `coloured` are those with its size, its
shape and the prompt's colour.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from examples.shapes import umpire, world
from pipeline.job import Control, LoadedImage, RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile, Profile
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer
from pipeline.settings import SHIPPED_MODELS

TRAITS = {"placed": "position", "sized": "size", "shaped": "shape", "coloured": "colour"}
BATCH, STEPS = 16, 20


def measure(count: int, seed: int) -> dict[str, Any]:
    """The shares of `count` images with control and of as many without."""
    rng = np.random.default_rng(seed)
    shown = [world.sample_scene(rng, two=0) for _ in range(count)]
    wanted = [_recoloured(scene, rng) for scene in shown]
    images = [_loaded(world.draw(scene, rng)) for scene in shown]
    requests = [
        RenderRequest(
            prompt=world.prompt(scene, frozenset({"colour"})), negative="", width=world.PIXELS,
            height=world.PIXELS, steps=STEPS, guidance=2.5, seeds=(number,),
        )
        for number, scene in enumerate(wanted)
    ]  # fmt: skip
    controlled = [
        request.model_copy(update={"control": Control("canny", image)})
        for request, image in zip(requests, images, strict=True)
    ]
    profile = Profile.load("shapes").renderer
    assert isinstance(profile, DiffusersProfile)
    profile = profile.model_copy(update={"batch": BATCH})
    models = Models(SHIPPED_MODELS)
    engine = EngineRenderer(models, profile, DiffusersRenderer(models, profile))
    judge = umpire.load(SHIPPED_MODELS / "umpire")
    figures: dict[str, Any] = {"control_rows": count}
    for end, rows in (("with_control", controlled), ("without_control", requests)):
        with ThreadPoolExecutor(2 * BATCH) as pool:
            drawn = [done[0] for done in pool.map(engine.render, rows)]
        pixels = np.stack([np.round(image * 255) for image in drawn if image is not None])
        seen = judge.read(pixels.astype(np.uint8))
        figures |= {f"{name}_{end}": _share(seen, wanted, trait) for name, trait in TRAITS.items()}
    return figures


def _recoloured(scene: world.Scene, rng: np.random.Generator) -> world.Scene:
    """The scene with another colour than its own."""
    thing = scene.things[0]
    others = [colour for colour in world.COLOURS if colour != thing.colour]
    return replace(scene, things=(replace(thing, colour=str(rng.choice(others))),))


def _loaded(image: world.ImageArray) -> LoadedImage:
    digest = sha256(image.tobytes()).hexdigest()
    return LoadedImage(digest, image.astype(np.float32) / np.float32(255))


def _share(seen: Sequence[world.Scene], wanted: Sequence[world.Scene], trait: str) -> float:
    """The share of images of one object with the trait that is wanted."""
    pairs = [(found.things, asked.things[0]) for found, asked in zip(seen, wanted, strict=True)]
    return float(
        np.mean([len(f) == 1 and getattr(f[0], trait) == getattr(a, trait) for f, a in pairs])
    )
