"""A store in a bucket of S3 or of a server that speaks its protocol."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from pipeline.errors import StoreError
from pipeline.storing.keys import check_key, check_prefix

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, PutObjectRequestTypeDef

CONNECT_SECONDS = 5
READ_SECONDS = 60
CONNECTIONS = 64

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role"
_HINTS = {
    "NoSuchBucket": "there is no such bucket; create it or correct PRESSRUN_STORE",
    "AccessDenied": "access denied; give these credentials list, get, put and delete",
    "InvalidAccessKeyId": f"the server does not know this access key; {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret does not fit the access key; {_CREDENTIALS}",
    "ExpiredToken": f"the credentials have expired; {_CREDENTIALS}",
    "PermanentRedirect": "the bucket is in another region; correct PRESSRUN_S3_REGION",
    "AuthorizationHeaderMalformed": "wrong region; correct PRESSRUN_S3_REGION",
    "NotImplemented": "the server lacks conditional writes (If-None-Match); use one that has them",
}
_HINTS["403"] = _HINTS["AccessDenied"]
_HINTS["301"] = _HINTS["PermanentRedirect"]

_CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
_EXISTS = frozenset({"PreconditionFailed", "412"})
_MISSING = frozenset({"NoSuchKey", "404"})
_BROKEN_BODY = (HTTPClientError, IncompleteReadError, FlexibleChecksumError)


class S3Store:
    """The Store port over the objects below `prefix` in a bucket.

    Credentials come from the SDK's own chain: the environment, a profile, the machine's role.
    `endpoint_url` is empty for AWS itself. One client serves many threads. Raises StoreError for
    an endpoint that carries credentials: it is shown to people.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        endpoint_url: str = "",
        region: str = "us-east-1",
        attempts: int = 5,
    ) -> None:
        self._bucket, self._endpoint = bucket, endpoint_url.rstrip("/")
        self._prefix = check_key(prefix.strip("/")) + "/" if prefix.strip("/") else ""
        if "@" in urlsplit(endpoint_url).netloc:
            raise StoreError(f"keep credentials out of the endpoint's URL; {_CREDENTIALS}")
        with self._explained("open"):
            self._client = _connect(endpoint_url, region, attempts)

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        """One PUT with a SHA-256 that the server checks; with `new`, If-None-Match: *.

        After a lost response the SDK's second try may find our own object and answer False.
        """
        with self._explained(key):
            return self._put(self._prefix + check_key(key), data, content_type, new)

    def get(self, key: str) -> bytes:
        """The object's bytes."""
        with self._explained(key):
            return self._get(self._prefix + check_key(key))

    def keys(self, prefix: str) -> Iterator[str]:
        """Page by page, in the order of the server, which sorts."""
        for page in self._pages(check_prefix(prefix), ""):
            names = (item["Key"] for item in page.get("Contents", []))
            yield from (self._relative(name) for name in names if not name.endswith("/"))

    def folders(self, prefix: str) -> Iterator[str]:
        """What the server groups as common prefixes."""
        for page in self._pages(check_prefix(prefix), "/"):
            for group in page.get("CommonPrefixes", []):
                yield self._relative(group["Prefix"])[len(prefix) :].rstrip("/")

    def delete(self, key: str) -> None:
        """Remove the object."""
        with self._explained(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + check_key(key))

    def address(self, key: str) -> str:
        """An s3:// address on AWS, else the URL of the object at the endpoint."""
        name = self._prefix + (check_key(key) if key else "")
        if not self._endpoint:
            return f"s3://{self._bucket}/{name}".rstrip("/")
        return f"{self._endpoint}/{self._bucket}/{quote(name)}".rstrip("/")

    @retry(
        retry=retry_if_exception(lambda error: _code(error) in _CONFLICTS),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        stop=stop_after_attempt(8),
        reraise=True,
    )
    def _put(self, name: str, data: bytes, content_type: str, new: bool) -> bool:
        # the checksum as a plain header: many servers do not know the SDK's trailing one
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        request: PutObjectRequestTypeDef = {
            "Bucket": self._bucket,
            "Key": name,
            "Body": data,
            "ContentType": content_type,
            "ChecksumSHA256": checksum,
        }
        if new:
            request["IfNoneMatch"] = "*"
        try:
            self._client.put_object(**request)
        except ClientError as error:
            if new and _code(error) in _EXISTS:
                return False
            raise
        return True

    # the SDK retries a request, but not a body that breaks off
    @retry(
        retry=retry_if_exception(lambda error: isinstance(error, _BROKEN_BODY)),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        stop=stop_after_attempt(3),
        reraise=True,
    )
    def _get(self, name: str) -> bytes:
        return self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()

    def _pages(self, prefix: str, delimiter: str) -> Iterator["ListObjectsV2OutputTypeDef"]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, Delimiter=delimiter
        )
        with self._explained(prefix):
            yield from pages

    def _relative(self, name: str) -> str:
        return name[len(self._prefix) :]

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn the SDK's errors into ours. Its own text is dropped, as it may quote headers."""
        try:
            yield
        except ClientError as error:
            if _code(error) in _MISSING:
                raise KeyError(key) from None
            self._refuse(_HINTS.get(_code(error), f"the server answered {_code(error)}"))
        except (NoCredentialsError, PartialCredentialsError, TokenRetrievalError):
            self._refuse(f"no credentials found; {_CREDENTIALS}")
        except (ConnectionError, HTTPClientError) as error:
            hint = "correct PRESSRUN_S3_ENDPOINT_URL or start the server"
            self._refuse(f"no answer ({type(error).__name__}); {hint}")
        except (BotoCoreError, ValueError) as error:
            self._refuse(f"the request failed with {type(error).__name__}")

    def _refuse(self, detail: str) -> NoReturn:
        where = self._endpoint or "AWS"
        raise StoreError(f"bucket {self._bucket!r} at {where}: {detail}") from None


def _code(error: BaseException) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def _connect(endpoint_url: str, region: str, attempts: int) -> "S3Client":
    config = Config(
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        request_checksum_calculation="when_required",
        s3={"addressing_style": "path" if endpoint_url else "auto"},
    )
    # a session of our own: boto3's default one is not safe to use from many threads
    session = boto3.session.Session()
    client: S3Client = session.client(
        "s3", endpoint_url=endpoint_url or None, region_name=region, config=config
    )
    return client
