"""Markdown and plain text, cut into passages at headings and between paragraphs."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from pipeline.retrieval.sources.chunks import pieces
from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.texts import LABEL, Text

_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_FENCE = re.compile(r"\s*(```|~~~)")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; level 1 is the outermost."""

    level: int
    title: str


def read_text(source: SourceFile) -> Iterator[Text]:
    """The passages of a plain text. Raises UnicodeDecodeError, and Unreadable if too large."""
    yield from passages([source.text()], source, source.title)


def read_markdown(source: SourceFile) -> Iterator[Text]:
    """The passages of a Markdown file without its front matter (YAML between `---`).

    Raises UnicodeDecodeError, and Unreadable if it is too large.
    """
    parts, fenced = list[str | Heading](), False
    for line in _FRONT_MATTER.sub("", source.text()).splitlines():
        fenced ^= _FENCE.match(line) is not None
        found = None if fenced else _HEADING.match(line)  # in a code block, # is a comment
        if found is None:
            parts.append(line + "\n")
        else:
            parts.append(Heading(len(found[1]), found[2].rstrip().rstrip("#").rstrip()))
    yield from passages(parts, source, source.title)


def passages(parts: Iterable[str | Heading], source: SourceFile, title: str) -> Iterator[Text]:
    """The passages under each heading, titled by the path of headings, or else by `title`."""
    path, body = dict[int, str](), list[str]()
    for part in chain(parts, [Heading(0, "")]):  # the last one ends the last section
        if isinstance(part, str):
            body.append(part)
            continue
        if any(map(str.strip, body)):
            headings = list(path.values())
            label = f"{source.name}#{headings[-1]}" if headings else source.name
            name = " > ".join(headings) or title
            yield from pieces(Text(text="".join(body), title=name[:LABEL], source=label[:LABEL]))
        path = {depth: heading for depth, heading in path.items() if depth < part.level}
        path[part.level] = part.title
        body = []
