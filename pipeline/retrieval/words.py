"""Text to words, alike for what is stored and what is asked."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_POSSESSIVE = re.compile(r"['’]s$")
_APOSTROPHE = re.compile(r"['’]")

_STOP_WORDS = """
a an and are as at be by for from has have he her his i in is it its me my of on or our she that
the their them they this to was we were what which who will with you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def words(text: str) -> list[str]:
    """The words of a text in order: folded case and accents, no possessive 's, no stop words."""
    found = (_POSSESSIVE.sub("", word) for word in _WORD.findall(_folded(text)))
    joined = (_APOSTROPHE.sub("", word) for word in found)
    return [word for word in joined if word not in STOP_WORDS]


def _folded(text: str) -> str:
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return "".join(letter for letter in apart if not unicodedata.combining(letter))
