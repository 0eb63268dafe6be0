"""Images with what is known of each: its scene, and what in it is spoiled.

Nothing here was labelled by the umpire: an image's truth is that of the drawing it was made from,
or the prompt that the finished renderer was given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from examples.shapes import world
from examples.shapes.training import damage
from examples.shapes.training.judge.generated import scene as said_scene
from examples.shapes.training.sees import flaws
from examples.shapes.umpire import Images

THINGS = 2
Flags = np.ndarray[tuple[int, int], np.dtype[np.bool_]]
Through = Callable[[Images], Images]


@dataclass(frozen=True)
class Looks:
    """Images uint8 [n, 64, 64, 3] and their scenes.

    `spoiled` [n, 2] marks the things that show no clear shape; `flawed` [n] the images that show
    more than their scene says, or show it torn, so that no whole caption fits.
    """

    images: Images
    scenes: list[world.Scene]
    spoiled: Flags
    flawed: np.ndarray

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def whole(self) -> np.ndarray:
        """True for images of which the whole caption is true."""
        return ~self.spoiled.any(1) & ~self.flawed

    def at(self, chosen: np.ndarray) -> "Looks":
        """The ones at the indices."""
        scenes = [self.scenes[i] for i in chosen]
        return Looks(self.images[chosen], scenes, self.spoiled[chosen], self.flawed[chosen])

    def pick(self, count: int, rng: np.random.Generator) -> "Looks":
        """`count` of them at random."""
        return self.at(rng.integers(len(self), size=count))

    def put(self, others: "Looks", rng: np.random.Generator) -> None:
        """Replace as many at random by the others."""
        at = rng.choice(len(self), len(others), replace=False)
        self.images[at], self.spoiled[at] = others.images, others.spoiled
        self.flawed[at] = others.flawed
        for i, scene in zip(at, others.scenes, strict=True):
            self.scenes[i] = scene


def joined(parts: Sequence[Looks]) -> Looks:
    """All of them, one after another."""
    return Looks(
        np.concatenate([part.images for part in parts]),
        [scene for part in parts for scene in part.scenes],
        np.concatenate([part.spoiled for part in parts]),
        np.concatenate([part.flawed for part in parts]),
    )


def drawn(count: int, rng: np.random.Generator, through: Through | None = None) -> Looks:
    """Fresh images, of which a third have spoiled things and a tenth flaws; half seen `through`."""
    made = [_drawn(rng) for _ in range(count)]
    looks = Looks(
        np.stack([image for image, _, _, _ in made]),
        [scene for _, scene, _, _ in made],
        np.array([spoiled for _, _, spoiled, _ in made]),
        np.array([flawed for _, _, _, flawed in made]),
    )
    if through is not None:
        half = slice(0, count // 2)
        looks.images[half] = through(looks.images[half])
    return looks


def _drawn(
    rng: np.random.Generator,
) -> tuple[world.ImageArray, world.Scene, tuple[bool, bool], bool]:
    scene = world.sample_scene(rng, two=0.55)
    kind = rng.random()
    if kind < 0.32:
        image, marks = damage.spoil(scene, rng)
        return image, scene, (marks[0], len(marks) > 1 and marks[1]), False
    if kind < 0.42:
        return flaws.flawed(scene, rng), scene, (False, False), True
    image = world.draw(scene, rng, "outlined" if rng.random() < 0.05 else "filled")
    image = damage.wobble(image, rng) if rng.random() < 0.35 else image
    return image, scene, (False, False), False


def save(looks: Looks, path: Path) -> None:
    """Write one .npz file without pickles; scenes are kept as their prompts."""
    prompts = np.array([world.prompt(scene) for scene in looks.scenes])
    kept = {f.name: getattr(looks, f.name) for f in fields(looks) if f.name != "scenes"}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, prompts=prompts, **kept)


def load(path: Path) -> Looks:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        scenes = [said_scene(str(text)) for text in file["prompts"]]
        return Looks(file["images"], scenes, file["spoiled"], file["flawed"])
