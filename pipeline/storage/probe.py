"""Whether a store keeps its promise that of many writers of a new blob one wins."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from pipeline.errors import Unconditional
from pipeline.ports import Store

WRITERS = 32
ROUNDS = 2
TRIES = 3


def honours_conditions(store: Store, prefix: str, writers: int = WRITERS) -> bool:
    """Whether exactly one of many concurrent creates of one blob wins, and the blob is its own.

    Many servers that speak S3 ignore If-None-Match, or look and write in two steps; only a race
    shows it. A file system has hard links or none, which two writers show. Writes fresh keys that
    begin with `prefix`, and removes them. Raises StoreError when the store fails for another
    reason.
    """
    try:
        # the first round also opens the connections, so that the second one meets at the server
        return all(_one_wins(store, prefix, writers) for _ in range(ROUNDS))
    except Unconditional:
        return False


def _one_wins(store: Store, prefix: str, writers: int) -> bool:
    for _ in range(TRIES):
        key = f"{prefix}probe-{uuid.uuid4().hex}"
        try:
            # nobody wins where the answer to the winner was lost
            if winners := _race(store, key, writers):
                # what several have written may be a mixture that nobody can read
                return len(winners) == 1 and store.get(key) == winners[0]
        finally:
            store.delete(key)
    return False


def _race(store: Store, key: str, writers: int) -> list[bytes]:
    """What those wrote who were told that theirs is the first."""
    start = Barrier(writers)

    def create(data: bytes) -> bool:
        start.wait()
        return store.put(key, data, content_type="text/plain", new=True)

    blobs = [b"%04d" % number for number in range(writers)]
    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(create, blobs))
    return [blob for blob, first in zip(blobs, won, strict=True) if first]
