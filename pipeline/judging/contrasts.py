"""Briefs that an image was not made for: its own with one word changed, or another row's.

Changed words make the faults that generated images have: another colour, size, number, place or
shape (the foils of Shekhar et al., "FOIL it!", 2017, and of Yuksekgonul et al., "When and why
vision-language models behave like bags-of-words", 2023, which swap words likewise).
"""

import random
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

from pipeline.job import Against, Check, JudgeRequest

OTHER = "another row"
"""Kind of a contrast that is another row's brief."""

CHANGES: tuple[tuple[str, str, str], ...] = (
    ("colour", "red scarlet crimson", "green blue yellow black white"),
    ("colour", "green", "red orange purple black white"),
    ("colour", "blue", "red orange yellow black white"),
    ("colour", "teal turquoise cyan", "red orange yellow black white"),
    ("colour", "yellow golden", "red blue purple green black"),
    ("colour", "orange", "green blue purple black white"),
    ("colour", "purple violet", "green orange yellow black white"),
    ("colour", "pink", "green blue yellow black white"),
    ("colour", "brown", "green blue purple white pink"),
    ("colour", "black", "red green blue yellow white"),
    ("colour", "white", "red green blue yellow black"),
    ("colour", "gray grey silver", "red green blue yellow purple"),
    ("size", "small little tiny", "large"),
    ("size", "large big huge giant", "small"),
    ("size", "tall", "short"),
    ("size", "wide", "narrow"),
    ("size", "narrow", "wide"),
    ("size", "thick", "thin"),
    ("size", "thin", "thick"),
    ("number", "two", "four five"),
    ("number", "three", "five six"),
    ("number", "four", "two seven"),
    ("number", "five", "two three"),
    ("number", "six", "two three"),
    ("place", "left", "right"),
    ("place", "right", "left"),
    ("place", "top", "bottom"),
    ("place", "bottom", "top"),
    ("place", "above", "below"),
    ("place", "below under beneath", "above"),
    ("shape", "circle", "square triangle star heart cross"),
    ("shape", "ring", "square triangle star heart cross"),
    ("shape", "square", "circle triangle star heart ring"),
    ("shape", "diamond", "circle triangle star heart ring"),
    ("shape", "triangle", "circle square star heart ring"),
    ("shape", "star", "circle square triangle heart ring"),
    ("shape", "heart", "circle square triangle star ring"),
    ("shape", "cross", "circle square triangle heart ring"),
)
"""Kind, words, and those that may stand in their place: none is near enough to be taken for it."""

_JOINTS = frozenset(["a", "an", "the", "of", "on", "in", "at", "and", "with"])
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Contrast:
    """A request that an image is wrong for, and the kind of the fault."""

    kind: str
    request: JudgeRequest


def contrasts(
    request: JudgeRequest,
    others: Sequence[JudgeRequest],
    against: Collection[Against],
    count: int,
    seed: int,
) -> list[Contrast]:
    """At most `count` contrasts to a request, of texts that judges read `against`: as many with a
    word changed as there are, the words of the request in turn, and the rest other rows' briefs; of
    two or more one is another row's in any case, where one differs. Equal seeds draw the same.
    """
    rng = random.Random(seed)
    by_word = [rng.sample(each, len(each)) for each in _changed(request, against)]
    rng.shuffle(by_word)
    near = [each for each in chain(*zip_longest(*by_word)) if each]
    far = list[Contrast]()
    most = max(count - len(near), int(count > 1))
    for place in rng.sample(range(len(others)), len(others)):
        if len(far) < most and _apart(request, others[place], against):
            far.append(Contrast(OTHER, others[place]))
    return near[: count - len(far)] + far


def _changed(request: JudgeRequest, against: Collection[Against]) -> Iterator[list[Contrast]]:
    """For each word that may be changed the contrasts that it gives: it has to stand in all texts
    that judges read, and its alternative in none.
    """
    texts = [*(request.words(each) for each in sorted(against))]
    asked = " ".join(check.question for check in request.checks)
    read = [_WORDS.findall(text.lower()) for text in [*texts, *([asked] if asked else [])]]
    for kind, words, alternatives in CHANGES:
        for word in words.split():
            if all(word in each for each in read):
                free = [each for each in alternatives.split() if not any(each in r for r in read)]
                if free:
                    yield [Contrast(kind, _with(request, swapping(word, new))) for new in free]


def swapping(word: str, new: str) -> Callable[[str], str]:
    """The function that puts another word in a word's place, capitals and article included."""
    found = re.compile(rf"\b(?:(an?)(\s+))?({re.escape(word)})\b", re.IGNORECASE)

    def put(match: re.Match[str]) -> str:
        article, gap, old = match.groups()
        put = new.upper() if old.isupper() else new.capitalize() if old[0].isupper() else new
        if not article:
            return put
        fit = "an" if new[0] in "aeiou" else "a"
        return f"{fit.capitalize() if article[0].isupper() else fit}{gap}{put}"

    return lambda text: found.sub(put, text)


def _with(request: JudgeRequest, change: Callable[[str], str]) -> JudgeRequest:
    return replace(
        request,
        prompt=change(request.prompt),
        text=change(request.text),
        keywords=change(request.keywords),
        checks=tuple(Check(question=change(c.question), kind=c.kind) for c in request.checks),
    )


def _apart(request: JudgeRequest, other: JudgeRequest, against: Collection[Against]) -> bool:
    """True where each of the two says something that the other does not, in every text."""
    said = [
        [{*_WORDS.findall(each.words(name).lower())} - _JOINTS for each in (request, other)]
        for name in against
    ]
    return all(own - theirs and theirs - own for own, theirs in said)
