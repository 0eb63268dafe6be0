"""The guard that refuses texts with a blocked term."""

import re
import unicodedata
from collections.abc import Sequence

from pipeline.errors import Blocked, ConfigError

_LEET = str.maketrans("013457@$", "oieastas")
_NO_WORD = re.compile(r"[\W_]+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Letters of scripts without spaces between words, or with endings attached to them."""


class TermGuard:
    """The Guard port over a list of terms, matched as whole words or sequences of whole words.

    Case, accents, full-width letters, the usual digits for letters and the characters between words
    make no difference: `Café Noir` finds `c4fe-NOIR`. Inflected forms are separate terms. Terms of
    scripts without spaces are found anywhere. Raises ConfigError for a term without letters.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self._terms = {reading: term for term in terms for reading in _readings(term)}
        for reading, term in self._terms.items():
            if not reading.strip():
                raise ConfigError(f"Blocked term {term!r} holds no letter or digit.")

    def check_text(self, text: str) -> None:
        """Raise Blocked with the first listed term in the text."""
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
    # accents and invisible characters, which could split a word
    plain = "".join(c for c in folded if unicodedata.category(c) not in ("Mn", "Cf"))
    return _spaced(plain), _spaced(plain.translate(_LEET))


def _spaced(text: str) -> str:
    return f" {_NO_WORD.sub(' ', text).strip()} "
