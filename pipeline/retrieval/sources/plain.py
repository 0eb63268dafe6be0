"""Plain text: UTF-8, cut between paragraphs."""

from collections.abc import Iterator

from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.sections import passages
from pipeline.retrieval.sources.texts import Text


def read(source: SourceFile) -> Iterator[Text]:
    """The passages. Raises UnicodeDecodeError, and Unreadable where it is too large."""
    yield from passages([source.text()], source, source.title)
