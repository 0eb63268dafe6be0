"""Job files that lie elsewhere, brought here to be read."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.assemble import open_store, reach_store
from pipeline.errors import JobFileError
from pipeline.settings import Settings


@contextmanager
def at_hand(address: str, settings: Settings) -> Iterator[Path]:
    """The file at a path or an s3:// address, under its own name, while the block runs.

    Raises JobFileError where there is none, StoreError where the store fails.
    """
    if not address.startswith("s3://"):
        yield Path(address)
        return
    place, _, name = address.rpartition("/")
    there = settings.model_copy(update={"store": place})
    reach_store(there)
    store = open_store(there)
    with tempfile.TemporaryDirectory(prefix="pressrun-jobs-") as folder:
        path = Path(folder, name)
        try:
            store.fetch(name, path)
        except KeyError:
            raise JobFileError(f"There is no file {address}.") from None
        yield path
