from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.retrieval.sources.reader import read_texts
from pipeline.retrieval.sources.texts import BadText, Text

Read = Callable[..., list[Text | BadText]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes a file and reads it."""

    def write_and_read(content: str | bytes, name: str) -> list[Text | BadText]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(read_texts(path))

    return write_and_read
