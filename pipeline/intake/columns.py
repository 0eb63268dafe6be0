"""Which columns a job file may have, and what is said of the others."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pipeline.intake.values import READERS, readable, shown

MOST_TOLD = 20
"""Unknown columns that are named; a file with a new one in every row costs no more memory."""

_META = re.compile(r"meta\.[A-Za-z0-9_.-]{1,64}", re.ASCII)
_LONGEST_COMPARED = 64


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell about a job file that stops nothing: where it was met, and what it is."""

    line: int
    column: str
    reason: str


Warn = Callable[[Notice], None]


class WrongColumn(Exception):
    """Columns under which no row can be read; the message is the reason."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


class Columns:
    """The columns of one job file. Each unknown one is left out, with one warning."""

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._told = set[str]()
        self._names: tuple[str, ...] | None = None
        self._kept: tuple[str, ...] = ()

    def keep(self, line: int, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names of a header or an object, an empty one in place of each that is left out.

        Raises WrongColumn where `keywords` is missing, a column stands twice, or a name after
        `meta.` is none.
        """
        if names != self._names:
            _check(names)
            self._kept = tuple(name if is_column(name) else "" for name in names)
            self._names = names
            for name, kept in zip(names, self._kept, strict=True):
                if not kept:
                    self._tell(line, name)
        return self._kept

    def _tell(self, line: int, name: str) -> None:
        if name in self._told or len(self._told) > MOST_TOLD:
            return
        self._told.add(name)
        if len(self._told) <= MOST_TOLD:
            reason = unknown_column(name)
        else:
            reason = f"more than {MOST_TOLD} unknown columns; the others are left out unnamed"
        self._warn(Notice(line, readable(name, 80), reason))


def is_column(name: str) -> bool:
    """Whether a job file may have this column."""
    return name in READERS or _META.fullmatch(name) is not None


def unknown_column(name: str) -> str:
    """What is said of a column that is unknown, with the likeliest one that was meant."""
    likely = get_close_matches(name[:_LONGEST_COMPARED].strip().lower(), READERS, n=1, cutoff=0.6)
    hint = f"did you mean {likely[0]!r}?" if likely else f"there are {', '.join(READERS)}."
    return f"unknown column {shown(name)}; columns of your own begin with 'meta.'; {hint}"


def _check(names: Sequence[str]) -> None:
    for name in names:
        if name == "meta" or (name.startswith("meta.") and not is_column(name)):
            reason = f"column {shown(name)}: a name after meta. has 1 to 64 of A-Z a-z 0-9 _ . -"
            raise WrongColumn(name, reason)
    known = [name for name in names if is_column(name)]
    if len(set(known)) < len(known):
        twin = Counter(known).most_common(1)[0][0]
        raise WrongColumn(twin, f"column {twin!r} stands twice.")
    if "keywords" not in names:
        raise _missing([name for name in names if not is_column(name)])


def _missing(unknown: Sequence[str]) -> WrongColumn:
    """Why there are no keywords: a name that is almost theirs, or none at all."""
    for name in unknown[:MOST_TOLD]:
        if get_close_matches(name[:_LONGEST_COMPARED].lower(), ["keywords"], n=1, cutoff=0.6):
            return WrongColumn(name, unknown_column(name))
    return WrongColumn("keywords", "there is no column 'keywords', the one that must be there.")
