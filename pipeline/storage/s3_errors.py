"""Translation of the S3 SDK's errors into our own, with remedies."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    TokenRetrievalError,
)

from pipeline.errors import StoreError, StoreFull
from pipeline.telemetry import trouble

CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role"
MISSING = frozenset({"NoSuchKey", "404"})

_FULL = frozenset({"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded", "507"})
_HINTS = {
    "NoSuchBucket": "there is no such bucket; create it or correct PRESSRUN_STORE",
    "AccessDenied": "access denied; docs/settings.md lists what these credentials must be allowed",
    "InvalidAccessKeyId": f"the server does not know this access key; {CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret does not fit the access key; {CREDENTIALS}",
    "ExpiredToken": f"the credentials have expired; {CREDENTIALS}",
    "PermanentRedirect": "the bucket is in another region; correct PRESSRUN_S3_REGION",
    "AuthorizationHeaderMalformed": "wrong region; correct PRESSRUN_S3_REGION",
    "RequestTimeTooSkewed": "this machine's clock is wrong, or the server's; set it",
    "SecondLevelDomainForbidden": "it takes no path-style addresses; "
    "set PRESSRUN_S3_ADDRESSING=virtual",
    "KMS.NotFoundException": "there is no such key; correct PRESSRUN_S3_KMS_KEY",
    "KMS.DisabledException": "the key is disabled; correct PRESSRUN_S3_KMS_KEY",
}
# no such blob, a blob that is there already, what a server does not know
_USUAL = frozenset({404, 405, 409, 412, 501})
_HINTS["403"] = _HINTS["AccessDenied"]
_HINTS["301"] = _HINTS["PermanentRedirect"]


def code(error: BaseException) -> str:
    """The server's error code; empty for errors without an answer."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def tell(response: Any = None, caught_exception: Exception | None = None, **_: Any) -> None:
    """Report a failed attempt to telemetry; an SDK event handler without influence on retries."""
    status = response[0].status_code if response else 0
    if caught_exception is not None:
        trouble("store", type(caught_exception).__name__)
    elif status >= 400 and status not in _USUAL:
        trouble("store", str(status))


@contextmanager
def explained(where: str, key: str) -> Iterator[None]:
    """Turn the SDK's errors into ours: KeyError for a missing `key`, else StoreError or StoreFull.

    The SDK's own text is dropped, as it may quote headers.
    """
    try:
        yield
    except ClientError as error:
        if code(error) in MISSING:
            raise KeyError(key) from None
        kind = StoreFull if code(error) in _FULL else StoreError
        hint = _HINTS.get(code(error), f"the server answered {code(error)}")
        raise kind(f"{where}: {hint}") from None
    except (BotoCoreError, ValueError) as error:
        match error:
            case NoCredentialsError() | PartialCredentialsError() | TokenRetrievalError():
                problem = f"no credentials found; {CREDENTIALS}"
            case ProfileNotFound():
                problem = f"there is no profile {error.kwargs['profile']!r}; correct AWS_PROFILE"
            case ResponseStreamingError():
                problem = f"no object came whole and unchanged ({error.kwargs['error']})"
            case ConnectionError() | HTTPClientError():
                hint = "correct PRESSRUN_S3_ENDPOINT_URL or start the server"
                problem = f"no answer ({type(error).__name__}); {hint}"
            case _:
                problem = f"the request failed with {type(error).__name__}"
        raise StoreError(f"{where}: {problem}") from None
