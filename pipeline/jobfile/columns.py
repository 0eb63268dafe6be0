"""Which columns a job file may have, and what is said of the others."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache

from pipeline.jobfile.remarks import Notice, Warn
from pipeline.jobfile.values import READERS, readable, shown

MOST_TOLD = 20
"""Unknown columns that are named; a file with a new one in every row costs no more memory."""

_META = re.compile(r"meta\.[A-Za-z0-9_.-]{1,64}", re.ASCII)
_LONGEST_COMPARED = 64
_JOINTS = re.compile(r"[\s_-]+")
_ELSEWHERE = {
    "prompt": "keywords",
    "positive_prompt": "keywords",
    "negative_prompt": "negative",
    "cfg": "guidance",
    "cfg_scale": "guidance",
    "guidance_scale": "guidance",
    "sampling_steps": "steps",
    "num_inference_steps": "steps",
}
"""Columns by the names that other tools give them."""


class WrongColumn(Exception):
    """Columns under which no row can be read; the message is the reason."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


class Columns:
    """The columns of one job file. Each unknown one is left out, with one warning, and each that is
    known under another spelling is read, with one too.
    """

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
            columns = tuple(map(column_of, names))
            _check(names, columns)
            self._names, self._kept = names, columns
            for name, kept in zip(names, self._kept, strict=True):
                if name != kept or not kept:
                    self._tell(line, name, kept)
        return self._kept

    def _tell(self, line: int, name: str, kept: str) -> None:
        if name in self._told or len(self._told) > MOST_TOLD:
            return
        self._told.add(name)
        if len(self._told) <= MOST_TOLD:
            reason = f"column {shown(name)} read as {kept}" if kept else unknown_column(name)
        else:
            reason = f"more than {MOST_TOLD} unknown columns or spellings; the others are not told"
        self._warn(Notice(line, readable(name, 80), reason))


def is_column(name: str) -> bool:
    """Whether a job file may have this column."""
    return column_of(name) != ""


def column_of(name: str) -> str:
    """The column that a name means, whatever its case and whether spaces, hyphens or underscores
    join its words; empty where it is unknown.
    """
    if name in READERS or _META.fullmatch(name):
        return name
    return _meant(name) if len(name) <= _LONGEST_COMPARED else ""


@lru_cache(1024)
def _meant(name: str) -> str:
    plain = name.strip(" \t\ufeff")
    if plain[:5].lower() == "meta.":
        kept = f"meta.{plain[5:]}"
        return kept if _META.fullmatch(kept) else ""
    folded = _JOINTS.sub("_", plain.lower())
    return folded if folded in READERS else _ELSEWHERE.get(folded, "")


def unknown_column(name: str) -> str:
    """What is said of a column that is unknown, with the likeliest one that was meant."""
    likely = get_close_matches(name[:_LONGEST_COMPARED].strip().lower(), READERS, n=1, cutoff=0.6)
    hint = f"did you mean {likely[0]!r}?" if likely else f"there are {', '.join(READERS)}."
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
        raise _missing(names)


def _missing(names: Sequence[str]) -> WrongColumn:
    """Why there are no keywords: a name that is almost theirs, or none at all."""
    unknown = [name for name in names if not is_column(name)][:MOST_TOLD]
    for name in unknown:
        if get_close_matches(name[:_LONGEST_COMPARED].lower(), ["keywords"], n=1, cutoff=0.6):
            return WrongColumn(name, unknown_column(name))
    found = ", ".join(shown(name) for name in names[:MOST_TOLD])
    there = f"; there are {found}." if any(names) else "."
    reason = f"there is no column 'keywords', the one that must be there{there}"
    return WrongColumn("keywords", reason)
