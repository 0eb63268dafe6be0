"""Opens the knowledge base: a Qdrant server, or Qdrant's local mode in a folder."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from pipeline.errors import ConfigError, InUse, Unavailable
from pipeline.watching import trouble

TIMEOUT = 20
"""Seconds to wait for one answer."""

_LOCAL = threading.Lock()


def open_client(url: str, api_key: str, folder: Path) -> QdrantClient:
    """A client of the server at `url`; with no url, of the local knowledge base in `folder`.

    A local folder serves one process at a time and is to be trusted: Qdrant keeps it in pickles.
    Raises ConfigError where another process holds it, Unavailable where no server answers.
    """
    if not url:
        return _open_folder(folder)
    # the version check would only warn where nothing answers; the call below raises
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


def _open_folder(folder: Path) -> QdrantClient:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # one lock around every call stands in for the check that calls stay in one thread
        return QdrantClient(path=str(folder), force_disable_check_same_thread=True)
    except RuntimeError as error:
        if "already accessed" not in str(error):
            raise
        raise InUse(f"PRESSRUN_QDRANT_URL names the server; the folder is {folder}.") from error
    except OSError as error:
        raise ConfigError(f"The knowledge base in {folder} cannot be opened: {error}.") from error


@contextmanager
def calling(client: QdrantClient) -> Iterator[None]:
    """Around each call: one at a time in local mode, which is not made for threads.

    Turns a server that is away or overloaded into Unavailable, a refused key into ConfigError.
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
    """Whether the knowledge base lives in this process."""
    options = client.init_options
    return bool(options["path"] or options["location"] == ":memory:")
