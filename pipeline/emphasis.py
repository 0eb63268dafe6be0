r"""Weights of words in a prompt, in A1111's syntax.

`(word)` weighs 1.1, `[word]` 1 / 1.1, `(word:1.3)` its number; brackets in brackets multiply.
`BREAK` begins a new section. A backslash before a bracket or a backslash makes it an ordinary
character. A bracket that closes nothing is one too, and one that is never closed reaches to the
text's end. (https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features,
"Attention/emphasis")
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from pipeline.errors import JobError

MOST_WEIGHT = 10.0
STRONGER = 1.1
"""Weight of a pair of round brackets; square ones divide by it."""

_SIGN = re.compile(
    r"\\(?P<escaped>[()\[\]\\])"
    r"|(?P<sign>[()\[\]])"
    r"|:\s{0,9}(?P<weight>[+-]?(?:\d{1,3}\.?\d{0,6}|\.\d{1,6}))\s{0,9}\)"
)
_BREAK = re.compile(r"\s{0,9}\bBREAK\b\s{0,9}")


class Part(NamedTuple):
    """Words of a prompt, and their weight."""

    text: str
    weight: float = 1.0


Sections = tuple[tuple[Part, ...], ...]
"""The parts of each section of a prompt."""


def sections_of(text: str) -> Sections:
    """The weighted words of a prompt, section by section. Raises JobError for a weight that is too
    large.
    """
    parts = list(_weighted(text))
    sections: list[list[Part]] = [[]]
    for weight, equal in groupby(parts, key=lambda part: part.weight):
        first, *later = _BREAK.split("".join(part.text for part in equal))
        sections[-1].append(Part(first, weight))
        sections += [[Part(words, weight)] for words in later]
    # never true of a product that is no number
    if not all(abs(part.weight) <= MOST_WEIGHT for part in parts):
        raise JobError(f"a weight of words is beyond {MOST_WEIGHT:g}")
    return tuple(tuple(part for part in each if part.text) for each in sections)


def plain(sections: Sequence[Sequence[Part]]) -> str:
    """The words of a prompt, without the syntax."""
    return " ".join("".join(part.text for part in each) for each in sections if each)


def _weighted(text: str) -> Iterator[Part]:
    """The text in pieces, each with the product of the brackets around it."""
    pieces, weights = list[str](), list[float]()
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def add(piece: str) -> None:
        if piece:
            pieces.append(piece)
            weights.append(1.0)

    def weigh(first: int, weight: float) -> None:
        weights[first:] = [each * weight for each in weights[first:]]

    end = 0
    for found in _SIGN.finditer(text):
        add(text[end : found.start()])
        end, sign = found.end(), found["sign"]
        if found["escaped"]:
            add(found["escaped"])
        elif sign in opened:
            opened[sign].append(len(pieces))
        elif sign == "]" and opened["["]:
            weigh(opened["["].pop(), 1 / STRONGER)
        elif sign != "]" and opened["("]:
            weigh(opened["("].pop(), float(found["weight"] or STRONGER))
        else:
            add(found[0])
    add(text[end:])
    for first in opened["("]:
        weigh(first, STRONGER)
    for first in opened["["]:
        weigh(first, 1 / STRONGER)
    return map(Part, pieces, weights)
