"""The columns that a job file may have, under the names that people give them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from pipeline.jobfile.remarks import Notice, Warn
from pipeline.jobfile.values import readable, shown
from pipeline.options import COLUMNS

MOST_NAMED = 20
"""Columns that notices name; bounds the memory for a file with a new one in every row."""
MOST_KEPT = 256
"""Names whose own columns are the same in every row of a JSON file; bounds the memory too."""
LEFT_OUT = ""
"""The target of a column that is not read."""
LIKELY = 0.8
"""Likeness of two words from which one is taken for a misspelling of the other."""

_OWN = re.compile(r"meta\.[\w.-]{1,64}")
_LONGEST_COMPARED = 64
_OUT = "left out"
"""The meaning of a name whose column is not read; that of an unknown one is empty."""
_JOINTS = re.compile(r"[\s_-]+")
_OTHER = re.compile(r"[^\w.]+")
_ELSEWHERE = {name: column for column, (_, _, mark) in COLUMNS.items() for name in mark.elsewhere}
"""Our columns by the names that other tools use."""
_MEANT = {name: name for name in COLUMNS} | _ELSEWHERE
_RUN_TOGETHER = {name.replace("_", ""): column for name, column in _MEANT.items()}
"""The same, as in negativePrompt."""


class WrongColumn(Exception):
    """The columns are wrong, so that no row can be read; the message is the reason."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


class Columns:
    """The columns of one job file: `mapping` names ours by the file's, another spelling of a known
    one is read as it, and any other column is kept as `meta.*`; each is told once. Without a
    `header` every row may have other names.
    """

    def __init__(self, warn: Warn, mapping: Mapping[str, str], *, header: bool = True) -> None:
        self._warn, self._mapping, self._header = warn, mapping, header
        self._absent = dict.fromkeys(mapping)
        self._named = set[tuple[str, str]]()
        self._own = dict[str, str]()
        self._names: tuple[str, ...] | None = None
        self._kept: tuple[str, ...] = ()

    def knows(self, name: str) -> bool:
        """True if a name means a column of a job, in any spelling."""
        return self._meant(name) != ""

    def keep(self, line: int, names: tuple[str, ...]) -> tuple[str, ...]:
        """Our columns for the names of a header or an object, LEFT_OUT among them.

        Raises WrongColumn if `keywords` is missing, a column is there twice, a name after `meta.`
        is invalid, or a name looks like a misspelling of a column.
        """
        if names != self._names:
            meant = tuple(map(self._meant, names))
            _check(names, meant)
            own = _own_names(names, meant, self._own)
            self._kept = tuple(LEFT_OUT if name == _OUT else name for name in own)
            for name in names:
                self._absent.pop(name.strip(" \t\ufeff"), None)
            if self._header:
                self.tell_absent(line)
            self._names = names
            self._tell(line, meant)
        return self._kept

    def _meant(self, name: str) -> str:
        mapped = self._mapping.get(name.strip(" \t\ufeff")) if self._mapping else None
        return column_of(name) if mapped is None else mapped or _OUT

    def tell_absent(self, line: int) -> None:
        """Send notices of mapped names that no row had so far."""
        for name in self._absent:
            reason = f"the file has no column {shown(name)}, which is mapped to a column"
            self._warn(Notice(line, readable(name, 80), reason))

    def _tell(self, line: int, meant: Sequence[str]) -> None:
        """Send notices of the names that are new and differ from their columns'."""
        kept, own = self._kept, list[str]()
        for name, column, known in zip(self._names or (), kept, meant, strict=True):
            told = (name, column) in self._named or len(self._named) > MOST_NAMED
            if name == column or told:
                continue
            self._named.add((name, column))
            if len(self._named) > MOST_NAMED:
                reason = "the other columns that have another name here are not told"
                self._warn(Notice(line, readable(name, 80), reason))
            elif known:
                reason = f"column {shown(name)} {f'read as {column}' if column else 'left out'}"
                self._warn(Notice(line, readable(name, 80), reason))
            else:
                own.append(f"{shown(name)} as {column}")
        if own:
            first = next(n for n, known in zip(self._names or (), meant, strict=True) if not known)
            reason = f"kept in the records: {', '.join(own)}"
            self._warn(Notice(line, readable(first, 80), reason))


def is_own_name(name: str) -> bool:
    """True for the name of a `meta.*` column."""
    return _OWN.fullmatch(name) is not None


def column_of(name: str) -> str:
    """The column of a name, in any case and with spaces, hyphens, underscores or nothing between
    its words; empty if it is unknown.
    """
    if name in COLUMNS or _OWN.fullmatch(name):
        return name
    return _column_of(name) if len(name) <= _LONGEST_COMPARED else ""


@lru_cache(1024)
def _column_of(name: str) -> str:
    plain = name.strip(" \t\ufeff")
    if plain[:5].lower() == "meta.":
        kept = f"meta.{plain[5:]}"
        return kept if _OWN.fullmatch(kept) else ""
    folded = _JOINTS.sub("_", plain.lower())
    return _MEANT.get(folded) or _RUN_TOGETHER.get(folded.replace("_", ""), "")


@lru_cache(1024)
def _misspelt(name: str) -> str:
    """The column that an unknown name is probably a misspelling of, empty if there is none.

    It has as many words and the first letter of one of our names: `Height (cm)` and `weight` are
    columns of one's own.
    """
    folded = _JOINTS.sub("_", name.strip(" \t\ufeff").lower())[:_LONGEST_COMPARED]
    best, found = LIKELY, ""
    for known, column in _MEANT.items():
        if known[:1] == folded[:1] and known.count("_") == folded.count("_"):
            compared = SequenceMatcher(None, folded, known)
            # the first is cheap, and never below the second
            if compared.real_quick_ratio() >= best and (like := compared.ratio()) >= best:
                best, found = like, column
    return found


def _own_names(
    names: Sequence[str], meant: Sequence[str], known: dict[str, str]
) -> tuple[str, ...]:
    """The columns, where a name without one becomes its own, each different: that of an earlier row
    if it is `known`, which grows.
    """
    here, elsewhere, again = set(meant), set(known.values()), Counter[str]()
    kept = list[str]()
    for place, (name, column) in enumerate(zip(names, meant, strict=True), 1):
        if not column and (column := known.get(name, "")) in here:
            column = ""
        if not column:
            plain = unicodedata.normalize("NFC", name).lower()
            plain = _OTHER.sub("_", plain).strip("_.")[:60] or f"column_{place}"
            column = f"meta.{plain}"
            while column in here or column in elsewhere:
                again[plain] += 1
                column = f"meta.{plain}_{again[plain] + 1}"
            if len(known) < MOST_KEPT:
                known.setdefault(name, column)
        here.add(column)
        kept.append(column)
    return tuple(kept)


def _check(names: Sequence[str], meant: Sequence[str]) -> None:
    known = [column for column in meant if column not in ("", _OUT)]
    if len(set(known)) < len(known):
        twin = Counter(known).most_common(1)[0][0]
        one, other = [name for name, column in zip(names, meant, strict=True) if column == twin][:2]
        if one == other:
            reason = f"column {shown(one)} stands twice; rename one in the file."
            raise WrongColumn(twin, reason)
        reason = (
            f"columns {shown(one)} and {shown(other)} both mean {twin}; take one of them out, or "
            f"keep it as your own: pressrun check FILE --map {shown(f'{other}=meta.NAME')}"
        )
        raise WrongColumn(other, reason)
    for name, column in zip(names, meant, strict=True):
        if column:
            continue
        if name == "meta" or name.startswith("meta."):
            reason = f"column {shown(name)}: a name after meta. has 1 to 64 letters, digits, _ . -"
            raise WrongColumn(name, reason)
        if likely := _misspelt(name):
            raise WrongColumn(
                name,
                f"unknown column {shown(name)}; did you mean {likely!r}? Name it so, or keep it as "
                f"your own: pressrun check FILE --map {shown(f'{name}=meta.NAME')}",
            )
    if "keywords" not in meant:
        found = ", ".join(shown(name) for name in names[:MOST_NAMED])
        there = f"; there are {found}." if any(names) else "."
        raise WrongColumn(
            "keywords",
            f"there is no column 'keywords', the one that must be there{there} Name the one that "
            "holds the subject of the images: pressrun check FILE --map 'NAME=keywords'",
        )
