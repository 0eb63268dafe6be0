"""Images whose objects have no clear shape: what a renderer draws when it fails.

The classifiers learn from them that not everything is one of the eight shapes.
"""

from dataclasses import replace

import numpy as np

from examples.shapes import world

Field = np.ndarray[tuple[int, int], np.dtype[np.float32]]

_Y, _X = np.mgrid[: world.PIXELS, : world.PIXELS].astype(np.float32)


def spoil(
    scene: world.Scene, rng: np.random.Generator
) -> tuple[world.ImageArray, tuple[bool, ...]]:
    """An image of the scene with one thing or more spoiled beyond its name, and which ones are."""
    spoiled = tuple(bool(rng.random() < 0.5) for _ in scene.things)
    if not any(spoiled):
        spoiled = tuple(i == rng.integers(len(scene.things)) for i in range(len(scene.things)))
    seed = int(rng.integers(2**31))
    image = _draw(scene, seed).astype(np.float32)
    for index, chosen in enumerate(spoiled):
        if chosen:
            how = _WAYS[int(rng.integers(len(_WAYS)))]
            mask = _territory(scene, index)[..., None]
            image = mask * how(scene, index, seed, rng) + (1 - mask) * image
    return image.clip(0, 255).astype(np.uint8), spoiled


def wobble(image: world.ImageArray, rng: np.random.Generator) -> world.ImageArray:
    """The image bent by less than a pixel or so: still what it was."""
    return _warp(image, rng, rng.uniform(0.2, 0.9), 6).clip(0, 255).astype(np.uint8)


def _draw(scene: world.Scene, seed: int) -> world.ImageArray:
    return world.draw(scene, np.random.default_rng(seed))


def _territory(scene: world.Scene, index: int) -> Field:
    """1 where the thing is, 0 where the other one is."""
    if scene.arrangement is None:
        return np.ones_like(_X)
    near = (_X if scene.arrangement == "beside" else _Y) < world.PIXELS / 2
    return (near if index == 0 else ~near).astype(np.float32)


def _smooth(rng: np.random.Generator, grain: float) -> Field:
    """Noise of unit variance without detail finer than `grain` pixels."""
    noise = rng.normal(size=_X.shape).astype(np.float32)
    field = _blurred(noise, grain)
    return field / (field.std() + 1e-6)


def _warp(image: world.ImageArray, rng: np.random.Generator, amount: float, grain: float) -> Field:
    x = (_X + amount * _smooth(rng, grain)).clip(0, world.PIXELS - 1.001)
    y = (_Y + amount * _smooth(rng, grain)).clip(0, world.PIXELS - 1.001)
    left, top = x.astype(int), y.astype(int)
    u, v = (x - left)[..., None], (y - top)[..., None]
    p = image.astype(np.float32)
    upper = p[top, left] * (1 - u) + p[top, left + 1] * u
    lower = p[top + 1, left] * (1 - u) + p[top + 1, left + 1] * u
    return upper * (1 - v) + lower * v


def _ground(scene: world.Scene, seed: int) -> Field:
    """The background as drawn, [3]: a corner is never covered."""
    return _draw(scene, seed)[0, 0].astype(np.float32)


def _cover(scene: world.Scene, index: int, seed: int) -> Field:
    """The part of each pixel that the thing covers, 0..1."""
    apart = np.abs(_draw(scene, seed).astype(np.float32) - _ground(scene, seed)).sum(-1)
    apart = apart * _territory(scene, index)
    return apart / max(float(apart.max()), 1.0)


def _colour(scene: world.Scene, index: int) -> Field:
    return np.array(world.COLOURS[scene.things[index].colour], np.float32)


def _paint(cover: Field, colour: Field, ground: Field) -> Field:
    return cover[..., None] * colour + (1 - cover[..., None]) * ground


def _reshaped(scene: world.Scene, index: int, rng: np.random.Generator) -> world.Scene:
    """The scene with another shape at the index."""
    thing = scene.things[index]
    others = [s for s in world.SHAPES if s != thing.shape]
    things = list(scene.things)
    things[index] = replace(thing, shape=others[int(rng.integers(len(others)))])
    return replace(scene, things=tuple(things))


def _lumpy(scene: world.Scene, index: int, seed: int, rng: np.random.Generator) -> Field:
    """The outline bent by several pixels; less suffices where the thing is small."""
    least = 1.8 if _is_small(scene, index) else 2.4
    return _warp(_draw(scene, seed), rng, rng.uniform(least, 4), rng.uniform(2.5, 4.5))


def _morphed(scene: world.Scene, index: int, seed: int, rng: np.random.Generator) -> Field:
    """The outline half-way between two shapes, by their blurred covers."""
    share, blur = rng.uniform(0.4, 0.6), rng.uniform(1.0, 1.8 if _is_small(scene, index) else 3.2)
    one, other = (
        _blurred(_cover(s, index, seed), blur) for s in (scene, _reshaped(scene, index, rng))
    )
    cover = ((share * one + (1 - share) * other - 0.5) * 6 + 0.5).clip(0, 1)
    return _paint(cover, _colour(scene, index), _ground(scene, seed))


def _blended(scene: world.Scene, index: int, seed: int, rng: np.random.Generator) -> Field:
    """Two shapes one over the other: both solid, or half transparent where that would hide one."""
    one = _cover(scene, index, seed)
    other = _cover(_reshaped(scene, index, rng), index, seed)
    both = np.maximum(one, other)
    hidden = both.sum() < 1.15 * max(one.sum(), other.sum())
    cover = (one + other) / 2 if hidden or rng.random() < 0.5 else both
    return _paint(cover, _colour(scene, index), _ground(scene, seed))


def _erased(scene: world.Scene, index: int, seed: int, rng: np.random.Generator) -> Field:
    """A third to two thirds of the thing wiped off along a soft line."""
    cover = _cover(scene, index, seed)
    turn = rng.uniform(0, 2 * np.pi)
    along = np.cos(turn) * _X + np.sin(turn) * _Y + rng.uniform(0, 3) * _smooth(rng, 4)
    line = np.quantile(along[cover > 0.5], rng.uniform(0.33, 0.67))
    kept = ((line - along) / rng.uniform(0.5, 3)).clip(0, 1)
    return _paint(cover * kept, _colour(scene, index), _ground(scene, seed))


def _cloud(scene: world.Scene, index: int, seed: int, rng: np.random.Generator) -> Field:
    """A ragged blob where the thing should be."""
    near = _blurred(_cover(scene, index, seed), 4)
    ragged = 1 + rng.uniform(0.4, 0.9) * _smooth(rng, rng.uniform(1.5, 3))
    blob = ((near / near.max() * ragged - 0.4) * 4).clip(0, 1)
    return _paint(blob, _colour(scene, index), _ground(scene, seed))


def _faded(scene: world.Scene, index: int, seed: int, rng: np.random.Generator) -> Field:
    """So blurred that no outline is left, or nearly washed out."""
    blur = rng.uniform(6, 9)
    return _paint(
        _blurred(_cover(scene, index, seed), blur), _colour(scene, index), _ground(scene, seed)
    )


def _patchy(scene: world.Scene, index: int, seed: int, rng: np.random.Generator) -> Field:
    """One thing in two colours, a quarter of it or more in each."""
    names = [c for c in world.COLOURS if c not in (scene.things[index].colour, scene.background)]
    other = np.array(world.COLOURS[names[int(rng.integers(len(names)))]], np.float32)
    cover, noise = _cover(scene, index, seed), _smooth(rng, rng.uniform(3, 6))
    level = np.quantile(noise[cover > 0.5], rng.uniform(0.25, 0.75))
    colour = _paint(((noise - level) * 3 + 0.5).clip(0, 1), other, _colour(scene, index))
    return _paint(cover, colour, _ground(scene, seed))


def _is_small(scene: world.Scene, index: int) -> bool:
    return scene.things[index].size == "small"


def _blurred(field: Field, by: float) -> Field:
    kernel = np.exp(-((_X - _Y) ** 2) / (2 * by**2))
    kernel /= kernel.sum(1, keepdims=True)
    return kernel @ field @ kernel.T


_WAYS = (_lumpy, _lumpy, _morphed, _morphed, _blended, _erased, _cloud, _faded, _patchy)
