"""Images in which each thing may be seen, and which no whole caption fits all the same."""

from dataclasses import replace

import numpy as np

from examples.shapes import world
from examples.shapes.world.scene import pick

Field = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

_Y, _X = np.mgrid[: world.PIXELS, : world.PIXELS].astype(np.float32)
APART = 40
"""Summed difference of colours from which a pixel is part of a thing."""


def flawed(scene: world.Scene, rng: np.random.Generator) -> world.ImageArray:
    """An image of the scene that is torn, has a thing twice, one too many, or too few."""
    ways = (torn, doubled, crowded, emptied)
    return ways[int(rng.choice(len(ways), p=(0.35, 0.25, 0.2, 0.2)))](scene, rng)


def torn(scene: world.Scene, rng: np.random.Generator) -> world.ImageArray:
    """The image cut along a line through a thing, one side shifted along the cut or away."""
    image = world.draw(scene, rng).astype(np.float32)
    ground = image[0, 0]
    rows, columns = _covered(image, ground).nonzero()
    one = int(rng.integers(len(rows)))
    near = np.hypot(columns - columns[one], rows - rows[one]) < world.PIXELS / 4
    turn = rng.uniform(0, 2 * np.pi)
    along = np.cos(turn) * _X + np.sin(turn) * _Y
    # a cut near a thing's edge would leave it as it is
    side = along - np.quantile(along[rows[near], columns[near]], rng.uniform(0.35, 0.65))
    way = turn + np.pi / 2 * float(rng.integers(2))
    by = rng.uniform(5, 10)
    moved = np.roll(image, (round(by * np.sin(way)), round(by * np.cos(way))), (0, 1))
    # where both sides cover a place the shifted one lies above; where none does there is ground
    upper = np.roll(side > 0, (round(by * np.sin(way)), round(by * np.cos(way))), (0, 1))
    lower = np.where((side <= 0)[..., None], image, ground)
    return np.where(
        (upper & _covered(moved, ground))[..., None], moved, lower
    ).astype(np.uint8)  # fmt: skip


def doubled(scene: world.Scene, rng: np.random.Generator) -> world.ImageArray:
    """One thing drawn a second time, elsewhere, over or under the first."""
    return _with(scene, scene.things[int(rng.integers(len(scene.things)))], rng)


def crowded(scene: world.Scene, rng: np.random.Generator) -> world.ImageArray:
    """One small thing more, of any shape and colour."""
    colours = [name for name in world.COLOURS if name != scene.background]
    return _with(scene, world.Thing(pick(rng, world.SHAPES), pick(rng, colours)), rng)


def emptied(scene: world.Scene, rng: np.random.Generator) -> world.ImageArray:
    """One thing left out: of two the other stands where it stood, of one nothing stays."""
    if len(scene.things) == 1:
        image = world.draw(scene, rng)
        return np.broadcast_to(image[0, 0], image.shape).copy()
    kept = int(rng.integers(2))
    image = world.draw(scene, rng)
    near = (_X if scene.arrangement == "beside" else _Y) < world.PIXELS / 2
    return np.where((near if kept == 0 else ~near)[..., None], image, image[0, 0])


def _with(scene: world.Scene, thing: world.Thing, rng: np.random.Generator) -> world.ImageArray:
    """The scene with one thing more, which is small and stands off the middle of the others."""
    image = world.draw(scene, rng)
    place = pick(rng, world.POSITIONS)
    more = replace(thing, size="small", position=place)
    other = world.draw(world.Scene((more,), scene.background), rng)
    over = _covered(other.astype(np.float32), other[0, 0].astype(np.float32))
    hidden = over & _covered(image.astype(np.float32), image[0, 0].astype(np.float32))
    if hidden.sum() > 0.6 * over.sum():
        # hidden behind what is there, it would be no flaw
        other, over = (np.roll(part, (12, 20), (0, 1)) for part in (other, over))
    return np.where(over[..., None], other, image)


def _covered(image: Field, ground: Field) -> np.ndarray:
    """bool [64, 64]: where the image differs from its ground."""
    covered: np.ndarray = np.abs(image - ground).sum(-1) > APART
    return covered
