"""The umpire: a small classifier that says what an image of the shapes' world really shows.

It decides whether the renderer drew what was asked for, so it shares nothing with the judge that
the pipeline uses, and it may answer `none` for an object that has no clear shape.
"""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from examples.shapes import world

NONE = "none"
SINGLE = "single"
TRAITS: dict[str, tuple[str, ...]] = {
    "arrangement": (SINGLE, *world.ARRANGEMENTS),
    "background": tuple(world.BACKGROUNDS),
    "size": world.SIZES,
    "position": world.POSITIONS,
    "shape0": (*world.SHAPES, NONE),
    "colour0": tuple(world.COLOURS),
    "shape1": (*world.SHAPES, NONE),
    "colour1": tuple(world.COLOURS),
}
Images = np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]


class Umpire(nn.Module):
    """A convolutional network with one linear head per trait of a scene.

    `widths` are the channels of its four stages, each of which halves the image.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 48, 72, 80), hidden: int = 128) -> None:
        super().__init__()
        channels = (3, *widths)
        self.stages = nn.Sequential(*(_stage(a, b) for a, b in pairwise(channels)))
        side = world.PIXELS >> len(widths)
        self.mix = nn.Sequential(
            nn.Flatten(), nn.Linear(widths[-1] * side**2, hidden), nn.SiLU(), nn.Dropout(0.1)
        )
        self.heads = nn.ModuleDict({k: nn.Linear(hidden, len(v)) for k, v in TRAITS.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Logits [n, values] per trait, for pixels [n, 3, 64, 64] in -1..1."""
        features = self.mix(self.stages(pixels))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, images: Images, batch: int = 256) -> list[world.Scene]:
        """The scene in each image, uint8 [n, 64, 64, 3]; an unclear shape is `none`."""
        scenes: list[world.Scene] = []
        for start in range(0, len(images), batch):
            logits = self(to_pixels(images[start : start + batch]))
            best = {name: values.argmax(1).tolist() for name, values in logits.items()}
            rows = zip(*best.values(), strict=True)
            scenes += [_scene(dict(zip(best, row, strict=True))) for row in rows]
        return scenes


def to_pixels(images: Images) -> Tensor:
    """uint8 [n, 64, 64, 3] as floats [n, 3, 64, 64] in -1..1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def load(path: Path) -> Umpire:
    """The umpire saved in a folder (umpire.json, umpire.safetensors), in float32, to read with."""
    config = json.loads((path / "umpire.json").read_text())
    umpire = Umpire(tuple(config["widths"]), config["hidden"])
    weights = {k: v.float() for k, v in load_file(path / "umpire.safetensors").items()}
    absent = umpire.load_state_dict(weights, strict=False).missing_keys
    # the file leaves out batch norm's counters, which only training reads
    if absent := [name for name in absent if not name.endswith("num_batches_tracked")]:
        raise ValueError(f"{path} lacks {', '.join(absent)}")
    return umpire.eval()


def confirms(reading: world.Scene, prompt: str) -> bool:
    """True if an image read as `reading` shows all that the prompt says."""
    return world.agrees(world.parse(prompt), reading)


def labels(scene: world.Scene, spoiled: tuple[bool, ...] = (False, False)) -> list[int]:
    """Each trait's index, -1 where the scene has no such trait; `spoiled` things have no shape."""
    values: dict[str, str | None] = {
        "arrangement": scene.arrangement or SINGLE,
        "background": scene.background,
        "size": scene.things[0].size,
        "position": scene.things[0].position,
    }
    for i, thing in enumerate(scene.things):
        values[f"shape{i}"] = NONE if spoiled[i] else thing.shape
        values[f"colour{i}"] = thing.colour
    return [_index(known, values.get(name)) for name, known in TRAITS.items()]


def _index(known: tuple[str, ...], value: str | None) -> int:
    return -1 if value is None else known.index(value)


def _scene(best: dict[str, int]) -> world.Scene:
    said = {name: TRAITS[name][index] for name, index in best.items()}
    if said["arrangement"] == SINGLE:
        only = world.Thing(said["shape0"], said["colour0"], said["size"], said["position"])
        return world.Scene((only,), said["background"])
    pair = tuple(world.Thing(said[f"shape{i}"], said[f"colour{i}"]) for i in (0, 1))
    return world.Scene(pair, said["background"], said["arrangement"])


def _stage(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, 2, 1, bias=False),
        nn.BatchNorm2d(outward),
        nn.SiLU(),
        nn.Conv2d(outward, outward, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outward),
        nn.SiLU(),
    )
