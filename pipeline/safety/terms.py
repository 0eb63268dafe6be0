"""Blocked terms, found in a text however they are spelled."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

from pipeline.errors import ConfigError

_LEET = tuple(str.maketrans("013457@$", letters) for letters in ("oieastas", "oleastas"))
_MARKS = re.compile(
    # accents, points of Hebrew and Arabic, variation selectors
    "[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
    "\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef"
    # Hangul's fillers, which are letters without a shape
    "\u115f\u1160\u3164\uffa0]"
)
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)
"""Letters of scripts without spaces between words, or with endings attached to them."""


class Terms:
    """A list of terms, each found as whole words of a text.

    Case, accents, invisible characters, look-alikes of other scripts, the usual digits for letters
    and whatever stands between letters or words make no difference: `Café Noir` finds `c4fe-NOIR`
    and `c a f e n o i r`. Inflected forms are separate terms. Terms of scripts without spaces are
    found anywhere. Raises ConfigError for a term without letters.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self._spaced, self._unspaced = dict[str, str](), dict[str, str]()
        for term in terms:
            for joined in map("".join, map(_words, _folded_both_ways(term))):
                if not joined:
                    raise ConfigError(f"blocked term {term!r} holds no letter or digit")
                known = self._unspaced if _UNSPACED.search(joined) else self._spaced
                known.setdefault(joined, term)
        self._longest = max(map(len, self._spaced), default=0)

    def found(self, text: str) -> str:
        """A listed term that the text holds; empty without one."""
        for words in _readings(text):
            for run in self._runs(words):
                if run in self._spaced:
                    return self._spaced[run]
            joined = "".join(words)
            for unspaced, term in self._unspaced.items():
                if unspaced in joined:
                    return term
        return ""

    def _runs(self, words: Sequence[str]) -> Iterator[str]:
        """Each run of neighbouring words, joined, that is not longer than the longest term."""
        for first in range(len(words)):
            run = ""
            for word in words[first:]:
                run += word
                if len(run) > self._longest:
                    break
                yield run


def _readings(text: str) -> list[list[str]]:
    """The words that a text may be read as, with digits as they are and for letters."""
    folded = _folded_both_ways(text)
    leet = [_leet(each, letters) for each in folded for letters in _LEET]
    return [_words(each) for each in dict.fromkeys([*folded, *leet])]


def _folded_both_ways(text: str) -> list[str]:
    """The folded text; also with look-alikes of capitals read as such, where that differs: a
    capital eta looks like H, a small one like n.
    """
    return list(dict.fromkeys((_folded(text), _folded(_latin(text)))))


def _folded(text: str) -> str:
    """The text in small letters without accents and invisible characters, after NFKC."""
    small = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(c for c in _MARKS.sub("", small) if unicodedata.category(c) != "Cf")
    return _latin(unicodedata.normalize("NFKC", bare))


def _latin(text: str) -> str:
    return text if text.isascii() else "".join(map(_look_alike, text))


@cache
def _look_alike(character: str) -> str:
    """The Latin letter that a character of another script is confused with, else itself.

    Unicode Technical Standard 39, confusables.txt; of ASCII nothing is changed, where the table
    equates `m` with `rn`.
    """
    if character.isascii():
        return character
    from confusable_homoglyphs.confusables import confusables_data  # late: it reads a megabyte

    alike = (each["c"] for each in confusables_data.get(character, ()))
    return next((c for c in alike if len(c) == 1 and c.isascii() and c.isalpha()), character)


def _leet(text: str, letters: dict[int, int]) -> str:
    """The text with digits for letters read as letters, in words that hold a letter too."""
    return " ".join(
        word.translate(letters) if any(c.isalpha() for c in word) else word for word in text.split()
    )


def _words(text: str) -> list[str]:
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return "".join(kept).split()
