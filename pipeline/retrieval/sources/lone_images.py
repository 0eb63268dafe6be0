"""Images that lie in a folder with nothing said of them."""

from collections.abc import Iterator

from pipeline.retrieval.sources.chunks import pieces
from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.texts import Text


def read(source: SourceFile) -> Iterator[Text]:
    """The image, if it is not taken. Raises Unreadable where it leads out of the folder."""
    if image := source.images.alone(source.path):
        yield from pieces(Text(image=image, title=source.title, source=source.label))
