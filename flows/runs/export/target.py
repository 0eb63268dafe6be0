"""The target of an export, replaced as a whole and only if it is an export of the same kind."""

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
    """A temporary path beside `path` for a file or a folder, which replaces `path` at the end.

    After an error or an interruption `path` is as before. Raises ExportError if `path` exists
    and is not `is_own`.
    """
    if os.path.lexists(path) and not is_own(path):
        raise ExportError(f"{path} is there already and no export of this run and format.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield temporary / "new"
        if path.is_dir():  # which a rename does not replace
            path.rename(temporary / "old")
        (temporary / "new").replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
