"""Looks in words: what a logo looks like, said in many ways, and the canonical way."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from examples.shapes.training.writer.phrases import (
    ABOVE,
    BELOW,
    BESIDE,
    BUILT_GROUND,
    BUILT_GROUND_FIRST,
    BUILT_THING,
    DYES,
    GROUND,
    GROUND_FIRST,
    HELD_OUT_GROUND,
    HELD_OUT_GROUND_FIRST,
    HELD_OUT_THING,
    LINKS,
    MARKS,
    NOUNS,
    PAINTS,
    PLACE,
    RIGHT,
    SHAPE,
    SIZE,
    STANDS,
    THING,
    VERBS,
)
from examples.shapes.training.writer.words import any_word, pick
from examples.shapes.world import Scene, Thing, is_legal, parse, prompt, sample_scene

_PARTS = {"link": LINKS, "noun": NOUNS, "verb": VERBS, "dye": DYES, "paint": PAINTS}
_PART = re.compile(r"\{(link|noun|verb|dye|paint|w)\}")


@dataclass(frozen=True)
class Phrasing:
    """The forms that say things and their grounds; the share `built` of them is made from parts."""

    thing: Sequence[str]
    ground: Sequence[str]
    ground_first: Sequence[str]
    built: float = 0.0
    lists: float = 0.0

    def things(self, rng: np.random.Generator) -> Sequence[str]:
        """Half as many built ones as for grounds: their order tells less."""
        return BUILT_THING if rng.random() < self.built / 2 else self.thing

    def grounds(self, look: "Look", rng: np.random.Generator, first: bool = False) -> Sequence[str]:
        """Built ones only where a second colour can but be the background's."""
        if look.says("colour") and rng.random() < self.built:
            return BUILT_GROUND_FIRST if first else BUILT_GROUND
        return self.ground_first if first else self.ground


SPOKEN = Phrasing(THING, GROUND, GROUND_FIRST, lists=0.13)
"""As people write."""
VARIED = replace(SPOKEN, built=0.35)
"""For training: what order tells must be understood whatever word links shape and colours."""
HELD_OUT = Phrasing(HELD_OUT_THING, HELD_OUT_GROUND, HELD_OUT_GROUND_FIRST)
"""Words that no training conversation has."""


@dataclass(frozen=True)
class Look:
    """A scene of which only some attributes are said (see `world.prompt`)."""

    scene: Scene
    said: frozenset[str]

    @property
    def prompt(self) -> str:
        """The canonical prompt of what is said."""
        return prompt(self.scene, self.said)

    @property
    def is_pair(self) -> bool:
        return len(self.scene.things) == 2

    def says(self, name: str) -> bool:
        return name in self.said


_BRAND_ODDS = {
    "colour": 0.97,
    "background": 0.8,
    "size": 0.25,
    "position": 0.2,
    "arrangement": 0.97,
}
_PLAIN_ODDS = {"colour": 0.9, "background": 0.5, "size": 0.35, "position": 0.3, "arrangement": 0.9}


def sample_look(rng: np.random.Generator, plain: bool = False, two: float = 0.22) -> Look:
    """A random look; most brands' looks say shape, colour and background."""
    odds = _PLAIN_ODDS if plain else _BRAND_ODDS
    said = frozenset(name for name, p in odds.items() if rng.random() < p)
    scene = sample_scene(rng, two)
    return Look(scene, said & _sayable(scene))


def _sayable(scene: Scene) -> frozenset[str]:
    if len(scene.things) == 2:
        return frozenset({"colour", "background", "arrangement"})
    return frozenset({"colour", "background", "size", "position"})


def look_of(text: str) -> Look:
    """The look that a sentence of `world.caption` says."""
    found = parse(text)
    things = tuple(
        Thing(t["shape"], t.get("colour", ""), t.get("size"), t.get("position"))
        for t in found["things"]
    )
    keys = {key for thing in found["things"] for key in thing} | set(found)
    scene = Scene(things, found.get("background", ""), found.get("arrangement"))
    return Look(scene, frozenset(keys - {"things", "shape"}))


def add(look: Look, extra: Look) -> Look | None:
    """The look with the size, position and background that `extra` says; None when illegal."""
    thing, other = look.scene.things[0], extra.scene.things[0]
    size = other.size if extra.says("size") else thing.size
    position = other.position if extra.says("position") else thing.position
    background = extra.scene.background if extra.says("background") else look.scene.background
    things = look.scene.things
    if not look.is_pair:
        things = (Thing(thing.shape, thing.colour, size, position),)
    scene = Scene(things, background, look.scene.arrangement)
    return Look(scene, (look.said | extra.said) & _sayable(scene)) if is_legal(scene) else None


def describe(
    look: Look, rng: np.random.Generator, phrasing: Phrasing = VARIED, bare: bool = False
) -> str:
    """The look in words as a noun phrase; `bare` leaves articles out."""
    if not bare and rng.random() < phrasing.lists:
        return _listed(look, rng, phrasing)
    core = _pair(look, rng, phrasing, bare) if look.is_pair else _single(look, rng, phrasing, bare)
    if not look.says("background"):
        return _respelled(core, rng)
    grounded = _before(core, look, rng, phrasing) if not bare and rng.random() < 0.2 else None
    return _respelled(grounded or _behind(core, look, rng, phrasing), rng)


def _before(thing: str, look: Look, rng: np.random.Generator, phrasing: Phrasing) -> str:
    """The thing in words, after its background."""
    name = look.scene.background
    form = _built(pick(rng, phrasing.grounds(look, rng, first=True)), rng)
    return form.format(a=_a(name), g=name, sits=pick(rng, STANDS), thing=thing)


def _behind(thing: str, look: Look, rng: np.random.Generator, phrasing: Phrasing) -> str:
    """The thing in words, followed by its background."""
    name = look.scene.background
    ground = _built(pick(rng, phrasing.grounds(look, rng)), rng).format(a=_a(name), g=name)
    return thing + ("" if ground[0] in ",;" else " ") + ground


def _built(form: str, rng: np.random.Generator) -> str:
    """The phrase with its parts chosen; parts may hold parts."""
    while _PART.search(form):
        form = _PART.sub(
            lambda m: pick(rng, _PARTS[m[1]]) if m[1] in _PARTS else any_word(rng), form
        )
    return form


def _single(look: Look, rng: np.random.Generator, phrasing: Phrasing, bare: bool) -> str:
    thing = look.scene.things[0]
    noun = noun_phrase(thing, look, rng, phrasing, bare)
    if not look.says("position") or not thing.position:
        return noun
    place = pick(rng, PLACE[thing.position])
    form = rng.random()
    if form < 0.75:
        return f"{noun} {place}"
    return f"{noun}, {place}," if form < 0.9 else f"{place} {noun}"


def noun_phrase(
    thing: Thing, look: Look, rng: np.random.Generator, phrasing: Phrasing, bare: bool = False
) -> str:
    """One thing in words, with its size and colour where they are said."""
    size = pick(rng, SIZE[thing.size]) if look.says("size") and thing.size else ""
    shape = pick(rng, SHAPE.get(thing.shape, (thing.shape,)))
    if not look.says("colour"):
        words = f"{size} {shape}".strip()
        return words if bare else _a(words)
    form = _built(pick(rng, phrasing.things(rng)), rng)
    if not size and "of {size}" in form:
        form = THING[0]
    words = form.format(size=size, colour=thing.colour, shape=shape)
    words = " ".join(words.replace(", ,", ",").split()).strip(", ").removeprefix("and ")
    return words if bare else _with_article(pick(rng, MARKS) + words, rng)


def _pair(look: Look, rng: np.random.Generator, phrasing: Phrasing, bare: bool) -> str:
    first, second = (noun_phrase(t, look, rng, phrasing, bare) for t in look.scene.things)
    if not look.says("arrangement"):
        return f"{first} and {second}"
    above = look.scene.arrangement == "above"
    if rng.random() < 0.2:
        return f"{second} {pick(rng, BELOW if above else RIGHT)} {first}"
    form = rng.random()
    if form < 0.1:
        return f"{first} and, {'below' if above else 'beside'} it, {second}"
    if form < 0.2:
        return f"{first} with {second} {pick(rng, BELOW) if above else 'beside'} it"
    if form < 0.27 and not above:
        return f"{first} and {second} side by side"
    return f"{first} {pick(rng, ABOVE if above else BESIDE)} {second}"


def _listed(look: Look, rng: np.random.Generator, phrasing: Phrasing) -> str:
    """The traits as a list ("colour: white; shape: circle") or as small sentences."""
    if look.is_pair:
        first, second = (noun_phrase(t, look, rng, phrasing) for t in look.scene.things)
        link = "above" if look.scene.arrangement == "above" else "beside"
        told = f"two figures, {first} and {second}"
        told += f", the first {link} the second" if look.says("arrangement") else ""
        return told + (f"; background: {look.scene.background}" if look.says("background") else "")
    traits = _traits(look, rng)
    if rng.random() < 0.5:
        rng.shuffle(traits)
        is_ = pick(rng, (": ", ": ", " = ", " - "))
        return pick(rng, ("; ", ", ", " / ")).join(f"{name}{is_}{value}" for name, value in traits)
    shape, rest = traits[0][1], [f"{pick(rng, ('its', 'the'))} {n} is {v}" for n, v in traits[1:]]
    rng.shuffle(rest)
    return pick(rng, ("; ", ", ", ". ")).join([_a(shape), *rest])


def _traits(look: Look, rng: np.random.Generator) -> list[tuple[str, str]]:
    thing = look.scene.things[0]
    found = [
        (pick(rng, ("shape", "form", "figure")), pick(rng, SHAPE.get(thing.shape, (thing.shape,))))
    ]
    if look.says("colour"):
        found.append((pick(rng, ("colour", "color")), thing.colour))
    if look.says("size") and thing.size:
        found.append(("size", pick(rng, SIZE[thing.size])))
    if look.says("position") and thing.position:
        found.append((pick(rng, ("position", "place")), thing.position))
    if look.says("background"):
        found.append((pick(rng, ("background", "ground", "backdrop")), look.scene.background))
    return found


def _with_article(words: str, rng: np.random.Generator) -> str:
    form = rng.random()
    if form < 0.86:
        return _a(words)
    return words if form < 0.92 else pick(rng, ("one ", "the ")) + words


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _respelled(text: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        text = text.replace("gray", "grey")
    return text.replace("coloured", "colored") if rng.random() < 0.3 else text
