"""Cuts a text into passages."""

import re
import textwrap
from collections.abc import Iterator

from pipeline.retrieval.sources.cleaning import cleaned, one_line
from pipeline.retrieval.sources.texts import Text

LONGEST = 1200
"""Letters of a passage; a longer text becomes several."""

_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCES = re.compile(r"(?<=[.!?…。])\s+")


def pieces(text: Text) -> list[Text]:
    """The text cleaned, in passages of at most LONGEST letters; its image goes with the first.

    Empty where nothing is left of a text without an image.
    """
    tidy = {
        "title": one_line(text.title),
        "source": one_line(text.source, addresses=True),
        "license": one_line(text.license, addresses=True),
        "tags": tuple(filter(None, map(one_line, text.tags))),
    }
    parts = _split(cleaned(text.text)) or ([""] if text.image else [])
    images = [text.image] + [None] * len(parts)
    return [
        text.model_copy(update={**tidy, "text": part, "image": image})
        for part, image in zip(parts, images, strict=False)
    ]


def _split(text: str) -> list[str]:
    """Whole paragraphs packed together; one that is too long alone at its sentences or words."""
    packed = list[str]()
    for part, joint in _parts(text):
        if packed and len(packed[-1]) + len(joint) + len(part) <= LONGEST:
            packed[-1] += joint + part
        else:
            packed.append(part)
    return packed


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """The smallest parts needed, each with what joins it to the one before."""
    for paragraph in filter(None, map(str.strip, _PARAGRAPHS.split(text))):
        joint = "\n\n"
        for sentence in [paragraph] if len(paragraph) <= LONGEST else _SENTENCES.split(paragraph):
            for line in textwrap.wrap(sentence, LONGEST) if len(sentence) > LONGEST else [sentence]:
                yield line, joint
                joint = " "
