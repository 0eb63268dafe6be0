"""The closed world of the small models: coloured shapes, how they look and how one speaks of them.

Needs numpy and Pillow only. A `Scene` is the truth; `draw` makes its picture, `caption` one of many
sentences about it, `prompt` the one canonical sentence, and `parse` reads either back.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import cos, pi, sin
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageDraw

T = TypeVar("T")
Rgb = tuple[int, int, int]
Picture = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
Points = np.ndarray[tuple[int, int], np.dtype[np.float64]]

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
STYLES = ("filled", "outlined")
ALL = frozenset({"colour", "size", "position", "background", "arrangement"})

PIXELS = 64
_SCALE = 4  # pictures are drawn this much larger and averaged down
_RADIUS = {"small": 9.0, "large": 16.0, None: 12.0}
_OFFSET = {
    "left": (-14, 0),
    "right": (14, 0),
    "top": (0, -14),
    "bottom": (0, 14),
    "center": (0, 0),
}
_PAIR = {"beside": ((-15, 0), (15, 0)), "above": ((0, -15), (0, 15))}


@dataclass(frozen=True)
class Thing:
    """One object. Size and position are None when it shares the picture with another."""

    shape: str
    colour: str
    size: str | None = None
    position: str | None = None


@dataclass(frozen=True)
class Scene:
    """One picture's truth: one or two things; the first of two is the left or the upper one."""

    things: tuple[Thing, ...]
    background: str
    arrangement: str | None = None


def sample_scene(rng: np.random.Generator, two: float = 0.28) -> Scene:
    """A random legal scene; `two` is the probability of two objects."""
    background = _pick(rng, tuple(BACKGROUNDS))
    colours = [c for c in COLOURS if c != background]
    if rng.random() >= two:
        thing = Thing(
            _pick(rng, SHAPES),
            _pick(rng, colours),
            _pick(rng, SIZES),
            _pick(rng, POSITIONS),
        )
        return Scene((thing,), background)
    first = second = Thing(_pick(rng, SHAPES), _pick(rng, colours))
    while second == first:
        second = Thing(_pick(rng, SHAPES), _pick(rng, colours))
    return Scene((first, second), background, _pick(rng, ARRANGEMENTS))


def is_legal(scene: Scene) -> bool:
    """No colour on a background of its own name, and two things differ."""
    colours = {thing.colour for thing in scene.things}
    return scene.background not in colours and len(set(scene.things)) == len(scene.things)


def one_wrong(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with exactly one attribute changed; swapping two colours is one change."""
    changes = _changes(scene)
    while True:
        kind = _pick(rng, list(changes))
        wrong = _pick(rng, changes[kind])
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


# Drawing -----------------------------------------------------------------------------------------


def draw(scene: Scene, rng: np.random.Generator, style: str = "filled") -> Picture:
    """The scene as uint8 [64, 64, 3], with small random rotation, shift, size and colour jitter."""
    ground = _jitter(BACKGROUNDS[scene.background], 5, rng)
    side = PIXELS * _SCALE
    image = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(image)
    for thing, offset in zip(scene.things, _offsets(scene), strict=True):
        radius = _RADIUS[thing.size] * rng.uniform(0.93, 1.07)
        centre = PIXELS / 2 + np.array(offset) + rng.uniform(-1.5, 1.5, 2)
        colour = _jitter(COLOURS[thing.colour], 8, rng)
        angle = rng.uniform(-0.2, 0.2)
        for i, outline in enumerate(_outlines(thing.shape)):
            points = _place(outline, radius, centre, angle)
            if style == "outlined":
                pen.line(
                    points + points[:2],
                    fill=colour,
                    width=round(2.5 * _SCALE),
                    joint="curve",
                )
            else:
                pen.polygon(points, fill=ground if i else colour)
    return np.asarray(image.reduce(_SCALE))


def _offsets(scene: Scene) -> Iterable[tuple[int, int]]:
    if scene.arrangement:
        return _PAIR[scene.arrangement]
    return [_OFFSET[thing.position or "center"] for thing in scene.things]


def _jitter(colour: Rgb, by: int, rng: np.random.Generator) -> Rgb:
    r, g, b = np.clip(np.array(colour) + rng.integers(-by, by + 1, 3), 0, 255).tolist()
    return r, g, b


def _place(
    outline: Points, radius: float, centre: Points, angle: float
) -> list[tuple[float, float]]:
    turn = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
    return [(x, y) for x, y in (((outline @ turn) * radius + centre) * _SCALE).tolist()]


def _round(radius: float) -> Points:
    turn = np.linspace(0, 2 * pi, 48, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], 1) * radius


def _spikes(count: int, outer: float, inner: float) -> Points:
    turn = np.arange(2 * count) * pi / count - pi / 2
    length = np.where(np.arange(2 * count) % 2, inner, outer)
    return np.stack([np.cos(turn), np.sin(turn)], 1) * length[:, None]


def _heart() -> Points:
    t = np.linspace(0, 2 * pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 16, -(y + 2.5) / 15.5], 1)


def _cross(arm: float) -> Points:
    corner = [(arm, -1.0), (arm, -arm), (1.0, -arm), (1.0, arm), (arm, arm), (arm, 1.0)]
    return np.array(corner + [(-x, -y) for x, y in corner])


_OUTLINES: dict[str, tuple[Points, ...]] = {
    "circle": (_round(0.98),),
    "square": (np.array([(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)]),),
    "triangle": (np.array([(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)]),),
    "star": (_spikes(5, 1.08, 0.45),),
    "heart": (_heart(),),
    "ring": (_round(1.0), _round(0.55)),
    "cross": (_cross(0.34),),
    "diamond": (np.array([(0.0, -1.05), (0.7, 0.0), (0.0, 1.05), (-0.7, 0.0)]),),
}


def _outlines(shape: str) -> tuple[Points, ...]:
    """Closed curves in a unit box, y down; a second curve is a hole."""
    return _OUTLINES[shape]


# Speaking ----------------------------------------------------------------------------------------

_AT = {
    "left": ("on the left", "at the left", "on the left side", "to the left"),
    "right": ("on the right", "at the right", "on the right side", "to the right"),
    "top": ("at the top", "on the top", "near the top"),
    "bottom": ("at the bottom", "on the bottom", "near the bottom"),
    "center": ("in the center", "in the middle", "in the centre", "at the center"),
}
_BESIDE = ("beside", "next to", "to the left of")
_ABOVE = ("above", "over", "on top of")
_TURNED = {"beside": ("to the right of",), "above": ("below", "under", "beneath")}
_SIZE_WORDS = {
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "large", "big"),
}
_OPENINGS = (
    "an icon of ", "a logo of ", "logo, ", "a picture of ", "a simple drawing of ", "flat icon, ",
    "a minimal logo: ", "an image of ", "a flat graphic of ", "icon: ", "a drawing of ",
    "sticker of ",
)  # fmt: skip
_CLOSINGS = (
    ", flat",
    ", minimal",
    ", vector",
    ", simple flat design",
    ", clean",
    ", high quality",
    ".",
)
_SYLLABLES = (
    "al", "an", "be", "bri", "ca", "cor", "de", "dra", "el", "en", "fi", "gla", "ha", "in", "ja",
    "ka", "li", "lo", "mar", "ne", "no", "or", "pa", "qui", "ra", "sol", "ta", "u", "vi", "wo",
    "xa", "yo", "zen",
)  # fmt: skip


def prompt(scene: Scene, said: frozenset[str] = ALL) -> str:
    """The canonical prompt; attributes not in `said` are left out, shapes are always said.

    `said` holds some of colour, size, position, background, arrangement.
    """
    phrases = [_noun_phrase(t, said) for t in scene.things]
    if len(phrases) == 2:
        link = scene.arrangement if scene.arrangement and "arrangement" in said else "and"
        text = f"{phrases[0]} {link} {phrases[1]}"
    else:
        position = scene.things[0].position if "position" in said else None
        text = phrases[0] + (f" {_AT[position][0]}" if position else "")
    return f"{text} on {_a(scene.background)} background" if "background" in said else text


def _noun_phrase(thing: Thing, said: frozenset[str]) -> str:
    size = thing.size if "size" in said else None
    colour = thing.colour if "colour" in said else None
    return _a(" ".join(word for word in (size, colour, thing.shape) if word))


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def caption(scene: Scene, rng: np.random.Generator, full: float = 0.4) -> str:
    """One of many ways to say the scene, with probability `full` all of it, else a part."""
    said = ALL if rng.random() < full else _some(rng)
    text = _one(scene, said, rng) if len(scene.things) == 1 else _two(scene, said, rng)
    if rng.random() < 0.2:
        return text
    text = _opened(text, rng) if rng.random() < 0.45 else text
    text = text + _pick(rng, _CLOSINGS) if rng.random() < 0.2 else text
    return text.upper() if rng.random() < 0.01 else _respelled(text, rng)


def _some(rng: np.random.Generator) -> frozenset[str]:
    chance = {
        "colour": 0.65,
        "size": 0.4,
        "position": 0.4,
        "background": 0.5,
        "arrangement": 0.75,
    }
    return frozenset(name for name, p in chance.items() if rng.random() < p)


def _opened(text: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.3:
        return _pick(rng, ("{} logo, {}", "the {} logo: {}", "a logo for {}, {}")).format(
            brand(rng), text
        )
    return _pick(rng, _OPENINGS) + text


def brand(rng: np.random.Generator) -> str:
    """An invented brand name of two or three syllables."""
    return "".join(_pick(rng, _SYLLABLES) for _ in range(rng.integers(2, 4))).capitalize()


def _respelled(text: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        text = text.replace("gray", "grey")
    return text[:1].upper() + text[1:] if rng.random() < 0.15 else text


def _one(scene: Scene, said: frozenset[str], rng: np.random.Generator) -> str:
    """A single object: as a sentence, with the background first, or as a list of its traits."""
    thing = scene.things[0]
    size = _pick(rng, _SIZE_WORDS[thing.size]) if thing.size and "size" in said else None
    colour = thing.colour if "colour" in said else None
    place = _pick(rng, _AT[thing.position]) if thing.position and "position" in said else None
    ground = _ground(scene, said, rng)
    form = rng.random()
    if form < 0.6:
        noun = _a(" ".join(w for w in (size, colour, thing.shape) if w))
        return " ".join(p for p in (noun, place, ground) if p)
    if form < 0.75 and ground:
        noun = _a(" ".join(w for w in (size, colour, thing.shape) if w))
        return f"{scene.background} background, " + " ".join(p for p in (noun, place) if p)
    head = f"{colour} {thing.shape}" if colour else thing.shape
    traits = [t for t in (size, place and place.split("the ")[-1], ground) if t]
    rng.shuffle(traits)
    return ", ".join([head, *traits])


def _two(scene: Scene, said: frozenset[str], rng: np.random.Generator) -> str:
    a, b = (_noun_phrase(thing, said) for thing in scene.things)
    if "arrangement" not in said:
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        link = _pick(rng, ("and", "and", "with"))
    elif rng.random() < 0.25:
        a, b, link = b, a, _pick(rng, _TURNED[scene.arrangement or "beside"])
    else:
        link = _pick(rng, _BESIDE if scene.arrangement == "beside" else _ABOVE)
    ground = _ground(scene, said, rng)
    if ground and rng.random() < 0.15:
        return f"{scene.background} background, {a} {link} {b}"
    return " ".join(p for p in (a, link, b, ground) if p)


def _ground(scene: Scene, said: frozenset[str], rng: np.random.Generator) -> str | None:
    if "background" not in said:
        return None
    name = scene.background
    phrases = ("on A background", "on A background", "on N background", "N background", "on N",
               "N backdrop")  # fmt: skip
    return _pick(rng, phrases).replace("A", _a(name)).replace("N", name)


# Reading -----------------------------------------------------------------------------------------

_GROUND = re.compile(
    rf"\b(?:on |against )?(?:an? )?(?P<a>{'|'.join(BACKGROUNDS)}) (?:background|backdrop)\b"
    rf"|\b(?:on|against) (?P<b>{'|'.join(BACKGROUNDS)})(?=$|[,.])"
)
_SAME = {"grey": "gray", "centre": "center", "middle": "center", "little": "small", "tiny": "small",
         "big": "large"}  # fmt: skip
_LINKS = {
    **dict.fromkeys(_BESIDE, ("beside", False)), **dict.fromkeys(_ABOVE, ("above", False)),
    **{link: (kind, True) for kind, links in _TURNED.items() for link in links},
}  # fmt: skip


def parse(prompt: str) -> dict[str, Any]:
    """What is said: {"things": [{shape, colour, size, position}, ...], background, arrangement}.

    Only what is said is a key; of two things the first is the left or upper one where the
    arrangement is said. Words outside this world are passed over.
    """
    text = re.sub(r"[a-z]+", lambda m: _SAME.get(m[0], m[0]), prompt.lower())
    found: dict[str, Any] = {}
    if ground := _GROUND.search(text):
        found["background"] = ground["a"] or ground["b"]
        text = text[: ground.start()] + " , " + text[ground.end() :]
    shapes = list(re.finditer(rf"\b(?:{'|'.join(SHAPES)})\b", text))
    if len(shapes) < 2:
        return {"things": [_traits(text, SIZES, POSITIONS)] if shapes else [], **found}
    parts = (text[: shapes[0].end()], text[shapes[0].end() : shapes[1].end()])
    things = [_traits(part, SIZES) for part in parts]
    links = [link for link in _LINKS if f" {link} " in parts[1]]
    if links:
        found["arrangement"], turned = _LINKS[max(links, key=len)]
        things = things[::-1] if turned else things
    return {"things": things, **found}


def _traits(text: str, sizes: tuple[str, ...], places: tuple[str, ...] = ()) -> dict[str, str]:
    words = re.findall(r"[a-z]+", text)
    kinds = {
        "shape": SHAPES,
        "colour": tuple(COLOURS),
        "size": sizes,
        "position": places,
    }
    return {kind: hit for kind, values in kinds.items() if (hit := _first(words, values))}


def _first(words: list[str], values: tuple[str, ...]) -> str | None:
    return next((word for word in words if word in values), None)


def attributes(scene: Scene) -> dict[str, Any]:
    """The whole truth of a scene in the form that `parse` gives."""
    things = [{k: v for k, v in vars(thing).items() if v} for thing in scene.things]
    found: dict[str, Any] = {"things": things, "background": scene.background}
    return found | ({"arrangement": scene.arrangement} if scene.arrangement else {})


def agrees(said: dict[str, Any], scene: Scene) -> bool:
    """Whether nothing that was said (see `parse`) contradicts the scene."""
    truth = attributes(scene)
    if any(said[k] != truth.get(k) for k in ("background", "arrangement") if k in said):
        return False
    things = truth["things"]
    orders = [things] if "arrangement" in said else [things, things[::-1]]
    return any(_all_within(said["things"], order) for order in orders)


def _all_within(said: list[dict[str, str]], things: list[dict[str, str]]) -> bool:
    pairs = zip(said, things, strict=False)
    return len(said) == len(things) and all(s.items() <= t.items() for s, t in pairs)


def _pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    return values[int(rng.integers(len(values)))]
