"""Blocked terms, found in a text however they are spelled."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

from pipeline.errors import ConfigError

_LEET = tuple(str.maketrans("0134578@$", letters) for letters in ("oieastbas", "oleastbas"))
_MARK_WITHIN = re.compile(r"(?<=\w)!(?=\w)")
_MARKS = re.compile(
    # accents, points of Hebrew and Arabic, its line between letters, variation selectors
    "[\u0300-\u036f\u0591-\u05c7\u0640\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
    "\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef"
    # Hangul's fillers, which are letters without a shape
    "\u115f\u1160\u3164\uffa0]"
)
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)
"""Letters of scripts without spaces between words, or with endings attached to them."""
_SCRIPT_BORDER = re.compile(
    f"(?<=[a-z0-9])(?={_UNSPACED.pattern})|(?<={_UNSPACED.pattern})(?=[a-z0-9])"
)
_DIGIT_BORDER = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
_LETTER_NAME = re.compile(
    r"(?:LATIN LETTER SMALL CAPITAL|NEGATIVE (?:SQUARED|CIRCLED) LATIN CAPITAL LETTER) ([A-Z])"
)


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

    def reason(self, text: str) -> str:
        """The reason against the text; empty where it is not refused."""
        found = self.found(text)
        return f"the text holds {found!r}" if found else ""

    def _runs(self, words: Sequence[str]) -> Iterator[str]:
        """Each run of neighbouring words, joined, that is not longer than the longest term."""
        for first in range(len(words)):
            run = ""
            for last in range(first, len(words)):
                run += words[last]
                if len(run) > self._longest:
                    break
                yield run


def _readings(text: str) -> list[list[str]]:
    """The words that a text may be read as, with digits as they are, for letters and as words."""
    folded = [_SCRIPT_BORDER.sub(" ", each) for each in _folded_both_ways(text)]
    leet = [_leet(each, letters) for each in folded for letters in _LEET]
    apart = [_DIGIT_BORDER.sub(" ", each) for each in folded]
    return [_words(each) for each in dict.fromkeys([*folded, *leet, *apart])]


def _folded_both_ways(text: str) -> list[str]:
    """The folded text; also with look-alikes of capitals read as such, where that differs: a
    capital eta looks like H, a small one like n.
    """
    return list(dict.fromkeys((_folded(text), _folded(_latin(text)))))


def _folded(text: str) -> str:
    """The text in small letters without accents and invisible characters, after NFKC."""
    small = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(c for c in _MARKS.sub("", small) if unicodedata.category(c) != "Cf")
    return _without_marks(_latin(unicodedata.normalize("NFKC", bare)))


def _without_marks(text: str) -> str:
    """The text without marks and modifier letters of other scripts on Latin letters."""
    if text.isascii():
        return text
    kept = list[str]()
    for c in text:
        on_latin = bool(kept) and kept[-1].isascii() and kept[-1].isalpha()
        if not (on_latin and unicodedata.category(c) in ("Mn", "Me", "Lm")):
            kept.append(c)
    return "".join(kept)


def _latin(text: str) -> str:
    return text if text.isascii() else "".join(map(_look_alike, text))


@cache
def _look_alike(character: str) -> str:
    """The Latin letter that a character of another script is confused with, else itself.

    Unicode Technical Standard 39, confusables.txt, without the strokes of letters; of ASCII nothing
    is changed, where the table equates `m` with `rn`. Small capitals and letters in black squares,
    which the table lacks, go by their names.
    """
    if character.isascii():
        return character
    from confusable_homoglyphs.confusables import confusables_data  # late: it reads a megabyte

    if named := _LETTER_NAME.fullmatch(unicodedata.name(character, "")):
        return named[1].lower()
    alike = (_MARKS.sub("", each["c"]) for each in confusables_data.get(character, ()))
    return next((c for c in alike if len(c) == 1 and c.isascii() and c.isalpha()), character)


def _leet(text: str, letters: dict[int, int]) -> str:
    """The text with digits for letters read as letters, in words that hold a letter too."""
    return " ".join(
        _MARK_WITHIN.sub("i", word).translate(letters) if any(c.isalpha() for c in word) else word
        for word in text.split()
    )


def _words(text: str) -> list[str]:
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return "".join(kept).split()
