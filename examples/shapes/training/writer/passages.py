"""Passages of an invented knowledge base: facts about looks, notes without a look, house rules.

While they are built, passages carry marks: private characters around each brand and each look, from
which the training's probes learn what to attend to. `unmarked` takes them out.
"""

import re
from dataclasses import dataclass

import numpy as np

from examples.shapes.training.writer.grammar import (
    FACTS,
    HELD_OUT_FACTS,
    SCRAMBLED_FACTS,
    WORDS,
    Grammar,
)
from examples.shapes.training.writer.looks import (
    HELD_OUT,
    SPOKEN,
    VARIED,
    Look,
    Phrasing,
    describe,
)
from examples.shapes.training.writer.names import HELD_OUT_MAKERS, MAKERS, Maker, known_brands
from examples.shapes.training.writer.notes import COMPANY, GUIDES, TITLES
from examples.shapes.training.writer.words import (
    CITIES,
    FIRST_NAMES,
    SURNAMES,
    WORLD_WORDS,
    any_word,
    pick,
    word,
)
from examples.shapes.world import BACKGROUNDS, COLOURS, SHAPES, SIZES

ASKED_BRAND, OTHER_BRAND, ASKED_LOOK, OTHER_LOOK = "\ue001", "\ue002", "\ue003", "\ue004"
PASSAGE, END = "\ue005", "\ue006"
TITLE = "\ue007"
"""Stands between a passage's title and its text."""
TITLED = 0.5
_MARKED = re.compile("[\ue001-\ue006]")
_SYMBOL = re.compile(r"\{(\w+)\}")
_PLAIN_WORD = re.compile(r"\b[a-z]{3,}\b")
_KEPT = frozenset(
    (
        *WORLD_WORDS, *(shape + "s" for shape in SHAPES), "disc", "rhombus", "plus", "sign", "five",
        "pointed", "little", "tiny", "big", "huge", "left", "right", "top", "bottom", "center",
        "centre", "middle", "centered", "centred", "above", "under", "beneath", "underneath",
        "over", "higher", "beside", "next", "side", "alongside", "shape", "form", "figure",
        "colour", "color", "size", "position", "ground", "backdrop", "field", "below", "grey",
        "and", "background", "behind", "with", "coloured", "colored", "logo", "the", "first",
        "second",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Taste:
    """The sentences, words for looks and makers of names in use, and the names that are not.

    In the share `noise` of the sentences other words stand for some that tell no look, so that
    none of those is relied on.
    """

    grammar: Grammar
    phrasing: Phrasing
    makers: tuple[Maker, ...]
    forbidden: frozenset[str]
    noise: float = 0.0


def training_taste() -> Taste:
    """The taste for training, without the names of the example knowledge base."""
    grammar = WORDS | COMPANY | TITLES | {**FACTS, "fact": FACTS["fact"] + SCRAMBLED_FACTS}
    return Taste(grammar, VARIED, MAKERS, known_brands(), noise=0.2)


def plain_taste() -> Taste:
    """Training's phrasings as people write them, without words that mean nothing."""
    return Taste(WORDS | COMPANY | FACTS | TITLES, SPOKEN, MAKERS, known_brands())


def held_out_taste() -> Taste:
    """Phrasings and kinds of names that training never sees."""
    grammar = WORDS | COMPANY | FACTS | TITLES | HELD_OUT_FACTS
    return Taste(grammar, HELD_OUT, HELD_OUT_MAKERS, known_brands())


def fact(brand: str, look: Look, asked: bool, taste: Taste, rng: np.random.Generator) -> str:
    """A marked passage that tells the brand's look, sometimes between other sentences."""
    described = describe(look, rng, taste.phrasing)
    marked = (ASKED_LOOK if asked else OTHER_LOOK) + described + END
    text = _say("fact", brand, asked, taste, rng, look=marked)
    if rng.random() < 0.15:
        text = f"{_say('note', brand, asked, taste, rng)} {text}"
    if rng.random() < 0.15:
        text = f"{text} {_say('note', brand, asked, taste, rng)}"
    return _titled("fact_title", text, brand, asked, taste, rng)


def note(brand: str, asked: bool, taste: Taste, rng: np.random.Generator) -> str:
    """A marked passage about the brand that doesn't tell its look, at times with words that do."""
    text = _say("note", brand, asked, taste, rng)
    return _titled("note_title", text, brand, asked, taste, rng)


def guide(rng: np.random.Generator) -> str:
    """A house rule that names no brand."""
    text = _cased(_expand("guide", WORDS | GUIDES, {}, rng))
    if rng.random() > TITLED:
        return text
    return _cased(_expand("guide_title", WORDS | TITLES, {}, rng)) + TITLE + text


def _titled(
    symbol: str, text: str, brand: str, asked: bool, taste: Taste, rng: np.random.Generator
) -> str:
    """The passage with a title before it, or without one."""
    if rng.random() > TITLED:
        return text
    return _cased(_expand(symbol, taste.grammar, {"b": _named(brand, asked)}, rng)) + TITLE + text


def _named(brand: str, asked: bool) -> str:
    return (ASKED_BRAND if asked else OTHER_BRAND) + brand + END


def _say(
    symbol: str, brand: str, asked: bool, taste: Taste, rng: np.random.Generator, look: str = ""
) -> str:
    text = _expand(symbol, taste.grammar, {"b": _named(brand, asked), "look": look}, rng)
    text = _noisy(text, rng) if rng.random() < taste.noise else text
    if rng.random() < 0.06 and text.endswith("."):
        text = text[:-1]
    return _cased(text) if rng.random() < 0.95 else text


def _expand(symbol: str, grammar: Grammar, given: dict[str, str], rng: np.random.Generator) -> str:
    if symbol in given:
        return given[symbol]
    if symbol not in grammar:
        return _terminal(symbol, rng)
    return _SYMBOL.sub(lambda m: _expand(m[1], grammar, given, rng), pick(rng, grammar[symbol]))


def _terminal(symbol: str, rng: np.random.Generator) -> str:
    """A date, number, name or word that any sentence may hold."""
    match symbol:
        case "year":
            return str(rng.integers(1780, 2027))
        case "n":
            return _number(rng)
        case "price":
            return _price(rng)
        case "city":
            return pick(rng, CITIES) if rng.random() < 0.7 else word(rng, 2, 4).capitalize()
        case "person":
            family = pick(rng, SURNAMES) if rng.random() < 0.6 else word(rng, 1, 4).capitalize()
            return f"{pick(rng, FIRST_NAMES)} {family}"
        case "word":
            return any_word(rng)
    return pick(
        rng, {"c": tuple(COLOURS), "g": tuple(BACKGROUNDS), "shape": SHAPES, "size": SIZES}[symbol]
    )


def _number(rng: np.random.Generator) -> str:
    value = int(10 ** rng.uniform(0.3, 5))
    form = rng.random()
    if form < 0.75:
        return str(value)
    return f"{value:,}" if form < 0.9 else f"{value / 10:.1f}"


def _price(rng: np.random.Generator) -> str:
    form = pick(
        rng, ("{} euros", "{} dollars", "{} pounds", "€{}", "${}", "£{}", "{} yen", "{} million")
    )
    return form.format(_number(rng))


def _noisy(text: str, rng: np.random.Generator) -> str:
    """The text with other words for some that tell no look."""
    share = rng.uniform(0.1, 0.6)
    pieces = re.split("([\ue001\ue002][^\ue006]*\ue006)", text)
    for i in range(0, len(pieces), 2):
        pieces[i] = _PLAIN_WORD.sub(lambda m: _other_word(m[0], share, rng), pieces[i])
    return "".join(pieces)


def _other_word(found: str, share: float, rng: np.random.Generator) -> str:
    if found in _KEPT or rng.random() > share:
        return found
    return any_word(rng)


def _cased(text: str) -> str:
    """A capital at the start and after each full stop, but for brands."""
    return re.sub(
        r"(^|\. |\? )([\ue003\ue004]?)([a-z])", lambda m: m[1] + m[2] + m[3].upper(), text
    )


def unmarked(text: str) -> tuple[str, list[tuple[str, int, int]]]:
    """The plain text, and per mark its kind, start and end in the plain text."""
    plain: list[str] = []
    spans: list[tuple[str, int, int]] = []
    open_marks: list[tuple[str, int]] = []
    at = end = 0
    for found in _MARKED.finditer(text):
        plain.append(text[end : found.start()])
        at, end = at + found.start() - end, found.end()
        if found[0] == END:
            kind, start = open_marks.pop()
            spans.append((kind, start, at))
        else:
            open_marks.append((found[0], at))
    return "".join((*plain, text[end:])), spans
