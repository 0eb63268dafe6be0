"""BM25 as sparse vectors: the document's half here, the inverse document frequency in Qdrant.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), 3.2.
"""

import zlib
from collections import Counter

from qdrant_client.models import SparseVector

from pipeline.retrieval.words import words

K1 = 1.2
B = 0.75
TYPICAL_WORDS = 40
"""A passage's usual length in words. Fixed, so that a passage's vector needs no other passage."""


def document_vector(text: str) -> SparseVector:
    """The weight of each word of a passage: saturating in its count, less in long passages."""
    found = words(text)
    flatten = K1 * (1 - B + B * len(found) / TYPICAL_WORDS)
    weights = dict[int, float]()
    for word, count in Counter(found).items():
        weight = count * (K1 + 1) / (count + flatten)
        weights[_index(word)] = weights.get(_index(word), 0.0) + weight
    return _sparse(weights)


def query_vector(text: str) -> SparseVector:
    """Weight 1 for each word asked for."""
    return _sparse(dict.fromkeys(map(_index, words(text)), 1.0))


def _index(word: str) -> int:
    return zlib.crc32(word.encode())


def _sparse(weights: dict[int, float]) -> SparseVector:
    return SparseVector(indices=list(weights), values=list(weights.values()))
