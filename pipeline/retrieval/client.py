"""Connects to the knowledge base: a Qdrant server, or Qdrant's local mode in a folder."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from pipeline.errors import ConfigError, InUse, Unavailable
from pipeline.telemetry import trouble

TIMEOUT = 20
"""Seconds to wait for one response."""

LOOK_AGAIN = 0.2
"""Seconds between two attempts at a folder that another process holds."""

_LOCAL = threading.Lock()


def open_client(url: str, api_key: str, folder: Path, patience: float = 0.0) -> QdrantClient:
    """A client of the server at `url`; without a url, of the local knowledge base in `folder`.

    A local folder serves one process at a time and must be trusted: Qdrant keeps it in pickles.
    Raises InUse if another process still holds it after `patience` seconds, Unavailable if the
    server does not answer, ConfigError if it cannot be used.
    """
    until = time.monotonic() + patience
    while not url:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # `calling` holds a lock around every call instead of keeping them to one thread
            return QdrantClient(path=str(folder), force_disable_check_same_thread=True)
        except RuntimeError as error:
            if "already accessed" not in str(error):
                raise
            if time.monotonic() > until:
                raise InUse(
                    f"{_holder(folder)} holds {folder}; PRESSRUN_QDRANT_URL names the server."
                ) from None
        except OSError as error:
            reason = f"The knowledge base in {folder} cannot be opened: {error}."
            reason += " PRESSRUN_HOME names another place for it."
            raise ConfigError(reason) from error
        time.sleep(LOOK_AGAIN)
    # the version check only warns if nothing answers; the call below raises
    client = QdrantClient(
        url=url, api_key=api_key or None, timeout=TIMEOUT, check_compatibility=False
    )
    try:
        with calling(client):
            client.get_collections()
    except UnexpectedResponse as error:
        raise ConfigError(
            f"What answers at PRESSRUN_QDRANT_URL is no Qdrant server: status {error.status_code}."
        ) from error
    return client


def _holder(folder: Path) -> str:
    """The process that holds the lock of a local knowledge base, or `It` if that is unknown."""
    with suppress(OSError, ValueError):
        inode = str((folder / ".lock").stat().st_ino)
        for lock in Path("/proc/locks").read_text().splitlines():
            _, _, _, _, process, file, *_ = lock.split()
            if file.rpartition(":")[2] == inode:
                return f"Process {process}"
    return "It"


@contextmanager
def calling(client: QdrantClient) -> Iterator[None]:
    """The context of each call to Qdrant; in local mode, which has no locks, one at a time.

    Raises Unavailable for a server that is away or overloaded, ConfigError for a refused key.
    """
    try:
        with _LOCAL if is_local(client) else nullcontext():
            yield
    except UnexpectedResponse as error:
        status = error.status_code or 500
        if status != 404:
            trouble("qdrant", str(status))
        if status in (401, 403):
            raise ConfigError("Qdrant refused PRESSRUN_QDRANT_API_KEY.") from error
        if status >= 500 or status in (408, 429):
            raise Unavailable(f"Qdrant answered {status}.") from error
        raise
    except (ApiException, QdrantException) as error:
        trouble("qdrant", type(getattr(error, "source", error)).__name__)
        raise Unavailable(f"Qdrant did not answer: {error}.") from error


def is_local(client: QdrantClient) -> bool:
    """True if the knowledge base lives in this process."""
    options = client.init_options
    return bool(options["path"] or options["location"] == ":memory:")
