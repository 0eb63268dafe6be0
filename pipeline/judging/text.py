"""Judges images by the words in them: a vision-language model reads those, and they are compared
with the words that the job's text has in quotes.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import permutations
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.errors import NothingToJudge
from pipeline.job import ImageArray, JudgeRequest, Score
from pipeline.judging.replies import MOST, Replies, ReplyingJudgeProfile
from pipeline.media.checks import says_something
from pipeline.models import Models

LONGEST = 200
"""Characters of a quotation."""
ORDERED = 4
"""Quotations from which on they are compared in the text's order alone."""

_MARKS, _APOSTROPHES = '"“”„‟«»「」『』', "'‘’‚"
_QUOTED = re.compile(
    rf"(?<!\d)\"(?!\s)([^\"]{{1,{LONGEST}}})(?<!\s)\""
    rf"|[“”„‟]([^“”„‟]{{1,{LONGEST}}})[“”]"
    rf"|[«»]([^«»]{{1,{LONGEST}}})[«»]"
    rf"|「([^「」]{{1,{LONGEST}}})」|『([^『』]{{1,{LONGEST}}})』"
    # an apostrophe inside a word, or at an 'n' that stands for "and", is none of these marks
    r"|(?<!\w)'(?!\s|[nN]')"
    r"((?:[^']|(?<=\w)'(?=\w)|(?<=\s)'(?=[nN]'\s)|(?<=\s'[nN])'(?=\s))"
    rf"{{1,{LONGEST}}})(?<!\s)'(?!\w)"
    rf"|[‘‚]((?:[^‘‚’]|(?<=\w)’(?=\w)){{1,{LONGEST}}})[’‘](?!\w)"
)


class TextJudgeProfile(ReplyingJudgeProfile):
    """A model that reads the words in images, and the calibration of their likeness."""

    kind: Literal["text"] = "text"
    instruction: str = Field(
        default="Read the text in this image. Reply with that text alone.",
        min_length=1,
        max_length=MOST,
        description="to the model",
    )


class TextJudge:
    """The Judge port over a model that reads."""

    def __init__(self, models: Models, profile: TextJudgeProfile) -> None:
        self._replies, self._against = Replies(models, profile), profile.against

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order; `raw` is the likeness of the words read to the wanted
        ones, 0..1. Raises NothingToJudge for a job whose text quotes none.
        """
        # a part of a text has lost its quotations
        wanted = quotations((request.whole or request).words(self._against))
        if not wanted:
            raise NothingToJudge(f"the {self._against} quotes no words")
        return self._replies.scores(images, lambda said: [likeness(wanted, text) for text in said])


def quotations(text: str) -> list[str]:
    """The words in quotes in a text, each once, in order: in "straight", 'single' and typographic
    quotation marks of any language.
    """
    found = ("".join(filter(None, groups)) for groups in _QUOTED.findall(text))
    return list(dict.fromkeys(words for words in found if says_something(words)))


def likeness(wanted: Sequence[str], read: str) -> float:
    """The likeness of the text that was read to all the wanted ones, in their likeliest order: 1
    less the edits between them by the characters of the longer one, 0..1, and 1 where it is exactly
    those. Case, spaces, Unicode's compatible forms and quotation marks make no difference.

    Source: the normalised Levenshtein similarity of Biten et al., "Scene Text Visual Question
    Answering" (2019, arXiv:1905.13648).
    """
    texts, found = [_normalised(each) for each in wanted], _normalised(read)
    orders = permutations(texts) if len(texts) < ORDERED else [texts]
    longer = max(len(" ".join(texts)), len(found))
    return 1 - min(_edits(" ".join(order), found) for order in orders) / longer


def _edits(one: str, other: str) -> int:
    """The fewest characters that have to be put in, left out or replaced (Levenshtein, 1966), row
    by row of the table by Wagner and Fischer (1974).
    """
    letters = np.array([ord(each) for each in other], np.int64)
    places = np.arange(len(other) + 1)
    row = places
    for letter in map(ord, one):
        replaced = np.concatenate([row[:1] + 1, row[:-1] + (letters != letter)])
        row = np.minimum(replaced, row + 1)
        row = np.minimum.accumulate(row - places) + places
    return int(row[-1])


def _normalised(text: str) -> str:
    bare = text.translate(dict.fromkeys(map(ord, _MARKS), " ")).strip(f"{_APOSTROPHES} ")
    return " ".join(unicodedata.normalize("NFKC", bare).casefold().split())
