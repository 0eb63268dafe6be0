"""Looks in words: what a logo looks like, said in many ways, and the canonical way."""

from dataclasses import dataclass

import numpy as np

from examples.shapes.training.writer_words import pick
from examples.shapes.world import Scene, Thing, is_legal, parse, prompt, sample_scene

_SHAPE = {
    "circle": ("circle",) * 7 + ("disc",),
    "diamond": ("diamond",) * 7 + ("rhombus",),
    "cross": ("cross",) * 7 + ("plus sign",),
    "star": ("star",) * 7 + ("five-pointed star",),
}
_SIZE = {
    "small": ("small", "small", "small", "little", "tiny"),
    "large": ("large", "large", "large", "big", "huge"),
}
_PLACE = {
    "left": (
        "on the left", "on the left", "at the left", "to the left", "on the left side",
        "at the left edge", "on the left-hand side", "in the left half",
    ),
    "right": (
        "on the right", "on the right", "at the right", "to the right", "on the right side",
        "at the right edge", "on the right-hand side", "in the right half",
    ),
    "top": (
        "at the top", "at the top", "near the top", "on the top", "at the top edge",
        "in the top half",
    ),
    "bottom": (
        "at the bottom", "at the bottom", "near the bottom", "on the bottom", "at the bottom edge",
        "in the bottom half",
    ),
    "center": (
        "in the center", "in the center", "in the centre", "in the middle", "at the center",
        "centered", "centred", "right in the middle",
    ),
}  # fmt: skip
_THING = (
    *("{size} {colour} {shape}",) * 12, "{size} {shape} in {colour}",
    "{size} {shape} coloured {colour}", "{size} {shape}, {colour}",
    "{size} {colour}-coloured {shape}", "{size} {shape} that is {colour}",
    "{size} {shape} (in {colour})", "{colour} {shape}, {size},", "{colour} {shape} of {size} size",
    "{size} {shape} painted {colour}", "{size} {shape} which is {colour}",
    "{size} {shape} filled with {colour}", "{colour}, {size} {shape}",
    "{size} figure in {colour}, a {shape}", "{size} {colour} shape, a {shape}",
)  # fmt: skip
_GROUND = (
    *("on {a} background",) * 5, *("on {g}",) * 4, "against {g}", "against {a} background",
    "over {a} field", "on a field of {g}", "on {a} ground", "with {a} background", "set on {g}",
    "placed on {g}", "in front of {a} background", "before {a} backdrop", "on {a} backdrop",
    "on a background of {g}", "on a background in {g}", "and {a} background", "with {g} behind it",
    ", on {g}", ", background {g}", ", the background being {g}", "over {g}",
    "; the background is {g}", ", {g} background", "on {a} panel", "on {a} tile", "on plain {g}",
    "that stands on {g}", "standing on {g}", "which sits on {a} background", "laid over {g}",
    ", and behind it nothing but {g}", ", behind it {g}", "on a {g}-coloured background",
    "on solid {g}", "against a backdrop of {g}", ", with {g} as the background",
)  # fmt: skip
_GROUND_FIRST = (
    "on {a} background, {thing}", "on {g}, {thing}", "on {g} {sits} {thing}",
    "on {a} background {sits} {thing}", "{a} background with {thing}",
    "{a} background with {thing} on it", "{a} field with {thing}", "{a} background bearing {thing}",
    "{a} background and {thing}", "against {g}, {thing}", "{a} background, and on it {thing}",
    "{g} background, {thing}", "against {a} background {sits} {thing}",
    "{a} backdrop behind {thing}", "in front of {a} background, {thing}",
    "{a} ground that carries {thing}",
)  # fmt: skip
_STANDS = ("is", "sits", "stands", "there is", "you see", "appears", "we find", "lies")
_MARKS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "single ",
    "plain ",
    "bold ",
    "simple ",
    "solid ",
    "neat ",
    "flat ",
)
_BESIDE = (
    "beside",
    "beside",
    "next to",
    "to the left of",
    "left of",
    "side by side with",
    "alongside",
)
_ABOVE = ("above", "above", "over", "on top of", "higher than", "placed above", "standing over")
_RIGHT = ("to the right of", "right of")
_BELOW = ("below", "under", "beneath", "underneath")
_HELD_OUT_THING = (
    "{shape} of {colour} colour, {size},", "{size} {colour} tinted {shape}",
    "{size} {shape} rendered in {colour}", "{size}, {colour} {shape}",
    "{size} {shape} whose colour is {colour}",
)  # fmt: skip
_HELD_OUT_GROUND = (
    "upon {g}", "surrounded by {g}", "with {g} as its backdrop", "on {a} surface", ", all on {g}",
    "on {a} canvas", ", where the ground is {g}", ", printed on {g}", "framed by {g}",
)  # fmt: skip
_HELD_OUT_GROUND_FIRST = (
    "{a} surface from which {thing} stands out", "out of {g} shines {thing}",
    "a canvas of {g} with {thing} drawn on it", "behind everything {g}, in front {thing}",
)  # fmt: skip


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
    look: Look, rng: np.random.Generator, held_out: bool = False, bare: bool = False
) -> str:
    """The look in words as a noun phrase; `bare` leaves articles out."""
    if not bare and not held_out and rng.random() < 0.13:
        return _listed(look, rng)
    core = _pair(look, rng, held_out, bare) if look.is_pair else _single(look, rng, held_out, bare)
    if not look.says("background"):
        return _respelled(core, rng)
    name = look.scene.background
    if not bare and rng.random() < 0.2:
        form = pick(rng, _HELD_OUT_GROUND_FIRST if held_out else _GROUND_FIRST)
        return _respelled(form.format(a=_a(name), g=name, sits=pick(rng, _STANDS), thing=core), rng)
    form = pick(rng, _HELD_OUT_GROUND if held_out else _GROUND)
    ground = form.format(a=_a(name), g=name)
    return _respelled(core + ("" if ground[0] in ",;" else " ") + ground, rng)


def _single(look: Look, rng: np.random.Generator, held_out: bool, bare: bool) -> str:
    thing = look.scene.things[0]
    noun = noun_phrase(thing, look, rng, held_out, bare)
    if not look.says("position") or not thing.position:
        return noun
    place = pick(rng, _PLACE[thing.position])
    form = rng.random()
    if form < 0.75:
        return f"{noun} {place}"
    return f"{noun}, {place}," if form < 0.9 else f"{place} {noun}"


def noun_phrase(
    thing: Thing, look: Look, rng: np.random.Generator, held_out: bool = False, bare: bool = False
) -> str:
    """One thing in words, with its size and colour where they are said."""
    size = pick(rng, _SIZE[thing.size]) if look.says("size") and thing.size else ""
    shape = pick(rng, _SHAPE.get(thing.shape, (thing.shape,)))
    if not look.says("colour"):
        words = f"{size} {shape}".strip()
        return words if bare else _a(words)
    form = pick(rng, _HELD_OUT_THING if held_out else _THING)
    if not size and "of {size}" in form:
        form = _THING[0]
    words = form.format(size=size, colour=thing.colour, shape=shape)
    words = " ".join(words.replace(", ,", ",").split()).strip(", ").removeprefix("and ")
    return words if bare else _with_article(pick(rng, _MARKS) + words, rng)


def _pair(look: Look, rng: np.random.Generator, held_out: bool, bare: bool) -> str:
    first, second = (noun_phrase(t, look, rng, held_out, bare) for t in look.scene.things)
    if not look.says("arrangement"):
        return f"{first} and {second}"
    above = look.scene.arrangement == "above"
    if rng.random() < 0.2:
        return f"{second} {pick(rng, _BELOW if above else _RIGHT)} {first}"
    form = rng.random()
    if form < 0.1:
        return f"{first} and, {'below' if above else 'beside'} it, {second}"
    if form < 0.2:
        return f"{first} with {second} {pick(rng, _BELOW) if above else 'beside'} it"
    if form < 0.27 and not above:
        return f"{first} and {second} side by side"
    return f"{first} {pick(rng, _ABOVE if above else _BESIDE)} {second}"


def _listed(look: Look, rng: np.random.Generator) -> str:
    """As a list of traits ("colour: white; shape: circle") or as small sentences."""
    if look.is_pair:
        first, second = (noun_phrase(t, look, rng) for t in look.scene.things)
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
        (pick(rng, ("shape", "form", "figure")), pick(rng, _SHAPE.get(thing.shape, (thing.shape,))))
    ]
    if look.says("colour"):
        found.append((pick(rng, ("colour", "color")), thing.colour))
    if look.says("size") and thing.size:
        found.append(("size", pick(rng, _SIZE[thing.size])))
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
