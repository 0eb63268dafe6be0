"""Relevance of a text to keywords on a scale that holds for all keywords and collections.

A fused score has no such scale: the best hit of any search has a high one, whatever it is about.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from math import log

from pipeline.retrieval.embedders import Vectors, normalised
from pipeline.retrieval.lexical import TYPICAL_WORDS, frequency, words

SAMPLE = 1000
"""Texts that tell which words are rare in a collection."""
TERMS = 64
"""Words of the keywords that are compared."""
SIMILAR = 0.75
"""Least share of letters in common of two spellings of a word."""
SHORTEST = 4
"""Letters of a word that may be spelled otherwise."""
COMMON = 0.8
"""Share of a collection's texts from which on a word tells nothing about one of them."""

# scripts without spaces: Thai to Burmese, Khmer, kana, Han
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


class Rarity:
    """Weights of words by a sample of a collection's texts: near 0 for a word that most of them
    have, 1 for one that none has.

    The inverse document frequency of Robertson and Zaragoza, "The Probabilistic Relevance
    Framework: BM25 and Beyond" (2009), 3.1. A small sample is filled up to SAMPLE with texts of
    general language, so that in a collection of a few texts not every word counts as common.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        known = [terms(text) for text in texts]
        self._own = len(known)
        self._general = max(SAMPLE - len(known), 0)
        self._size = len(known) + self._general
        self._counts = Counter(word for each in known for word in each)

    def __call__(self, word: str) -> float:
        """The weight of a word, 0..1."""
        general = min(1.0, TYPICAL_WORDS * frequency(word))
        return self._inverse(self._counts[word] + self._general * general) / self._inverse(0)

    def common(self, word: str) -> bool:
        """True for a word that most of the collection's own texts have."""
        return self._counts[word] >= max(2, COMMON * self._own)

    def _inverse(self, count: float) -> float:
        return log((self._size - count + 0.5) / (count + 0.5) + 1)


class Relevance:
    """The relevance of texts to keywords, 0..1: the mean of

    - the cosine of their vectors;
    - the share of the keywords' words that the text has, weighted by rarity;
    - the rarity of the rarest of these.

    So a text about something else that has ordinary words in common is not relevant, nor is one
    with a single rare word of many. Words match as well where they are spelled nearly the same.

    It is 1 for all texts where every word of the keywords is `common`, such as the name of a
    handbook that each of them has.
    """

    def __init__(self, keywords: str, vector: Vectors, rarity: Rarity) -> None:
        self._terms, self._vector, self._rarity = terms(keywords)[:TERMS], vector, rarity
        self._of_all = bool(self._terms) and all(map(rarity.common, self._terms))

    def __call__(self, text: str, vector: Vectors) -> float:
        """The relevance of a text with this vector."""
        known, whole, shared, rarest = _lookup(text), 0.0, 0.0, 0.0
        if self._of_all:
            return 1.0
        for term in self._terms:
            word, likeness = nearest(term, known)
            weight = self._rarity(word)
            whole, shared = whole + weight, shared + weight * likeness
            rarest = max(rarest, weight * likeness)
        cosine = float(normalised(vector) @ normalised(self._vector)) if vector.size else 0.0
        return (max(cosine, 0.0) + (shared / whole if whole else 0.0) + rarest) / 3


def terms(text: str) -> list[str]:
    """The different words of a text in order; in scripts without spaces, pairs of letters."""
    found = list[str]()
    for word in words(text):
        pairs = [word[at : at + 2] for at in range(len(word) - 1)]
        found += pairs if pairs and _UNSPACED.search(word) else [word]
    return list(dict.fromkeys(found))


def _lookup(text: str) -> list[str]:
    """The terms of a text, and the single letters in it of scripts without spaces."""
    return [*terms(text), *dict.fromkeys(_UNSPACED.findall(text))]


def nearest(term: str, known: Sequence[str]) -> tuple[str, float]:
    """The known word that is spelled most like this one, and how alike they are; the word itself
    and 0 where none is near.

    Cohen, Ravikumar and Fienberg, "A Comparison of String Distance Metrics for Name-Matching
    Tasks" (2003), 2.3.
    """
    if term in known:
        return term, 1.0
    pairs = {term[at : at + 2] for at in range(len(term) - 1)}
    # comparing letter by letter is slow, and a like spelling has about the length and some pairs
    long = [
        word
        for word in (known if len(term) >= SHORTEST else ())
        if len(word) >= SHORTEST
        and SIMILAR * (len(word) + len(term)) <= 2 * min(len(word), len(term))
        and any(pair in word for pair in pairs)
    ]
    for word in get_close_matches(term, long, 1, SIMILAR):
        return word, SequenceMatcher(None, word, term).ratio()
    return term, 0.0
