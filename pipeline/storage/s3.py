"""A store in a bucket of S3 or of a server that speaks its protocol."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from pipeline.errors import StoreError, Unconditional
from pipeline.ports import BLOB_LIMIT, Blob
from pipeline.storage.keys import check_key, check_prefix
from pipeline.storage.s3_download import download
from pipeline.storage.s3_errors import CREDENTIALS, MISSING, code, explained, tell
from pipeline.storage.s3_upload import Condition, Encryption, Upload

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import (
        CopySourceTypeDef,
        ListObjectsV2OutputTypeDef,
        MultipartUploadTypeDef,
        ResponseMetadataTypeDef,
    )

Result = TypeVar("Result")
Addressing = Literal["auto", "path", "virtual"]

CONNECT_SECONDS = 5
READ_SECONDS = 30
ATTEMPTS = 8
FIRST_SECONDS, FIRST_ATTEMPTS = 5.0, 2
"""Limits for the first request to a server, which fails fast because the address may be wrong."""
CONNECTIONS = 64

_CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
_EXISTS = frozenset({"PreconditionFailed", "412"})
# an upload in parts whose end was answered by an error may have ended all the same
_AGAIN = _CONFLICTS | {"NoSuchUpload"}


class S3Store:
    """The Store port over the objects below `prefix` in a bucket.

    Credentials come from the SDK's own chain: the environment, a profile, the machine's role.
    `endpoint_url` is empty for AWS itself. One client serves many threads. A request times out
    after `read_seconds` of silence and is made at most `attempts` times. Where `conditional` is
    False, for servers that ignore If-None-Match, `put` with `new` is a check followed by a write,
    and the caller keeps other writers away. Raises StoreError for an endpoint with credentials in
    its URL, which is shown to people.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        endpoint_url: str = "",
        region: str = "us-east-1",
        *,
        encryption: Encryption | None = None,
        conditional: bool = True,
        addressing: Addressing = "auto",
        attempts: int = ATTEMPTS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._bucket, self._endpoint = bucket, endpoint_url.rstrip("/")
        self._prefix = check_key(prefix.strip("/")) + "/" if prefix.strip("/") else ""
        self._encryption, self.conditional = encryption or Encryption(), conditional
        if endpoint_url and not endpoint_url.startswith(("http://", "https://")):
            raise StoreError("PRESSRUN_S3_ENDPOINT_URL must begin with http:// or https://")
        if "@" in urlsplit(endpoint_url).netloc:
            raise StoreError(f"keep credentials out of the endpoint's URL; {CREDENTIALS}")
        self._read_seconds = read_seconds
        with self._explained("open"):
            self._client = _connect(endpoint_url, region, addressing, attempts, read_seconds)

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        """One request, or several for a large blob; with `new`, If-None-Match: *."""
        name = self._prefix + check_key(key)
        with self._explained(key):
            if new and not self.conditional:
                return not self._exists(name) and self._put(name, data, content_type, False)
            return self._put(name, data, content_type, new)

    def get(self, key: str, most: int = BLOB_LIMIT) -> bytes:
        """The object's bytes."""
        with self._explained(key):
            return self._download(key, b"".join, most)

    def has(self, key: str) -> bool:
        """One request for the object's metadata."""
        with self._explained(key):
            return self._exists(self._prefix + check_key(key))

    def fetch(self, key: str, path: Path) -> None:
        """One request, as for `get`."""

        def save(chunks: Iterable[bytes]) -> None:
            with path.open("wb") as file:
                for chunk in chunks:
                    try:
                        file.write(chunk)
                    except OSError as error:  # no fault of the server's
                        raise StoreError(f"{path}: {error.strerror}") from error

        with self._explained(key):
            self._download(key, save)

    def reach(self) -> None:
        """Raise StoreError where no server answers; any answer is fine."""
        with self._explained(""), suppress(ClientError):
            self._client.head_bucket(Bucket=self._bucket)

    def move(self, key: str, target: str) -> bool:
        """Copy the object on the server, then remove it; in between, others see both."""
        name, to = self._prefix + check_key(key), self._prefix + check_key(target)
        source: CopySourceTypeDef = {"Bucket": self._bucket, "Key": name}
        with self._explained(key):
            try:
                self._client.copy_object(
                    Bucket=self._bucket,
                    Key=to,
                    CopySource=source,
                    **self._encryption,
                )
            except ClientError as error:
                if code(error) in MISSING:
                    return False
                raise
            self._client.delete_object(Bucket=self._bucket, Key=name)
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """Page by page, in the order of the server, which sorts."""
        for page in self._pages(check_prefix(prefix), ""):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    yield self._relative(item["Key"])

    def listing(self, prefix: str) -> Iterator[Blob]:
        """Page by page; ages by the clock in the server's answer."""
        for page in self._pages(check_prefix(prefix), ""):
            now = self._clock(page["ResponseMetadata"])
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    age = _seconds(now, item["LastModified"])
                    yield Blob(self._relative(item["Key"]), item["Size"], age)

    def folders(self, prefix: str) -> Iterator[str]:
        """The server's common prefixes."""
        for page in self._pages(check_prefix(prefix), "/"):
            for group in page.get("CommonPrefixes", []):
                yield self._relative(group["Prefix"])[len(prefix) :].rstrip("/")

    def delete(self, key: str) -> None:
        """Remove the object."""
        with self._explained(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + check_key(key))

    def sweep(self, prefix: str, older: float) -> int:
        """Abort old unfinished multipart uploads, where the server can list them."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=self._prefix + check_prefix(prefix)
        )
        old: list[MultipartUploadTypeDef] = []
        with self._explained(prefix):
            try:
                for page in pages:
                    now = self._clock(page["ResponseMetadata"])
                    begun = page.get("Uploads", [])
                    old += [each for each in begun if _seconds(now, each["Initiated"]) > older]
            except ClientError as error:
                # some servers answer the last one where there is no upload at all
                if code(error) not in ("NotImplemented", "MethodNotAllowed", "NoSuchUpload"):
                    raise
            for upload in old:
                try:
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                except ClientError as error:
                    if code(error) != "NoSuchUpload":  # another ended it meanwhile
                        raise
        return len(old)

    def address(self, key: str) -> str:
        """An s3:// address on AWS, else the URL of the object at the endpoint."""
        name = self._prefix + (check_key(key) if key else "")
        if not self._endpoint:
            return f"s3://{self._bucket}/{name}".rstrip("/")
        return f"{self._endpoint}/{self._bucket}/{quote(name)}".rstrip("/")

    @retry(
        retry=retry_if_exception(lambda error: code(error) in _AGAIN),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        stop=stop_after_attempt(8),
        reraise=True,
    )
    def _put(self, name: str, data: bytes, content_type: str, new: bool) -> bool:
        condition = Condition(IfNoneMatch="*") if new else Condition()
        upload = Upload(self._bucket, name, data, content_type, condition, self._encryption)
        try:
            upload.send(self._client)
        except ClientError as error:
            if new and code(error) in _EXISTS:
                return False
            if new and code(error) == "NotImplemented":
                raise Unconditional(f"{self._where} does not know If-None-Match.") from None
            raise
        return True

    def _exists(self, name: str) -> bool:
        try:
            self._client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as error:
            if code(error) in MISSING:
                return False
            raise
        return True

    def _download(
        self, key: str, take: Callable[[Iterable[bytes]], Result], most: int | None = None
    ) -> Result:
        return download(
            self._client,
            self._bucket,
            self._prefix + check_key(key),
            take,
            where=self._where,
            read_seconds=self._read_seconds,
            most=most,
        )

    def _pages(self, prefix: str, delimiter: str) -> Iterator["ListObjectsV2OutputTypeDef"]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, Delimiter=delimiter
        )
        with self._explained(prefix):
            yield from pages

    def _clock(self, metadata: "ResponseMetadataTypeDef") -> datetime:
        """The server's time in an answer. Raises StoreError without one: by our own clock a blob
        could seem old enough to be removed.
        """
        try:
            return parsedate_to_datetime(metadata["HTTPHeaders"]["date"])
        except (KeyError, ValueError):
            raise StoreError(f"{self._where} answers without a Date; ages need one") from None

    def _relative(self, name: str) -> str:
        return name[len(self._prefix) :]

    @property
    def _where(self) -> str:
        return f"bucket {self._bucket!r} at {self._endpoint or 'AWS'}"

    def _explained(self, key: str) -> AbstractContextManager[None]:
        return explained(self._where, key)


def _seconds(now: datetime, then: datetime) -> float:
    return max(0.0, (now - then).total_seconds())


def _connect(
    endpoint_url: str, region: str, addressing: Addressing, attempts: int, read_seconds: float
) -> "S3Client":
    # most servers that are not AWS know paths alone
    style = "path" if endpoint_url and addressing == "auto" else addressing
    config = Config(
        signature_version="s3v4",
        # exponential, with full jitter; the standard mode also spends from a budget that a create
        # found done when it is tried again never pays back, so that in the end nothing is retried
        retries={"mode": "legacy", "total_max_attempts": attempts},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=read_seconds,
        max_pool_connections=CONNECTIONS,
        request_checksum_calculation="when_required",
        s3={"addressing_style": style},
    )
    # a session of our own: boto3's default one is not safe to use from many threads
    session = boto3.session.Session()
    client: S3Client = session.client(
        "s3", endpoint_url=endpoint_url or None, region_name=region, config=config
    )
    # after each attempt, also those that the SDK repeats in silence
    client.meta.events.register("needs-retry.s3", tell)
    return client
