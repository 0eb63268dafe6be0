"""A test of a store's promise that exactly one of many writers of a new blob wins."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import compress
from threading import Barrier

from pipeline.errors import Unconditional
from pipeline.ports import Store

WRITERS = 32
ROUNDS = 2
TRIES = 3


def honours_conditions(store: Store, prefix: str, writers: int = WRITERS) -> bool:
    """True where exactly one of many concurrent creates of a blob wins, and the blob is the
    winner's.

    Many S3-compatible servers ignore If-None-Match, or check and write in two steps; only a race
    shows it. A file system has hard links or none, for which two writers suffice. Writes new keys
    that begin with `prefix`, and removes them. Raises StoreError for any other failure.
    """
    try:
        # the first round also opens the connections, so that the second one meets at the server
        return all(_one_wins(store, prefix, writers) for _ in range(ROUNDS))
    except Unconditional:
        return False


def _one_wins(store: Store, prefix: str, writers: int) -> bool:
    blobs = [b"%04d" % number for number in range(writers)]

    def create(key: str, start: Barrier, data: bytes) -> bool:
        start.wait()
        return store.put(key, data, content_type="text/plain", new=True)

    for _ in range(TRIES):
        key, start = f"{prefix}probe-{uuid.uuid4().hex}", Barrier(writers)
        try:
            with ThreadPoolExecutor(writers) as pool:
                first = list(pool.map(partial(create, key, start), blobs))
            # no winner: the answer to it was lost, so try again
            if winners := list(compress(blobs, first)):
                # several winners may have left an unreadable mixture
                return len(winners) == 1 and store.get(key) == winners[0]
        finally:
            store.delete(key)
    return False
