"""Cuts a text into passages."""

import re
import textwrap

from pipeline.retrieval.sources.cleaning import cleaned, one_line
from pipeline.retrieval.sources.texts import Text

LONGEST = 1200
"""Characters of a passage; a longer text becomes several."""

_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCES = re.compile(r"(?<=[.!?…。])\s+")


def pieces(text: Text) -> list[Text]:
    """The text cleaned, in passages of at most LONGEST characters; its image goes with the first.

    Whole paragraphs are packed together; one that is too long is cut at its sentences, and a
    sentence that is too long at its words. Empty if nothing is left of a text without an image.
    """
    tidy = {
        "title": one_line(text.title),
        "source": one_line(text.source, addresses=True),
        "license": one_line(text.license, addresses=True),
        "tags": tuple(filter(None, map(one_line, text.tags))),
    }
    packed = list[str]()
    for paragraph in filter(None, map(str.strip, _PARAGRAPHS.split(cleaned(text.text)))):
        joint = "\n\n"
        for sentence in [paragraph] if len(paragraph) <= LONGEST else _SENTENCES.split(paragraph):
            for part in textwrap.wrap(sentence, LONGEST) if len(sentence) > LONGEST else [sentence]:
                if packed and len(packed[-1]) + len(joint) + len(part) <= LONGEST:
                    packed[-1] += joint + part
                else:
                    packed.append(part)
                joint = " "
    parts = packed or ([""] if text.image else [])
    images = [text.image] + [None] * len(parts)
    return [
        text.model_copy(update={**tidy, "text": part, "image": image})
        for part, image in zip(parts, images, strict=False)
    ]
