"""The download of one S3 object: whole, in time and with its checksum."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import (
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from tenacity import (
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from pipeline.errors import StoreError, TooLarge
from pipeline.storage.s3_upload import CHECKSUM, printed
from pipeline.telemetry import trouble

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3 import S3Client

Result = TypeVar("Result")

SLOWEST = 50_000
"""Least bytes per second of a download, beyond a fixed time for each object."""

_CHUNK = 1024 * 1024
_BROKEN_BODY = (HTTPClientError, IncompleteReadError, FlexibleChecksumError, OSError)


# the SDK retries a request, but not a body that broke off or changed, as when the object is
# overwritten meanwhile
@retry(
    retry=retry_if_exception_type(ResponseStreamingError),
    wait=wait_random_exponential(multiplier=0.1, max=2),
    stop=stop_after_attempt(8),
    reraise=True,
)
def download(
    client: "S3Client",
    bucket: str,
    key: str,
    take: Callable[[Iterable[bytes]], Result],
    *,
    where: str,
    read_seconds: float,
    most: int | None = None,
) -> Result:
    """The result of `take` on an object's body in chunks.

    Raises TooLarge for a body of more than `most` bytes, StoreError for one that takes much longer
    than `read_seconds` and its size need, both with `where`, and the SDK's errors.
    """
    answer = client.get_object(Bucket=bucket, Key=key)
    body: Any = answer["Body"]
    size, late = answer["ContentLength"], threading.Event()
    if most is not None and size > most:
        body.close()
        raise TooLarge(f"{where}: {key} has {size} bytes, over {most}")

    def cut_off() -> None:
        late.set()
        with suppress(ValueError, RuntimeError):  # it has just ended
            body._raw_stream.shutdown()  # a timeout of the SDK is for each read by itself

    seconds = 2 * read_seconds + size / SLOWEST
    watch = threading.Timer(seconds, cut_off)
    watch.daemon = True
    watch.start()
    try:
        return take(_checked(body, answer["Metadata"]))
    except _BROKEN_BODY as error:
        if late.is_set():
            raise StoreError(f"{where}: no whole object in {seconds:.0f} s") from None
        trouble("store", type(error).__name__)
        raise ResponseStreamingError(error=type(error).__name__) from None
    finally:
        watch.cancel()


def _checked(body: "StreamingBody", metadata: Mapping[str, str]) -> Iterator[bytes]:
    """The body in chunks. Raises FlexibleChecksumError at its end for a wrong checksum."""
    read = hashlib.sha256()
    for chunk in body.iter_chunks(_CHUNK):
        read.update(chunk)
        yield chunk
    # some servers change the name's case; objects that other programs stored have none
    known = {name.lower(): value for name, value in metadata.items()}
    if known.get(CHECKSUM, printed(read)) != printed(read):
        raise FlexibleChecksumError(error_msg=f"not the {CHECKSUM} that it was put with")
