"""Refuses texts that hold a blocked term."""

import re
import unicodedata
from collections.abc import Sequence

from pipeline.errors import Blocked, ConfigError

_LEET = str.maketrans("013457@$", "oieastas")
_NO_WORD = re.compile(r"[\W_]+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Letters of scripts that write no space between words, or hang endings on them."""


class TermGuard:
    """A Guard: no term may stand in a text as a whole word or as whole words in a row.

    Case, accents, full-width letters, the usual digits for letters and what stands between the
    words make no difference: `Café Noir` finds `c4fe-NOIR`. Other forms of a word are other terms.
    Terms of scripts without spaces are found anywhere. Raises ConfigError for a term without
    letters.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self._terms = {reading: term for term in terms for reading in _readings(term)}
        for reading, term in self._terms.items():
            if not reading.strip():
                raise ConfigError(f"Blocked term {term!r} holds no letter or digit.")

    def check_text(self, text: str) -> None:
        """Raises Blocked with the first listed term that stands in the text."""
        if not self._terms:
            return
        readings = _readings(text)
        for sought, term in self._terms.items():
            needle = sought.strip() if _UNSPACED.search(sought) else sought
            if any(needle in reading for reading in readings):
                raise Blocked(f"The text holds the blocked term {term!r}.")


def _readings(text: str) -> tuple[str, str]:
    """The text's words, each between single spaces: as written, and with digits for letters read
    as letters.
    """
    folded = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(character for character in folded if not _is_mark(character))
    return _spaced(plain), _spaced(plain.translate(_LEET))


def _is_mark(character: str) -> bool:
    """Whether it is an accent or an invisible sign, which could tear a word apart."""
    return unicodedata.category(character) in ("Mn", "Cf")


def _spaced(text: str) -> str:
    return f" {_NO_WORD.sub(' ', text).strip()} "
