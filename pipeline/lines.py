"""Sanitizing of external text to one line of a message or a prompt."""

import re
import unicodedata

JOINERS = "\u200c\u200d\ufe0e\ufe0f"
"""Invisible characters that scripts and emoji need; all others are dropped."""

_JOINED = re.compile(
    rf"([^\x00-\x7f{JOINERS}][\ufe0e\ufe0f]?[\u200c\u200d]?)[{JOINERS}]*|[{JOINERS}]+"
)
_BLANK = re.compile(  # drawn as nothing, though they count as letters and marks
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)")
_TAG = re.compile(r"<[^<>\s\d][^<>]*>|\bembedding:[^\s,()]+|[<>]", re.IGNORECASE)
_URL = re.compile(
    r"(?:(?<![\w+.\-])[\w+.\-]*://"
    r"|(?<![a-z0-9])(?:www\.|file:/|data:(?=[^\s,/]{0,999}[,/])[^\s,]*[,/]"
    r"|mailto:|(?:java|vb)script:))[^\s<>()\[\]\"']*"
    r"|\b(?:[a-z0-9\-]{1,63}\.){1,8}[a-z]{2,24}/[^\s<>()\[\]\"']*",
    re.IGNORECASE,
)
_SIGNS = re.compile(r"[()\[\]{}|\\]|__+")
_OPERATORS = re.compile(r"\b(?:AND|BREAK)\b")


def one_line(text: str, limit: int) -> str:
    """`text` on one line without control and hidden characters, at most `limit` characters long.

    A longer text is cut after a whole word where possible.
    """
    text = text[: limit * 4]
    if not (text.isascii() and text.isprintable()):
        # one joiner stays after a character: more could hide a text
        text = _JOINED.sub(r"\1", _BLANK.sub("", "".join(map(_printable, text))))
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    head = line[:limit]
    if line[limit] != " " and " " in head:
        head = head.rsplit(" ", 1)[0]
    return head.rstrip()


def cleaned(text: str, limit: int) -> str:
    """One line without links, URLs, markup, and syntax that makes renderers load assets."""
    line = _LINK.sub(r"\1", one_line(text, limit * 4))
    # a space in each gap: the text around it must not join into a tag or an address
    return one_line(_URL.sub(" ", _TAG.sub(" ", line)), limit)


def plain_words(text: str, limit: int) -> str:
    """`cleaned`, without the syntax of renderers and chat templates: `(weight:1.9)`, `[from:to:9]`,
    `{a|b}`, `__wildcard__`, `AND` and `[INST]`.

    For text that the job's author did not write: passages and models' replies.
    """
    words = _SIGNS.sub(" ", cleaned(text, limit))
    return one_line(_OPERATORS.sub(lambda operator: operator[0].lower(), words), limit)


def _printable(character: str) -> str:
    if character in JOINERS:
        return character
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ""
    return " " if kind[0] in "CZ" else character
