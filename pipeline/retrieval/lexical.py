"""Texts to vectors by their words alone: BM25 as sparse vectors, hashed n-grams as dense ones.

Of BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009,
3.2) the document's half is here; Qdrant multiplies with the inverse document frequency.
"""

import gzip
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from math import log
from pathlib import Path

import numpy as np
from qdrant_client.models import SparseVector

from pipeline.retrieval.embedders import Vectors, normalised

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_POSSESSIVE = re.compile(r"['’]s$")
_APOSTROPHE = re.compile(r"['’]")

_STOP_WORDS = """
a an and are as at be by for from has have he her his i in is it its me my of on or our she that
the their them they this to was we were what which who will with you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

K1 = 1.2
B = 0.75
TYPICAL_WORDS = 40
"""Usual number of words of a passage. A constant, so that no vector depends on other passages."""

SIZE = 512
COMMON = 1e-6
"""Frequency up to which a word has weight 1; at a hundred times as much it has a tenth."""
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 48_894
"""Merges that CLIP reads of its vocabulary file."""
_WHOLE = "</w>"


def words(text: str) -> list[str]:
    """The words of a text in order: folded case and accents, no possessive 's, no stop words."""
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    folded = "".join(letter for letter in apart if not unicodedata.combining(letter))
    found = (_POSSESSIVE.sub("", word) for word in _WORD.findall(folded))
    joined = (_APOSTROPHE.sub("", word) for word in found)
    return [word for word in joined if word not in STOP_WORDS]


def document_vector(text: str) -> SparseVector:
    """The weight of each word of a passage: saturating in its count, less in long passages."""
    found = words(text)
    flatten = K1 * (1 - B + B * len(found) / TYPICAL_WORDS)
    weights = dict[int, float]()
    for word, count in Counter(found).items():
        weight = count * (K1 + 1) / (count + flatten)
        # words with the same hash add up
        weights[_index(word)] = weights.get(_index(word), 0.0) + weight
    return SparseVector(indices=list(weights), values=list(weights.values()))


def query_vector(text: str) -> SparseVector:
    """Weight 1 for each word of a query, however often it occurs."""
    indices = list(dict.fromkeys(map(_index, words(text))))
    return SparseVector(indices=indices, values=[1.0] * len(indices))


def _index(word: str) -> int:
    return zlib.crc32(word.encode())


class HashedEmbedder:
    """An Embedder without a model: words and their letter n-grams, hashed to signed components.

    It compares spellings, not meanings: near for a name written a little differently, far for a
    synonym. Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (2009).
    `weigh` is the weight of a word: by default names count more than common words.
    """

    size = SIZE

    def __init__(self, weigh: Callable[[str], float] | None = None) -> None:
        self._weigh = weigh or rarity

    @property
    def name(self) -> str:
        """The embedder's name, the weighting included."""
        return f"hashed-{self._weigh.__name__}-{self.size}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, 512]; the same in every process and on every machine."""
        vectors = np.zeros((len(texts), self.size), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in words(text):
                marked = f"<{word}>"
                runs = [marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1)]
                features = [f"={word}", *runs]
                # a long word counts as much as a short one
                weight = self._weigh(word) / len(features) ** 0.5
                for feature in features:
                    code = zlib.crc32(feature.encode())
                    vector[code % self.size] += weight if code >> 31 else -weight
            vector[:] = normalised(vector)
        return vectors

    def reads_whole(self, _: str) -> bool:
        """Always true: no text is cut."""
        return True


def rarity(word: str) -> float:
    """sqrt(COMMON / frequency), at most 1; 1 for a word that is not in CLIP's vocabulary.

    Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality"
    (2013), 2.3.
    """
    share = frequency(word)
    return min(1.0, (COMMON / share) ** 0.5) if share else 1.0


def frequency(word: str) -> float:
    """A word's share of all words in CLIP's captions, by its rank there and Zipf's law; 0 for one
    that is not in CLIP's vocabulary.
    """
    rank = _ranks().get(word)
    return 1 / (rank * log(_MERGES)) if rank else 0.0


def evenly(_: str) -> float:
    """The same weight for every word, so that texts of similar wording are near each other."""
    return 1.0


@cache
def _ranks() -> dict[str, int]:
    """The words of CLIP's vocabulary by rank, the most common at 1: byte pair encoding merges
    frequent pairs first.
    """
    package = find_spec("open_clip")  # only its file: importing it loads torch
    assert package
    assert package.origin
    with gzip.open(Path(package.origin).with_name(_VOCABULARY), "rt", encoding="utf-8") as lines:
        next(lines)
        merged = ("".join(line.split()) for line, _ in zip(lines, range(_MERGES), strict=False))
        whole = (word.removesuffix(_WHOLE) for word in merged if word.endswith(_WHOLE))
        return {word: rank for rank, word in enumerate(whole, 1)}
