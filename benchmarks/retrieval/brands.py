"""Invented brands, what a knowledge base holds about them, and how one asks for them.

Sentences and names are made as for the writer's training, from seeds that no training used. Beside
each brand's fact stand notes about the same brand, facts of brands with nearly the same name,
passages that name several brands, and house rules.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from examples.shapes.training.writer.looks import Look, sample_look
from examples.shapes.training.writer.names import brands, folded
from examples.shapes.training.writer.passages import TITLE, Taste, fact, guide, note, unmarked
from examples.shapes.training.writer.words import CITIES, SUFFIXES, pick

Row = dict[str, Any]
Form = Callable[[str, np.random.Generator], str]

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHORTEST = 4
"""Letters of a word that is misspelled: of shorter ones nothing would be left."""
SEVERAL = (
    "{0} and {1} share an office in {city}.",
    "{0}, {1} and {2} were at the fair in {city}.",
    "{0} sold its shop in {city} to {1}.",
    "The catalogue of {city} lists {0}, {1} and {2}.",
)


@dataclass(frozen=True)
class Brand:
    """A brand whose look one fact tells; that fact's source is known by its name."""

    name: str
    look: Look
    source: str


@dataclass(frozen=True)
class Book:
    """Brands, and the rows of a knowledge base about them."""

    brands: Sequence[Brand]
    rows: Sequence[Row]


def book(rng: np.random.Generator, count: int, taste: Taste, *, crowded: bool = False) -> Book:
    """A book of brands with their facts, two notes about each and some house rules.

    In a `crowded` one each second brand has a neighbour of nearly its name, with a fact of its own,
    and many passages name several brands.
    """
    names = brands(rng, count, taste.makers, taste.forbidden)
    known = [Brand(name, sample_look(rng), f"brandbook/{at}.md") for at, name in enumerate(names)]
    rows = [_row(fact(b.name, b.look, False, taste, rng), b.source) for b in known]
    rows += [
        _row(note(name, False, taste, rng), f"press/{at}-{number}.md")
        for at, name in enumerate(names)
        for number in range(2)
    ]
    rows += [_row(guide(rng), f"house/{at}.md") for at in range(count // 5)]
    if crowded:
        rows += _neighbours(names, taste, rng) + _of_several(names, rng)
    return Book(known, rows)


def copies(row: Row, rng: np.random.Generator) -> list[Row]:
    """Two more of a row, each changed a little."""
    text = row["text"]
    changed = (text.rstrip("."), f"{text} {pick(rng, ('Reprinted', 'As before', 'See above'))}.")
    return [
        row | {"text": each, "source": f"{row['source']}#{number}"}
        for number, each in enumerate(changed, 2)
    ]


def misspelled(name: str, rng: np.random.Generator) -> str:
    """The name with a letter lost, doubled or swapped with the next in one of its longer words."""
    words = name.split(" ")
    long = [at for at, word in enumerate(words) if len(word) >= SHORTEST and word.isalpha()]
    if not long:
        return name
    at = pick(rng, long)
    word, spot = words[at], int(rng.integers(1, len(words[at]) - 1))
    before, letter, after = word[:spot], word[spot], word[spot + 1 :]
    words[at] = pick(
        rng, (before + after, before + 2 * letter + after, before + after[0] + letter + after[1:])
    )
    return " ".join(words)


FORMS: dict[str, Form] = {
    "plain": lambda name, _: f"{name} logo",
    "capitals": lambda name, _: f"THE {name.upper()} SYMBOL",
    "small": lambda name, _: f"a poster icon for {name.lower()}",
    "possessive": lambda name, _: f"{name}'s emblem",
    "misspelled": lambda name, rng: f"{misspelled(name, rng)} logo",
}
"""How a brand is asked for."""
SPELLED = ("plain", "capitals", "small", "possessive")
"""The forms that spell the name as it is."""


def asked(brand: Brand, rng: np.random.Generator) -> str:
    """Keywords that ask for the brand's logo."""
    return FORMS[pick(rng, SPELLED)](brand.name, rng)


def _neighbours(names: Sequence[str], taste: Taste, rng: np.random.Generator) -> list[Row]:
    taken = {folded(name) for name in names}
    near = {_near(name, rng) for name in names[::2]}
    return [
        _row(fact(name, sample_look(rng), False, taste, rng), f"near/{at}.md")
        for at, name in enumerate(sorted(near))
        if folded(name) not in taken
    ]


def _near(name: str, rng: np.random.Generator) -> str:
    """Another brand's name: one letter differs, or it is the plural, or a word longer."""
    form = rng.integers(3)
    if form == 0:
        spots = [at for at, letter in enumerate(name) if letter.isalpha()]
        spot = pick(rng, spots[1:] or spots)
        letter = pick(rng, LETTERS)
        return name[:spot] + (letter.upper() if name[spot].isupper() else letter) + name[spot + 1 :]
    return f"{name}s" if form == 1 else f"{name} {pick(rng, SUFFIXES)}"


def _of_several(names: Sequence[str], rng: np.random.Generator) -> list[Row]:
    """Half as many passages as brands; each names two or three of them."""
    told = [
        pick(rng, SEVERAL).format(*rng.choice(names, 3, replace=False), city=pick(rng, CITIES))
        for _ in range(len(names) // 2)
    ]
    return [{"text": text, "source": f"fair/{at}.md"} for at, text in enumerate(told)]


def _row(marked: str, source: str) -> Row:
    title, _, text = unmarked(marked)[0].rpartition(TITLE)
    return {"title": title, "text": text, "source": source}
