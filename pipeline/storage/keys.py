"""Validation of keys, the same in every store."""

from pipeline.errors import StoreError


def check_key(key: str) -> str:
    """The key unchanged. Raises StoreError for one that could leave the store or be hidden in it.

    A part may not begin with a dot: that rules out `..`, and keeps such names for the store.
    """
    clean = "\\" not in key and "\0" not in key
    if not clean or any(part == "" or part.startswith(".") for part in key.split("/")):
        raise StoreError(f"{key!r} is not a key: relative, '/' between parts, no leading dots")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix unchanged; it may end anywhere in a key. Raises StoreError as `check_key` does."""
    folder, _, begun = prefix.rpartition("/")
    if folder:
        check_key(folder)
    if begun:
        check_key(begun)
    if prefix.startswith("/"):
        raise StoreError(f"{prefix!r} is not the beginning of a key")
    return prefix
