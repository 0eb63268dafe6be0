"""Removes web addresses and characters that hide text."""

import re
import unicodedata
from itertools import chain, groupby, islice

MARKS = 30
"""Combining marks on one letter; the bound of Unicode's stream-safe format (UAX #15)."""

_URL = re.compile(r"(?:https?://|www\.)[^\s<>()\[\]\"']+", re.IGNORECASE)
_SPACES = re.compile(r"[^\S\n]+")


def cleaned(text: str) -> str:
    """Text composed (NFC), without addresses, control and format characters; newlines stay."""
    if not text.isascii():
        # composing takes time quadratic in the marks on one letter
        runs = groupby(text, lambda character: unicodedata.combining(character) > 0)
        few = chain.from_iterable(islice(run, MARKS if marks else None) for marks, run in runs)
        text = unicodedata.normalize("NFC", "".join(few))
    safe = "".join(c for c in text if c == "\n" or not _hidden(c))
    lines = (_SPACES.sub(" ", line).strip() for line in _URL.sub("", safe).split("\n"))
    return "\n".join(lines).strip()


def one_line(text: str, *, addresses: bool = False) -> str:
    """A label in one line without control characters; addresses stay only with `addresses`."""
    bare = text if addresses else _URL.sub("", text)
    return " ".join("".join(" " if _hidden(c) else c for c in bare).split())


def well_formed(text: str) -> str:
    """Text with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs")
