"""PDF: the text of each page. Images and scans have none."""

import logging
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipeline.retrieval.sources.chunks import pieces
from pipeline.retrieval.sources.cleaning import well_formed
from pipeline.retrieval.sources.files import SECONDS, SourceFile, in_time
from pipeline.retrieval.sources.texts import LABEL, BadText, Text, Unreadable

PDF_LIMIT = 256_000_000
"""Bytes of a file."""
PAGES = 2000
LETTERS = 8_000_000
"""Characters of all pages together."""
_BOUNDS: dict[str, Any] = {
    "zlib_maximum_output_length": 16_000_000,
    "lzw_maximum_output_length": 16_000_000,
    "run_length_maximum_output_length": 16_000_000,
    "array_based_stream_maximum_output_length": 16_000_000,
    "stream_parsing_work_maximum_count": 500_000,
    "xform_maximum_invocations_per_extraction": 200,
}
"""Limits on the decompressed size of a stream; a page beyond them is skipped."""


def read(source: SourceFile) -> Iterator[Text | BadText]:
    """The passages of each page. Raises Unreadable for a file that cannot be read."""
    if source.path.stat().st_size > PDF_LIMIT:
        raise Unreadable(f"the file is larger than {PDF_LIMIT // 1_000_000} MB")
    letters, left = 0, SECONDS
    with source.path.open("rb") as content:
        reader, count = _opened(content)
        for number in range(1, min(count, PAGES) + 1):
            start = time.monotonic()
            reader.deadline = start + left
            try:
                text = _text(reader, number)
            except TimeoutError as error:
                raise Unreadable(f"page {number} and later: {error}") from error
            except Unreadable as error:
                yield source.bad(f"page {number}: {error}")
                continue
            finally:
                left -= time.monotonic() - start  # storing the passages is not reading time
            letters += len(text)
            if letters > LETTERS:
                raise Unreadable(f"page {number} and later: more than {LETTERS} letters")
            if text:
                label = f"{source.name}#page={number}"[:LABEL]
                yield from pieces(Text(text=text, title=source.title, source=label))
    if count > PAGES:
        yield source.bad(f"page {PAGES + 1} and later: more than {PAGES} pages")
    if not letters:
        yield source.bad("no text was found in it")


def _opened(content: BinaryIO) -> tuple[Any, int]:
    """The document, which reads no object after its deadline, and its number of pages.

    Raises Unreadable.
    """
    from pypdf import PdfReader, apply_configuration

    class Document(PdfReader):
        deadline = time.monotonic() + SECONDS

        def get_object(self, indirect_reference: Any) -> Any:
            in_time(self.deadline)
            return super().get_object(indirect_reference)

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of each repair
    try:
        with apply_configuration(**_BOUNDS):
            reader = Document(content)
            encrypted, count = reader.is_encrypted, 0
            if not encrypted:
                count = len(reader.pages)
    except TimeoutError as error:
        raise Unreadable(str(error)) from error
    except Exception as error:  # pypdf raises whatever a broken file leads to
        raise Unreadable(f"not a readable PDF: {error or type(error).__name__}") from error
    if encrypted:
        raise Unreadable("encrypted; save it without a password")
    return reader, count


def _text(reader: Any, number: int) -> str:
    """The text of a page; pages count from 1. Raises Unreadable and TimeoutError."""
    from pypdf import apply_configuration

    try:
        with apply_configuration(**_BOUNDS):
            return well_formed(reader.pages[number - 1].extract_text())
    except Exception as error:
        raise Unreadable(str(error) or type(error).__name__) from error
    finally:
        in_time(reader.deadline)  # pypdf swallows errors in a part of a page
