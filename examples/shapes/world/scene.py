"""The contents of an image of the shapes' world."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Rgb = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")
COLOURS: dict[str, Rgb] = {
    "red": (215, 40, 45),
    "green": (40, 150, 65),
    "blue": (40, 80, 215),
    "yellow": (248, 215, 45),
    "orange": (245, 130, 30),
    "purple": (135, 55, 165),
    "white": (250, 250, 250),
    "black": (18, 18, 18),
}
BACKGROUNDS: dict[str, Rgb] = {
    "white": (250, 250, 250),
    "black": (18, 18, 18),
    "gray": (140, 140, 145),
    "yellow": (250, 225, 90),
    "pink": (250, 170, 195),
    "teal": (45, 165, 165),
}
SIZES = ("small", "large")
POSITIONS = ("left", "right", "top", "bottom", "center")
ARRANGEMENTS = ("beside", "above")
ALL = frozenset({"colour", "size", "position", "background", "arrangement"})


@dataclass(frozen=True)
class Thing:
    """One object. Size and position are None when it shares the image with another."""

    shape: str
    colour: str
    size: str | None = None
    position: str | None = None


@dataclass(frozen=True)
class Scene:
    """One image's truth: one or two things; the first of two is the left or the upper one."""

    things: tuple[Thing, ...]
    background: str
    arrangement: str | None = None


def sample_scene(rng: np.random.Generator, two: float = 0.28) -> Scene:
    """A random legal scene; `two` is the probability of two objects."""
    background = pick(rng, tuple(BACKGROUNDS))
    colours = [c for c in COLOURS if c != background]
    if rng.random() >= two:
        thing = Thing(
            pick(rng, SHAPES),
            pick(rng, colours),
            pick(rng, SIZES),
            pick(rng, POSITIONS),
        )
        return Scene((thing,), background)
    first = second = Thing(pick(rng, SHAPES), pick(rng, colours))
    while second == first:
        second = Thing(pick(rng, SHAPES), pick(rng, colours))
    return Scene((first, second), background, pick(rng, ARRANGEMENTS))


def is_legal(scene: Scene) -> bool:
    """No colour on a background of its own name, and two things differ."""
    colours = {thing.colour for thing in scene.things}
    return scene.background not in colours and len(set(scene.things)) == len(scene.things)


def one_wrong(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with exactly one attribute changed; swapping two colours is one change."""
    changes = _changes(scene)
    while True:
        kind = pick(rng, list(changes))
        wrong = pick(rng, changes[kind])
        if wrong != scene and is_legal(wrong):
            return wrong


def _changes(scene: Scene) -> dict[str, list[Scene]]:
    changes = {"background": [replace(scene, background=b) for b in BACKGROUNDS]}
    for i, thing in enumerate(scene.things):
        options = {"shape": SHAPES, "colour": tuple(COLOURS)}
        if len(scene.things) == 1:
            options |= {"size": SIZES, "position": POSITIONS}
        for name, values in options.items():
            changed = [_with_thing(scene, i, replace(thing, **{name: v})) for v in values]
            changes[f"{name}{i}"] = changed
    if len(scene.things) == 2:
        a, b = scene.things
        swapped = (replace(a, colour=b.colour), replace(b, colour=a.colour))
        changes["swap"] = [replace(scene, things=swapped)]
        changes["arrangement"] = [replace(scene, arrangement=x) for x in ARRANGEMENTS]
    return {kind: ok for kind, found in changes.items() if (ok := _others(found, scene))}


def _others(found: Iterable[Scene], scene: Scene) -> list[Scene]:
    return [other for other in found if other != scene and is_legal(other)]


def _with_thing(scene: Scene, index: int, thing: Thing) -> Scene:
    things = list(scene.things)
    things[index] = thing
    return replace(scene, things=tuple(things))


def pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    """One of the values at random."""
    return values[int(rng.integers(len(values)))]
