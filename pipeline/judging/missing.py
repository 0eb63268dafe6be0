"""What of a text an image lacks, told by a judge who knows only how well image and text agree.

A part lacks where the image would pass but for it: each is left out in turn. Small judges know
whole captions alone, so that a part is not asked for by itself.
"""

import re
from collections.abc import Callable

PARTS = 12
"""Of a longer text, the first ones are tried."""

_BETWEEN = re.compile(
    r"(?<=[^\s,;.])"
    r"(?=(?:\s*[,;.]\s*|\s+(?:with|and|on|in|at|under|above|below|beside|behind|before)\s)\S)"
)
_JOINT = re.compile(r"^[\s,;.]+|(?<![\s,;.])[\s,;.]+$")


def parts(text: str) -> list[str]:
    """A caption's phrases, each with the word or comma that ties it to the one before."""
    return _BETWEEN.split(text)


def missing_phrases(text: str, passes: Callable[[str], bool]) -> tuple[str, ...]:
    """The phrases that an image lacks, which does not pass with the whole text; the whole text
    where leaving out no single phrase explains it, as it does not where the subject is wrong.
    """
    phrases = parts(text)
    tried = range(min(len(phrases), PARTS)) if len(phrases) > 1 else ()
    missed = [at for at in tried if passes(_tidy("".join(phrases[:at] + phrases[at + 1 :])))]
    return tuple(_tidy(phrases[at]) for at in missed) or (text,)


def _tidy(text: str) -> str:
    return _JOINT.sub("", text)
