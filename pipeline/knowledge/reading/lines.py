"""The lines of a file, in bounded memory."""

from collections.abc import Iterator
from typing import BinaryIO

from pipeline.knowledge.reading.rows import ROW_LIMIT

BOM = b"\xef\xbb\xbf"


def lines(content: BinaryIO) -> Iterator[bytes]:
    """The lines, one that is too long cut right behind ROW_LIMIT."""
    while line := content.readline(ROW_LIMIT + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = content.readline(ROW_LIMIT)
        yield line
