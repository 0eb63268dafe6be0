"""Text from outside, made fit to stand on one line of a message."""

import unicodedata

JOINERS = "\u200c\u200d"
"""Format characters that belong to scripts and emoji; every other one is dropped."""


def one_line(text: str, limit: int) -> str:
    """`text` on one line without control characters, at most `limit` characters long.

    Too long a text is cut after a whole word where there is one.
    """
    text = text[: limit * 4]
    plain = text.isascii() and text.isprintable()  # then every character stays, and it is cheap
    line = " ".join((text if plain else "".join(map(_printable, text))).split())
    if len(line) <= limit:
        return line
    head = line[:limit]
    if line[limit] != " " and " " in head:
        head = head.rsplit(" ", 1)[0]
    return head.rstrip()


def _printable(character: str) -> str:
    if character in JOINERS:
        return character
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ""
    return " " if kind[0] in "CZ" else character
