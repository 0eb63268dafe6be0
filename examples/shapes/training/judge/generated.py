"""Images by a renderer with known truth, and previews of images in the making, in one file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples.shapes import world
from examples.shapes.training.judge.data import Known
from examples.shapes.umpire import Images


@dataclass(frozen=True)
class Previews:
    """Estimates of images early in their making, and the finished images; in pairs."""

    early: Images
    finals: Images

    def pick(self, count: int, rng: np.random.Generator) -> "Previews":
        """`count` pairs at random."""
        at = rng.integers(len(self.early), size=count)
        return Previews(self.early[at], self.finals[at])


@dataclass(frozen=True)
class Generated:
    """All that a judge learns from a renderer."""

    known: Known
    previews: Previews


def save(generated: Generated, path: Path) -> None:
    """Write one .npz file without pickles; scenes are kept as their prompts."""
    known, previews = generated.known, generated.previews
    prompts = np.array([world.prompt(scene) for scene in known.scenes])
    np.savez(path, images=known.images, prompts=prompts, clear=known.clear,
             early=previews.early, finals=previews.finals)  # fmt: skip


def load(path: Path) -> Generated:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        scenes = [scene(str(text)) for text in file["prompts"]]
        known = Known(file["images"], scenes, file["clear"])
        return Generated(known, Previews(file["early"], file["finals"]))


def scene(prompt: str) -> world.Scene:
    """The scene of a canonical prompt that says everything."""
    said = world.parse(prompt)
    things = tuple(world.Thing(**thing) for thing in said["things"])
    return world.Scene(things, said["background"], said.get("arrangement"))
