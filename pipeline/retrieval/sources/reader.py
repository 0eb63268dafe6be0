"""From a file or a folder to texts and images."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from pipeline.errors import KnowledgeError
from pipeline.retrieval.sources import csv, html, jsonl, lone_images, markdown, parquet, pdf, plain
from pipeline.retrieval.sources.files import SourceFile
from pipeline.retrieval.sources.images import IMAGES, Images
from pipeline.retrieval.sources.texts import BadText, Text, Unreadable

READERS: dict[str, Callable[[SourceFile], Iterator[Text | BadText]]] = {
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".csv": csv.read,
    ".parquet": parquet.read,
    ".md": markdown.read,
    ".markdown": markdown.read,
    ".txt": plain.read,
    ".html": html.read,
    ".htm": html.read,
    ".pdf": pdf.read,
    **dict.fromkeys(IMAGES, lone_images.read),
}


def read_texts(path: Path) -> Iterator[Text | BadText]:
    """What a file holds, or all files of a known kind below a folder, images last.

    Raises KnowledgeError where there is nothing of the kind.
    """
    if not path.exists():
        raise KnowledgeError(f"There is no {path}.")
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    known = [file for file in files if file.is_file() and file.suffix.lower() in READERS]
    if not known:
        raise KnowledgeError(f"{path} is, and holds, no file ending in {' '.join(READERS)}.")
    images = Images(root)
    inside = path.resolve()  # of a file that was named itself, whatever it leads to
    sources = [SourceFile(file, root, images, inside) for file in known]
    # an image is alone if no row names it, which is known when all rows are read
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
