"""The columns that a job file may have, and the warnings about others."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache

from pipeline.jobfile.remarks import Notice, Warn
from pipeline.jobfile.values import readable, shown
from pipeline.options import COLUMNS

MOST_NAMED = 20
"""Unknown columns that are named; bounds the memory for a file with a new one in every row."""

_META = re.compile(r"meta\.[A-Za-z0-9_.-]{1,64}", re.ASCII)
_LONGEST_COMPARED = 64
_JOINTS = re.compile(r"[\s_-]+")
_ELSEWHERE = {name: column for column, (_, _, mark) in COLUMNS.items() for name in mark.elsewhere}
"""Our columns by the names that other tools use."""


class WrongColumn(Exception):
    """The columns are wrong, so that no row can be read; the message is the reason."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


class Columns:
    """The columns of one job file. An unknown column is left out and another spelling of a known
    one is read, each with one warning.
    """

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._named = set[str]()
        self._names: tuple[str, ...] | None = None
        self._kept: tuple[str, ...] = ()

    def keep(self, line: int, names: tuple[str, ...]) -> tuple[str, ...]:
        """Our columns for the names of a header or an object, empty for each that is left out.

        Raises WrongColumn if `keywords` is missing, a column is there twice, or a name after
        `meta.` is invalid.
        """
        if names != self._names:
            columns = tuple(map(column_of, names))
            _check(names, columns)
            self._names, self._kept = names, columns
            for name, kept in zip(names, self._kept, strict=True):
                if name != kept or not kept:
                    self._warn_once(line, name, kept)
        return self._kept

    def _warn_once(self, line: int, name: str, kept: str) -> None:
        if name in self._named or len(self._named) > MOST_NAMED:
            return
        self._named.add(name)
        if len(self._named) <= MOST_NAMED:
            reason = f"column {shown(name)} read as {kept}" if kept else unknown_column(name)
        else:
            reason = f"more than {MOST_NAMED} unknown columns or spellings; the others are not told"
        self._warn(Notice(line, readable(name, 80), reason))


def is_column(name: str) -> bool:
    """True if a job file may have this column, in any spelling."""
    return column_of(name) != ""


def column_of(name: str) -> str:
    """The column of a name, in any case and with spaces, hyphens or underscores between its
    words; empty if it is unknown.
    """
    if name in COLUMNS or _META.fullmatch(name):
        return name
    return _meant(name) if len(name) <= _LONGEST_COMPARED else ""


@lru_cache(1024)
def _meant(name: str) -> str:
    plain = name.strip(" \t\ufeff")
    if plain[:5].lower() == "meta.":
        kept = f"meta.{plain[5:]}"
        return kept if _META.fullmatch(kept) else ""
    folded = _JOINTS.sub("_", plain.lower())
    return folded if folded in COLUMNS else _ELSEWHERE.get(folded, "")


def unknown_column(name: str) -> str:
    """The warning about an unknown column, with the known one that is most similar."""
    likely = get_close_matches(name[:_LONGEST_COMPARED].strip().lower(), COLUMNS, n=1, cutoff=0.6)
    hint = f"did you mean {likely[0]!r}?" if likely else f"there are {', '.join(COLUMNS)}."
    return f"unknown column {shown(name)}; columns of your own begin with 'meta.'; {hint}"


def _check(names: Sequence[str], kept: Sequence[str]) -> None:
    for name in names:
        if name == "meta" or (name.startswith("meta.") and not is_column(name)):
            reason = f"column {shown(name)}: a name after meta. has 1 to 64 of A-Z a-z 0-9 _ . -"
            raise WrongColumn(name, reason)
    known = list(filter(None, kept))
    if len(set(known)) < len(known):
        twin = Counter(known).most_common(1)[0][0]
        one, other = [name for name, column in zip(names, kept, strict=True) if column == twin][:2]
        if one == other:
            raise WrongColumn(twin, f"column {twin!r} stands twice.")
        reason = f"columns {shown(one)} and {shown(other)} both mean {twin}; take one of them out."
        raise WrongColumn(other, reason)
    if "keywords" not in kept:
        unknown = [name for name in names if not is_column(name)][:MOST_NAMED]
        for name in unknown:
            if get_close_matches(name[:_LONGEST_COMPARED].lower(), ["keywords"], n=1, cutoff=0.6):
                raise WrongColumn(name, unknown_column(name))
        found = ", ".join(shown(name) for name in names[:MOST_NAMED])
        there = f"; there are {found}." if any(names) else "."
        reason = f"there is no column 'keywords', the one that must be there{there}"
        raise WrongColumn("keywords", reason)
