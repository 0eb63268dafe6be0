"""A file to read, as its reader knows it."""

import time
from pathlib import Path

from pipeline.retrieval.sources.cleaning import one_line
from pipeline.retrieval.sources.images import Images
from pipeline.retrieval.sources.texts import LABEL, BadText, Unreadable

WHOLE_LIMIT = 16_000_000
"""Bytes of a file that is read in one go."""
SECONDS = 300.0
"""Time to parse a file whose size says little of it: PDF, HTML."""
_REASON = 300


class SourceFile:
    """A file within the folder that is ingested, and the images that its rows may name."""

    def __init__(self, path: Path, root: Path, images: Images, inside: Path) -> None:
        self.path, self.images, self._inside = path, images, inside
        # a name that is no UTF-8 comes with half characters, which no store takes
        self.name = path.relative_to(root).as_posix().encode("utf-8", "replace").decode()
        self.label = self.name[:LABEL]
        self.title = path.stem.encode("utf-8", "replace").decode()

    @property
    def suffix(self) -> str:
        """In lower case, with its dot."""
        return self.path.suffix.lower()

    def check_place(self) -> None:
        """Raises Unreadable where a link leads out of what is ingested."""
        if not self.path.resolve().is_relative_to(self._inside):
            raise Unreadable("leads out of the folder that is ingested")

    def whole(self, limit: int = WHOLE_LIMIT) -> bytes:
        """All of its bytes. Raises Unreadable where they are more than `limit`."""
        with self.path.open("rb") as content:
            found = content.read(limit + 1)
        if len(found) > limit:
            raise Unreadable(f"the file is larger than {limit // 1_000_000} MB")
        return found

    def text(self) -> str:
        """All of its text, lines ending in `\\n`. Raises UnicodeDecodeError and Unreadable."""
        return self.whole().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")

    def bad(self, reason: str, line: int = 0) -> BadText:
        """What is wrong with the file, or with one of its lines."""
        return BadText(file=self.name, line=line, reason=one_line(reason, addresses=True)[:_REASON])


def in_time(deadline: float) -> None:
    """Raise TimeoutError after the deadline, by the monotonic clock."""
    if time.monotonic() > deadline:
        raise TimeoutError(f"took longer than {SECONDS:g} s")
