"""Where an export goes: whole or not at all, and over nothing but an earlier one of its own."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import PressrunError


class ExportError(PressrunError):
    """The export would write over something else; name another place with --out."""


@contextmanager
def replacing(path: Path, is_own: Callable[[Path], bool]) -> Iterator[Path]:
    """A place beside `path` for a file or a folder, which takes the place of `path` at the end.

    After an error or an interruption `path` is as it was. Raises ExportError where something
    stands there that is not our own.
    """
    if os.path.lexists(path) and not is_own(path):
        raise ExportError(f"{path} is there already and no export of this run and format.")
    path.parent.mkdir(parents=True, exist_ok=True)
    desk = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield desk / "new"
        if path.is_dir():  # which a rename does not replace
            path.rename(desk / "old")
        (desk / "new").replace(path)
    finally:
        shutil.rmtree(desk, ignore_errors=True)
