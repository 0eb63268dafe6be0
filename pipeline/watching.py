"""What goes on inside, for whoever watches this process: full batches, caches, services that fail.

Nobody watches unless told to; the pipeline itself serves no figures.
"""


class Watcher:
    """Is told from any thread, and must be quick. This one does not mind."""

    def batch(self, role: str, filled: int, places: int) -> None:
        """A call of the model in this role took so many items; `places` is how many it may take."""

    def texts(self, role: str, known: int, fresh: int) -> None:
        """So many texts were needed whose embeddings were known, and so many that were not."""

    def trouble(self, service: str, kind: str) -> None:
        """A service failed. `kind` is one of few words: a status or an error's class."""


_watcher = Watcher()


def watch(watcher: Watcher) -> None:
    """Have this process watched, by one watcher at a time."""
    global _watcher
    _watcher = watcher


def batch(role: str, filled: int, places: int) -> None:
    """Tell of a batch."""
    _watcher.batch(role, filled, places)


def texts(role: str, known: int, fresh: int) -> None:
    """Tell of texts that were looked up."""
    _watcher.texts(role, known, fresh)


def trouble(service: str, kind: str) -> None:
    """Tell of a service that failed."""
    _watcher.trouble(service, kind)
