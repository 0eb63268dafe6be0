"""The phrases of a text that an image does not show, found with an image-text score alone.

A phrase is missing if the image passes without it; each is left out in turn. Phrases are not
scored by themselves, because small judges know whole captions only.
"""

import re
from collections.abc import Callable

PARTS = 12
"""Most phrases of a text that are tried, the first ones."""

_BETWEEN = re.compile(
    r"(?<=[^\s,;.])"
    r"(?=(?:\s*[,;.]\s*|\s+(?:with|and|on|in|at|under|above|below|beside|behind|before)\s)\S)"
)
_JOINT = re.compile(r"^[\s,;.]+|(?<![\s,;.])[\s,;.]+$")


def parts(text: str) -> list[str]:
    """A caption's phrases, each with the word or comma that joins it to the one before."""
    return _BETWEEN.split(text)


def missing_phrases(text: str, passes: Callable[[str], bool]) -> tuple[str, ...]:
    """The missing phrases of an image that does not pass with the whole text; the whole text where
    no single phrase explains it, for example because the subject is wrong.
    """
    phrases = parts(text)
    tried = range(min(len(phrases), PARTS)) if len(phrases) > 1 else ()
    missed = [at for at in tried if passes(_tidy("".join(phrases[:at] + phrases[at + 1 :])))]
    return tuple(_tidy(phrases[at]) for at in missed) or (text,)


def _tidy(text: str) -> str:
    return _JOINT.sub("", text)
