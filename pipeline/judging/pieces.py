"""Splitting of a long text into pieces that fit a judge's context."""

import re
from collections.abc import Callable

CUTS = (
    re.compile(r"(?<=[.!?])\s+|\n+"),
    re.compile(r"(?<=[;:,])\s+"),
    re.compile(r"\s+"),
    re.compile(r"(?<=.)(?=.)"),
)
"""Places to cut, best first: sentences, clauses, words, and characters as a last resort."""


def pieces(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text in pieces that each fit, cut at the best places; at least one.

    A single character that doesn't fit is returned as it is.
    """
    return _cut(text.strip(), fits, 0)


def _cut(text: str, fits: Callable[[str], bool], level: int) -> list[str]:
    if level == len(CUTS) or fits(text):
        return [text]
    parts = [part for part in CUTS[level].split(text) if part]
    joint = "" if level == len(CUTS) - 1 else " "
    packed = _pack(parts, joint, fits)
    return [piece for part in packed for piece in _cut(part, fits, level + 1)]


def _pack(parts: list[str], joint: str, fits: Callable[[str], bool]) -> list[str]:
    """Join neighbours while they fit together."""
    packed = parts[:1]
    for part in parts[1:]:
        joined = packed[-1] + joint + part
        if fits(joined):
            packed[-1] = joined
        else:
            packed.append(part)
    return packed
