"""Documents with headings, cut there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.retrieval.sources.chunks import pieces
from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.texts import LABEL, Text


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; level 1 is the outermost."""

    level: int
    title: str


def passages(parts: Iterable[str | Heading], source: SourceFile, title: str) -> Iterator[Text]:
    """The passages under each heading, called by the path of headings, or else by `title`."""
    for headings, body in _sections(parts):
        label = f"{source.name}#{headings[-1]}" if headings else source.name
        name = " > ".join(headings) or title
        yield from pieces(Text(text=body, title=name[:LABEL], source=label[:LABEL]))


def _sections(parts: Iterable[str | Heading]) -> Iterator[tuple[list[str], str]]:
    """Each stretch of text with the headings that it stands under, outermost first."""
    path, body = dict[int, str](), list[str]()
    for part in parts:
        if isinstance(part, str):
            body.append(part)
            continue
        if any(map(str.strip, body)):
            yield list(path.values()), "".join(body)
        path = {depth: title for depth, title in path.items() if depth < part.level}
        path[part.level] = part.title
        body = []
    if any(map(str.strip, body)):
        yield list(path.values()), "".join(body)
