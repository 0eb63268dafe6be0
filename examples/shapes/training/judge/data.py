"""The judge's training data: images, sentences about them, and the truth of each sentence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from examples.shapes import world
from examples.shapes.training import damage
from examples.shapes.umpire import Images

FIELDS: dict[str, tuple[str, ...]] = {
    "count": ("1", "2"),
    "arrangement": world.ARRANGEMENTS,
    "background": tuple(world.BACKGROUNDS),
    "shape0": world.SHAPES,
    "colour0": tuple(world.COLOURS),
    "size0": world.SIZES,
    "position0": world.POSITIONS,
    "shape1": world.SHAPES,
    "colour1": tuple(world.COLOURS),
}
UNSAID = -1
_NAMES = list(FIELDS)
_TURNED = [
    _NAMES.index(f"{n[:-1]}{1 - int(n[-1])}") if n in ("shape0", "colour0", "shape1", "colour1")
    else i
    for i, n in enumerate(_NAMES)
]  # fmt: skip
Codes = np.ndarray[tuple[int, int], np.dtype[np.int64]]
Source = Callable[[int, np.random.Generator], "Known"]


def code(said: dict[str, Any]) -> list[int]:
    """An index per field of what is said, in the form of `world.parse`; UNSAID where nothing is."""
    flat = {"count": str(len(said["things"]))}
    flat |= {k: said[k] for k in ("arrangement", "background") if k in said}
    for i, thing in enumerate(said["things"]):
        flat |= {f"{k}{i}": v for k, v in thing.items()}
    return [known.index(flat[k]) if k in flat else UNSAID for k, known in FIELDS.items()]


def agreement(truths: Codes, said: Codes) -> np.ndarray:
    """bool [images, sentences]: `world.agrees` for every pair at once."""
    pair = said[:, _NAMES.index("count")] == 1
    any_order = pair & (said[:, _NAMES.index("arrangement")] == UNSAID)
    return _within(said, truths) | (any_order & _within(said, truths[:, _TURNED]))


def _within(said: Codes, truths: Codes) -> np.ndarray:
    return ((said[None] == UNSAID) | (said[None] == truths[:, None])).all(-1)


@dataclass(frozen=True)
class Known:
    """Images uint8 [n, 64, 64, 3], their scenes, and whether every object is clear."""

    images: Images
    scenes: list[world.Scene]
    clear: np.ndarray

    def pick(self, count: int, rng: np.random.Generator) -> "Known":
        """`count` of them at random."""
        at = rng.integers(len(self.scenes), size=count)
        return Known(self.images[at], [self.scenes[i] for i in at], self.clear[at])

    def first(self, count: int) -> "Known":
        """The first `count` of them."""
        return Known(self.images[:count], self.scenes[:count], self.clear[:count])

    def put(self, other: "Known", rng: np.random.Generator) -> None:
        """Replace as many at random by the others."""
        at = rng.choice(len(self.scenes), len(other.scenes), replace=False)
        self.images[at], self.clear[at] = other.images, other.clear
        for i, scene in zip(at, other.scenes, strict=True):
            self.scenes[i] = scene

    @property
    def codes(self) -> Codes:
        return np.array([code(world.attributes(scene)) for scene in self.scenes])


def joined(parts: Sequence[Known]) -> Known:
    """All of them, one after another."""
    return Known(
        np.concatenate([part.images for part in parts]),
        [scene for part in parts for scene in part.scenes],
        np.concatenate([part.clear for part in parts]),
    )


def drawn(
    count: int,
    rng: np.random.Generator,
    two: float = 0.45,
    spoiled: float = 0.15,
    through: Callable[[Images], Images] = lambda images: images,
) -> Known:
    """Fresh images, the share `spoiled` of them failed, half of all seen `through` something."""
    scenes = [world.sample_scene(rng, two) for _ in range(count)]
    clear = rng.random(count) >= spoiled
    images = np.stack([_look(s, ok, rng) for s, ok in zip(scenes, clear, strict=True)])
    half = slice(0, count // 2)
    images[half] = through(images[half])
    return Known(images, scenes, clear)


def _look(scene: world.Scene, clear: bool, rng: np.random.Generator) -> world.ImageArray:
    if not clear:
        return damage.spoil(scene, rng)[0]
    image = world.draw(scene, rng, "outlined" if rng.random() < 0.06 else "filled")
    return damage.wobble(image, rng) if rng.random() < 0.35 else image


def sentence(scene: world.Scene, rng: np.random.Generator, full: float = 0.45) -> str:
    """A true sentence: half of the time a canonical prompt, else a free one."""
    if rng.random() < 0.5:
        return world.caption(scene, rng, full)
    names = sorted(world.ALL)
    kept = frozenset(name for name in names if rng.random() < 0.6)
    return world.prompt(scene, world.ALL if rng.random() < full else kept)


def untrue_sentence(scene: world.Scene, rng: np.random.Generator) -> str:
    """A sentence that would be true if one thing were otherwise, and is not."""
    for _ in range(6):
        text = sentence(otherwise(scene, rng), rng, full=0.6)
        if not world.agrees(world.parse(text), scene):
            return text
    return world.prompt(world.one_wrong(scene, rng))


def otherwise(scene: world.Scene, rng: np.random.Generator) -> world.Scene:
    """One attribute changed, the two things turned about, or one left out."""
    if len(scene.things) == 2 and rng.random() < 0.25:
        if rng.random() < 0.6:
            return replace(scene, things=scene.things[::-1])
        return world.Scene((scene.things[int(rng.integers(2))],), scene.background)
    return world.one_wrong(scene, rng)


def neighbours(scene: world.Scene) -> list[world.Scene]:
    """Every legal scene with one attribute changed, or the colours or the places of two swapped."""
    found = [replace(scene, background=name) for name in world.BACKGROUNDS]
    for i, thing in enumerate(scene.things):
        for other in _variants(thing):
            found.append(replace(scene, things=(*scene.things[:i], other, *scene.things[i + 1 :])))
    if len(scene.things) == 2:
        a, b = scene.things
        swapped = (replace(a, colour=b.colour), replace(b, colour=a.colour))
        found += [replace(scene, things=swapped), replace(scene, things=(b, a))]
        found += [replace(scene, arrangement=name) for name in world.ARRANGEMENTS]
    return [s for s in dict.fromkeys(found) if s != scene and world.is_legal(s)]


def _variants(thing: world.Thing) -> list[world.Thing]:
    variants = [replace(thing, shape=name) for name in world.SHAPES]
    variants += [replace(thing, colour=name) for name in world.COLOURS]
    if thing.size is not None:
        variants += [replace(thing, size=name) for name in world.SIZES]
        variants += [replace(thing, position=name) for name in world.POSITIONS]
    return variants
