"""The shards of a run, worked on while later ones are still read from the job file."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from flows.dispatch.dispatcher import Stopped
from pipeline.record import RunSpec


class Opening:
    """The spec of a run and its shards so far, handed from the reading thread to the others.

    Each method that waits raises the reader's error.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spec: RunSpec | None = None
        self._over, self._stopped = False, False
        self._error: BaseException | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The reader's work; its error is raised here and in every thread that waits."""
        try:
            yield
        except BaseException as error:
            self._error = error
            raise
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def stored(self, spec: RunSpec) -> None:
        """Take over the spec with one more shard. Raises Stopped after `stop`."""
        with self._changed:
            if self._stopped:
                raise Stopped
            self._spec = spec
            self._changed.notify_all()

    def stop(self) -> None:
        """Make the reader raise Stopped at its next shard."""
        with self._changed:
            self._stopped = True

    @property
    def rows(self) -> int:
        """The rows read so far."""
        return self._spec.rows if self._spec else 0

    def begun(self) -> RunSpec:
        """The spec with the shards so far; waits for the first one."""
        with self._changed:
            self._changed.wait_for(lambda: self._spec or self._over)
            return self._known()

    def whole(self) -> RunSpec:
        """The spec of the whole run; waits until the file is read to its end."""
        with self._changed:
            self._changed.wait_for(lambda: self._over)
            return self._known()

    def shards(self) -> Iterator[int]:
        """The number of each shard, from 1, as soon as it is stored."""
        for number in count(1):
            with self._changed:
                while self._shards < number and not self._over:
                    self._changed.wait()
                if self._shards < number:
                    self._known()
                    return
            yield number

    @property
    def _shards(self) -> int:
        return self._spec.shards if self._spec else 0

    def _known(self) -> RunSpec:
        if self._error:
            raise self._error
        assert self._spec, "a reader that ends without an error has stored a spec"
        return self._spec
