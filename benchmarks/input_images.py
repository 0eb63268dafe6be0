"""Effects of an input image: image-to-image by strength, and inpainting.

Each row begins from a drawn scene, and its prompt names another shape in another colour at the same
place. The umpire says what the result shows: `shape_kept_at`, `colour_kept_at` are by strength the
shares of images with the input's shape and colour, `drawn_at` the share with the prompt's both. For
inpainting the mask covers the thing and the space around it: `outside` is the largest difference of
any pixel that is not masked, `inside_changed` the share of rows whose masked part changes, and
`inpainted` the share that shows the prompt's shape in its colour there.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import arguments, show
from benchmarks.plot import plot
from examples.shapes import umpire, world
from examples.shapes.world.scene import pick
from pipeline.job import ImageArray, LoadedImage, RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile, Profile
from pipeline.rendering.local import local_renderer
from pipeline.settings import SHIPPED_MODELS

STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
AT_ONCE, CHANGED, MARGIN = 32, 10 / 255, 6


@dataclass(frozen=True)
class Case:
    """A drawn scene and another one, whose thing has another shape and colour."""

    source: world.Scene
    target: world.Scene
    image: ImageArray
    mask: ImageArray


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=90_002, help="no training used it")
    parser.add_argument("--plot", type=Path, help="an SVG file of the strengths to write")
    given = parser.parse_args()
    figures = measured(given.rows, given.seed)
    show("input images", figures)
    if given.plot:
        given.plot.write_text(drawn(figures), encoding="utf-8")
    if given.json:
        print(json.dumps(figures))


def measured(count: int, seed: int) -> dict[str, Any]:
    """The figures of so many rows."""
    rng = np.random.default_rng(seed)
    cases = [_case(rng) for _ in range(count)]
    profile = Profile.load("shapes").renderer
    assert isinstance(profile, DiffusersProfile)
    renderer = local_renderer(Models(SHIPPED_MODELS), profile)
    judge = umpire.load(SHIPPED_MODELS / "umpire")

    def render(**more: Any) -> list[ImageArray]:
        def one(numbered: tuple[int, Case]) -> ImageArray:
            number, case = numbered
            (made,) = renderer.render(_request(number, case, **more))
            assert made is not None
            return made

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, enumerate(cases)))

    figures: dict[str, Any] = {"rows": count}
    for strength in STRENGTHS:
        shown = _read(judge, render(strength=strength))
        for name, agrees in {
            "shape_kept": lambda case, thing: thing.shape == case.source.things[0].shape,
            "colour_kept": lambda case, thing: thing.colour == case.source.things[0].colour,
            "drawn": _is_target,
        }.items():
            share = np.mean([agrees(case, thing) for case, thing in zip(cases, shown, strict=True)])
            figures[f"{name}_at_{strength:g}"] = float(share)
    painted = render(strength=1.0, masked=True)
    changes = [np.abs(image - case.image) for case, image in zip(cases, painted, strict=True)]
    masks = [case.mask > 0 for case in cases]
    inside = [float(c[m].mean()) for c, m in zip(changes, masks, strict=True)]
    shown = _read(judge, painted)
    return figures | {
        "outside": max(float(c[~m].max()) for c, m in zip(changes, masks, strict=True)),
        "inside_changed": float(np.mean([change > CHANGED for change in inside])),
        "inpainted": float(np.mean([*map(_is_target, cases, shown)])),
    }


def drawn(figures: Mapping[str, Any]) -> str:
    """An SVG of the shares by strength."""
    names = {
        "shape_kept": "input's shape",
        "colour_kept": "input's colour",
        "drawn": "prompt's both",
    }
    lines = {
        label: [(strength, figures[f"{name}_at_{strength:g}"]) for strength in STRENGTHS]
        for name, label in names.items()
    }
    return plot(lines, "strength", "share of images")


def _case(rng: np.random.Generator) -> Case:
    source = world.sample_scene(rng, two=0.0)
    (thing,) = source.things
    shape = pick(rng, [each for each in world.SHAPES if each != thing.shape])
    colours = [each for each in world.COLOURS if each not in (thing.colour, source.background)]
    other = replace(thing, shape=shape, colour=pick(rng, colours))
    image = (world.draw(source, rng) / 255).astype(np.float32)
    ink = np.abs(image - image[0, 0]).max(axis=2) > 0.2
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    mask = np.zeros_like(image)
    mask[
        max(0, rows[0] - MARGIN) : rows[-1] + MARGIN,
        max(0, columns[0] - MARGIN) : columns[-1] + MARGIN,
    ] = 1
    return Case(source, replace(source, things=(other,)), image, mask)


def _request(number: int, case: Case, strength: float, masked: bool = False) -> RenderRequest:
    height, width, _ = case.image.shape
    return RenderRequest(
        prompt=world.prompt(case.target), negative="", width=width, height=height, steps=20,
        guidance=2.5, seeds=(number,), strength=strength,
        image=LoadedImage(f"image {number}", case.image),
        mask=LoadedImage(f"mask {number}", case.mask) if masked else None,
    )  # fmt: skip


def _read(judge: umpire.Umpire, images: Sequence[ImageArray]) -> list[world.Thing]:
    """The first thing in each image."""
    pixels = (np.stack(images) * 255).round().astype(np.uint8)
    return [scene.things[0] for scene in judge.read(pixels)]


def _is_target(case: Case, thing: world.Thing) -> bool:
    wanted = case.target.things[0]
    return (thing.shape, thing.colour) == (wanted.shape, wanted.colour)


if __name__ == "__main__":
    main()
