"""A source file and the limits within which it is read."""

import time
from pathlib import Path

from pipeline.retrieval.sources.cleaning import one_line
from pipeline.retrieval.sources.images import Images
from pipeline.retrieval.sources.texts import LABEL, BadText, Unreadable

WHOLE_LIMIT = 16_000_000
"""Bytes of a file that is read at once."""
SECONDS = 300.0
"""Time to parse a PDF or HTML file, whose cost does not follow from its size."""
_REASON = 300


class SourceFile:
    """A file in the ingested folder. `images` finds the files that its rows name."""

    def __init__(self, path: Path, root: Path, images: Images, inside: Path) -> None:
        self.path, self.images, self._inside = path, images, inside
        # a name that is not UTF-8 comes with lone surrogates, which no store takes
        self.name = path.relative_to(root).as_posix().encode("utf-8", "replace").decode()
        self.label = self.name[:LABEL]
        self.title = path.stem.encode("utf-8", "replace").decode()

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot."""
        return self.path.suffix.lower()

    def check_place(self) -> None:
        """Raise Unreadable if a link leads out of the ingested folder."""
        if not self.path.resolve().is_relative_to(self._inside):
            raise Unreadable("leads out of the folder that is ingested")

    def whole(self, limit: int = WHOLE_LIMIT) -> bytes:
        """The file's bytes. Raises Unreadable if there are more than `limit`."""
        with self.path.open("rb") as content:
            found = content.read(limit + 1)
        if len(found) > limit:
            raise Unreadable(f"the file is larger than {limit // 1_000_000} MB")
        return found

    def text(self) -> str:
        """The file's text, lines ending in `\\n`. Raises UnicodeDecodeError and Unreadable."""
        return self.whole().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")

    def bad(self, reason: str, line: int = 0) -> BadText:
        """A problem of the file, or of one of its lines."""
        return BadText(file=self.name, line=line, reason=one_line(reason, addresses=True)[:_REASON])


def in_time(deadline: float) -> None:
    """Raise TimeoutError after the deadline, by the monotonic clock."""
    if time.monotonic() > deadline:
        raise TimeoutError(f"took longer than {SECONDS:g} s")
