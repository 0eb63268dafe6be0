"""Invented brands: many makers of names, and some makers that training never sees."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from examples.shapes.training.writer.words import (
    ADJECTIVES,
    CITIES,
    FIRST_NAMES,
    NOUNS,
    SUFFIXES,
    SURNAMES,
    WORLD_WORDS,
    pick,
    word,
)

Maker = Callable[[np.random.Generator], str]
KNOWLEDGE = Path(__file__).parents[2] / "knowledge"

_ACCENTS = {"a": "áàâäãå", "e": "éèêë", "i": "íîï", "o": "óôöõø", "u": "úûü", "n": "ñ", "c": "ç"}


def _invented(rng: np.random.Generator) -> str:
    return word(rng, 2, 4).capitalize()


def _noun(rng: np.random.Generator) -> str:
    return pick(rng, NOUNS).capitalize()


def _adjective(rng: np.random.Generator) -> str:
    return pick(rng, ADJECTIVES).capitalize()


def _surname(rng: np.random.Generator) -> str:
    return pick(rng, SURNAMES) if rng.random() < 0.5 else word(rng, 1, 3).capitalize()


def _any_word(rng: np.random.Generator) -> str:
    return pick(rng, (_invented, _invented, _noun, _adjective, _surname))(rng)


def _with_suffix(rng: np.random.Generator) -> str:
    return f"{_any_word(rng)} {pick(rng, SUFFIXES)}"


def _two_words(rng: np.random.Generator) -> str:
    return f"{_any_word(rng)} {_any_word(rng)}"


def _three_words(rng: np.random.Generator) -> str:
    return f"{_any_word(rng)} {_any_word(rng)} {pick(rng, SUFFIXES)}"


def _compound(rng: np.random.Generator) -> str:
    first = pick(rng, (_noun, _adjective))(rng)
    return first + pick(rng, NOUNS)


def _partners(rng: np.random.Generator) -> str:
    link = pick(rng, ("&", "&", "and", "+"))
    return f"{pick(rng, (_surname, _noun))(rng)} {link} {pick(rng, (_surname, _noun))(rng)}"


def _camel(rng: np.random.Generator) -> str:
    return _any_word(rng) + pick(rng, (_noun, _invented, _any_word))(rng)


def _possessive(rng: np.random.Generator) -> str:
    owner = pick(rng, (*FIRST_NAMES, _surname(rng)))
    return f"{owner}'s {pick(rng, (_noun(rng), pick(rng, SUFFIXES)))}"


def _capitals(rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        return "".join(pick(rng, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.integers(3, 6)))
    return pick(rng, (_invented, _two_words))(rng).upper()


def _numbered(rng: np.random.Generator) -> str:
    number = int(rng.integers(2, 100))
    return f"{_any_word(rng)} {number}" if rng.random() < 0.7 else f"{number} {_noun(rng)}s"


def _accented(rng: np.random.Generator) -> str:
    name = pick(rng, (_invented, _two_words))(rng)
    spots = [i for i, letter in enumerate(name) if letter in _ACCENTS] or [0]
    i = pick(rng, spots)
    return name[:i] + pick(rng, _ACCENTS.get(name[i], name[i])) + name[i + 1 :]


def _person(rng: np.random.Generator) -> str:
    return f"{pick(rng, FIRST_NAMES)} {_surname(rng)}"


def _placed(rng: np.random.Generator) -> str:
    kind = pick(rng, ("Bank", "Port", "Museum", "University", "Theatre", "Brewery"))
    return f"{kind} of {pick(rng, (pick(rng, CITIES), _invented(rng)))}"


def _article(rng: np.random.Generator) -> str:
    return f"The {_any_word(rng)} {pick(rng, (*SUFFIXES, _noun(rng)))}"


def _glued_trap(rng: np.random.Generator) -> str:
    trap = pick(rng, WORLD_WORDS)
    return trap.capitalize() + pick(rng, (pick(rng, NOUNS), word(rng, 1, 2)))


def _trap_word(rng: np.random.Generator) -> str:
    pair = [pick(rng, WORLD_WORDS).capitalize(), _any_word(rng)]
    rng.shuffle(pair)
    return " ".join(pair) + (f" {pick(rng, SUFFIXES)}" if rng.random() < 0.4 else "")


def _small_letters(rng: np.random.Generator) -> str:
    return pick(rng, (_invented, _compound, _camel))(rng).lower()


def _hyphenated(rng: np.random.Generator) -> str:
    return f"{_any_word(rng)}-{_any_word(rng)}"


def _particle(rng: np.random.Generator) -> str:
    start = pick(rng, ("Casa", "Villa", "Maison", "Hof", "House", "Atelier"))
    return f"{start} {pick(rng, ('de', 'del', 'van', 'von', 'of', 'di'))} {_any_word(rng)}"


def _family(rng: np.random.Generator) -> str:
    return f"{_surname(rng)} {pick(rng, ('Bros', 'Brothers', 'and Sons', '& Daughters', 'Family'))}"


def _domain(rng: np.random.Generator) -> str:
    return f"{word(rng, 1, 3)}.{pick(rng, ('io', 'co', 'app', 'net'))}"


def _prefixed(rng: np.random.Generator) -> str:
    return pick(rng, ("O'", "Mc", "Mac", "St. ", "Van ", "El ")) + _surname(rng)


MAKERS: tuple[Maker, ...] = (
    _invented, _invented, _invented, _with_suffix, _with_suffix, _two_words, _two_words,
    _three_words, _compound, _partners, _partners, _camel, _possessive, _capitals, _numbered,
    _accented, _person, _placed, _article, _glued_trap, _trap_word, _small_letters,
)  # fmt: skip
HELD_OUT_MAKERS: tuple[Maker, ...] = (_hyphenated, _particle, _family, _domain, _prefixed)


def folded(name: str) -> str:
    """The letters and digits of a name in small letters: equal for names spelled differently."""
    return re.sub(r"[\W_]+", "", name.lower())


def known_brands() -> frozenset[str]:
    """The folded names of the example knowledge base, which no training may use."""
    truth = json.loads((KNOWLEDGE / "truth.json").read_text(encoding="utf-8"))
    return frozenset(folded(name) for name in truth)


def brands(
    rng: np.random.Generator,
    count: int,
    makers: tuple[Maker, ...] = MAKERS,
    forbidden: frozenset[str] = frozenset(),
) -> list[str]:
    """`count` names that differ in their letters and of which none contains another."""
    found: list[str] = []
    while len(found) < count:
        name = pick(rng, makers)(rng)
        key = folded(name)
        taken = [folded(other) for other in found]
        if key not in forbidden and not any(key in other or other in key for other in taken):
            found.append(name)
    return found
