"""Scenes as sentences."""

import numpy as np

from examples.shapes.world.scene import ALL, Scene, Thing, pick

_AT = {
    "left": ("on the left", "at the left", "on the left side", "to the left"),
    "right": ("on the right", "at the right", "on the right side", "to the right"),
    "top": ("at the top", "on the top", "near the top"),
    "bottom": ("at the bottom", "on the bottom", "near the bottom"),
    "center": ("in the center", "in the middle", "in the centre", "at the center"),
}
BESIDE = ("beside", "next to", "to the left of")
ABOVE = ("above", "over", "on top of")
TURNED = {"beside": ("to the right of",), "above": ("below", "under", "beneath")}
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
    text = text + pick(rng, _CLOSINGS) if rng.random() < 0.2 else text
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
        return pick(rng, ("{} logo, {}", "the {} logo: {}", "a logo for {}, {}")).format(
            brand(rng), text
        )
    return pick(rng, _OPENINGS) + text


def brand(rng: np.random.Generator) -> str:
    """An invented brand name of two or three syllables."""
    return "".join(pick(rng, _SYLLABLES) for _ in range(rng.integers(2, 4))).capitalize()


def _respelled(text: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        text = text.replace("gray", "grey")
    return text[:1].upper() + text[1:] if rng.random() < 0.15 else text


def _one(scene: Scene, said: frozenset[str], rng: np.random.Generator) -> str:
    """A single object: as a sentence, with the background first, or as a list of its traits."""
    thing = scene.things[0]
    size = pick(rng, _SIZE_WORDS[thing.size]) if thing.size and "size" in said else None
    colour = thing.colour if "colour" in said else None
    place = pick(rng, _AT[thing.position]) if thing.position and "position" in said else None
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
        link = pick(rng, ("and", "and", "with"))
    elif rng.random() < 0.25:
        a, b, link = b, a, pick(rng, TURNED[scene.arrangement or "beside"])
    else:
        link = pick(rng, BESIDE if scene.arrangement == "beside" else ABOVE)
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
    return pick(rng, phrases).replace("A", _a(name)).replace("N", name)
