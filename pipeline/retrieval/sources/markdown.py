"""Markdown: cut at headings, what stands in front of it (YAML between `---`) left out."""

import re
from collections.abc import Iterator

from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.sections import Heading, passages
from pipeline.retrieval.sources.texts import Text

_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_FENCE = re.compile(r"\s*(```|~~~)")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def read(source: SourceFile) -> Iterator[Text]:
    """The passages. Raises UnicodeDecodeError, and Unreadable where it is too large."""
    yield from passages(_parts(_FRONT_MATTER.sub("", source.text())), source, source.title)


def _parts(content: str) -> Iterator[str | Heading]:
    fenced = False
    for line in content.splitlines():
        fenced ^= _FENCE.match(line) is not None
        found = None if fenced else _HEADING.match(line)
        if found is None:
            yield line + "\n"
        else:
            yield Heading(len(found[1]), found[2].rstrip().rstrip("#").rstrip())
