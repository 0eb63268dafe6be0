"""Texts to dense vectors by hashing the letters of their words, without a model."""

import gzip
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from math import log
from pathlib import Path

import numpy as np

from pipeline.retrieval.embedders import Vectors, normalised
from pipeline.retrieval.words import words

SIZE = 512

COMMON = 1e-6
"""A word that is this part of all words counts whole; one a hundred times as common, a tenth."""

_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 48_894
"""Of the merges in that file, those that CLIP reads."""
_WHOLE = "</w>"


class HashedEmbedder:
    """Words and their letter n-grams, hashed to signed components.

    It knows spellings, not meanings: near for a name written a little differently, far for a
    synonym. Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (2009).
    `weigh` says how much a word counts: by default a name more than what all texts have.
    """

    size = SIZE

    def __init__(self, weigh: Callable[[str], float] | None = None) -> None:
        self._weigh = weigh or rarity

    @property
    def name(self) -> str:
        """Names how words are weighed, too."""
        return f"hashed-{self._weigh.__name__}-{self.size}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, 512]; the same in every process and on every machine."""
        return np.array([self._embed(text) for text in texts]).reshape(-1, self.size)

    def reads_whole(self, _: str) -> bool:
        """Always: there is no window."""
        return True

    def _embed(self, text: str) -> Vectors:
        vector = np.zeros(self.size, dtype=np.float32)
        for word in words(text):
            features = _features(word)
            # a long word counts as much as a short one
            weight = self._weigh(word) / len(features) ** 0.5
            for feature in features:
                code = zlib.crc32(feature.encode())
                vector[code % self.size] += weight if code >> 31 else -weight
        return normalised(vector)


def rarity(word: str) -> float:
    """sqrt(COMMON / frequency), at most 1: of a word that CLIP's vocabulary lacks it is 1.

    Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality"
    (2013), 2.3. The frequency is Zipf's for the word's rank among the texts of CLIP's images.
    """
    rank = _ranks().get(word)
    if rank is None:
        return 1.0
    return float(min(1.0, (COMMON * rank * log(_MERGES)) ** 0.5))


def evenly(_: str) -> float:
    """Every word counts the same: so that texts are alike whose wording is."""
    return 1.0


@cache
def _ranks() -> dict[str, int]:
    """Each word of CLIP's vocabulary by how common it is, from 1: frequent pairs merged first."""
    package = find_spec("open_clip")  # its file alone: importing it loads torch
    assert package
    assert package.origin
    with gzip.open(Path(package.origin).with_name(_VOCABULARY), "rt", encoding="utf-8") as lines:
        next(lines)
        merged = ("".join(line.split()) for line, _ in zip(lines, range(_MERGES), strict=False))
        whole = (word.removesuffix(_WHOLE) for word in merged if word.endswith(_WHOLE))
        return {word: rank for rank, word in enumerate(whole, 1)}


def _features(word: str) -> list[str]:
    """The word itself and its runs of three and four letters, its ends marked."""
    marked = f"<{word}>"
    runs = [marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1)]
    return [f"={word}", *runs]
