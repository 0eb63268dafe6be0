"""Prompts as text encoders read them. Without torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.emphasis import Part, Sections, plain, sections_of

MARK = "\U000f0000"
"""The first of the characters, for private use, that stand for vectors in the place of tokens."""
KEPT_TOGETHER = re.compile(f"([{MARK}-\U000ffffd]+)")
"""Such characters in a row: they are read in one chunk."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as its text encoders read it: the parts of each of its sections, which `BREAK`
    divides. It takes `chunks` windows of each text encoder that reads in chunks, or fewer.
    """

    sections: Sections
    chunks: int = 1

    @property
    def plain(self) -> str:
        """Its words, without the syntax."""
        return plain(self.sections)

    @property
    def weighted(self) -> bool:
        """True where it says more than its plain words."""
        weights = {part.weight for section in self.sections for part in section}
        return len(self.sections) > 1 or not weights <= {1.0}


def as_it_stands(texts: Sequence[str]) -> list[Prompt]:
    """Prompts without a syntax."""
    return [Prompt(((Part(text),),)) for text in texts]


def read_weights(text: str) -> Prompt:
    """A prompt in the syntax of weights. Raises JobError for a weight that is too large."""
    return Prompt(sections_of(text))
