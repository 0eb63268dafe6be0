"""What can be told of words without a model."""

import unicodedata


def says_something(text: str) -> bool:
    """Whether a text holds a letter, a digit or a sign that images something, as emoji do."""
    return any(c.isalnum() or unicodedata.category(c) == "So" for c in text)
