"""Files and folders to texts and images."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from pipeline.errors import KnowledgeError
from pipeline.retrieval.sources import html, parquet, pdf
from pipeline.retrieval.sources.chunks import pieces
from pipeline.retrieval.sources.documents import read_markdown, read_text
from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.images import IMAGES, Images
from pipeline.retrieval.sources.tables import read_csv, read_jsonl
from pipeline.retrieval.sources.texts import BadText, Text, Unreadable


def read_image(source: SourceFile) -> Iterator[Text]:
    """An image that no row names. Raises Unreadable if it leads out of the folder."""
    if image := source.images.alone(source.path):
        yield from pieces(Text(image=image, title=source.title, source=source.label))


READERS: dict[str, Callable[[SourceFile], Iterator[Text | BadText]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".parquet": parquet.read,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_text,
    ".html": html.read,
    ".htm": html.read,
    ".pdf": pdf.read,
    **dict.fromkeys(IMAGES, read_image),
}


def read_texts(path: Path) -> Iterator[Text | BadText]:
    """The texts of a file, or of all files of a known kind below a folder, images last.

    Raises KnowledgeError if there is no such file.
    """
    if not path.exists():
        raise KnowledgeError(f"There is no {path}.")
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    known = [file for file in files if file.is_file() and file.suffix.lower() in READERS]
    if not known:
        raise KnowledgeError(f"{path} is, and holds, no file ending in {' '.join(READERS)}.")
    images = Images(root)
    inside = path.resolve()  # a file given by its own name may be a link to anywhere
    sources = [SourceFile(file, root, images, inside) for file in known]
    # images last: only after all rows is it known which images none of them names
    sources.sort(key=lambda source: source.suffix in IMAGES)
    return chain.from_iterable(map(_read, sources))


def _read(source: SourceFile) -> Iterator[Text | BadText]:
    try:
        source.check_place()
        yield from READERS[source.suffix](source)
    except UnicodeDecodeError as error:
        yield source.bad(f"not valid {error.encoding.upper()}")
    except Unreadable as error:
        yield source.bad(str(error))
    except OSError as error:
        yield source.bad(str(error.strerror))
