"""Takes out of texts what hides other text, or leads elsewhere."""

import re
import unicodedata
from collections.abc import Iterator

MARKS = 30
"""Accents on one letter; the bound that Unicode gives for streams (UAX #15)."""

_URL = re.compile(r"(?:https?://|www\.)[^\s<>()\[\]\"']+", re.IGNORECASE)
_SPACES = re.compile(r"[^\S\n]+")


def cleaned(text: str) -> str:
    """Composed text without addresses, control characters and signs that hide text."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(_few_marks(text)))
    safe = "".join(c for c in text if c == "\n" or not _hidden(c))
    lines = (_SPACES.sub(" ", line).strip() for line in _URL.sub("", safe).split("\n"))
    return "\n".join(lines).strip()


def one_line(text: str, *, addresses: bool = False) -> str:
    """A label in one line without control characters, and without addresses if not asked for."""
    bare = text if addresses else _URL.sub("", text)
    return " ".join("".join(" " if _hidden(c) else c for c in bare).split())


def well_formed(text: str) -> str:
    """Halves of characters joined where both are there, and replaced where not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _few_marks(text: str) -> Iterator[str]:
    # composing takes the square of the marks on one letter
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MARKS:
            yield character


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs")
