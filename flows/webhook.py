"""The webhook that is called when a run ends.

Prefect's own automations can post too, but do not sign and know none of our counts.
"""

import hashlib
import hmac
import json
import logging
import uuid
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Literal

import httpx
import structlog
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from pipeline.http import BadAnswer, Exchange
from pipeline.masking import mask
from pipeline.settings import Settings

SIGNATURE = "X-Pressrun-Signature"
ATTEMPTS = 5
LONGEST_PAUSE = 10.0
SECONDS = 10.0
LARGEST_ANSWER = 1 << 20
"""Bytes of the answer, which is not used."""

Ending = Literal["finished", "cancelled", "failed"]


class _Status(Exception):
    """The address answered with a status that is no success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


log = structlog.get_logger(__name__)


def notify(
    settings: Settings, run: str, ending: Ending, facts: dict[str, Any], attempts: int = ATTEMPTS
) -> None:
    """Post the end of a run if a webhook is configured. Never raises."""
    url = settings.webhook.get_secret_value()
    if not url:
        return
    sent = {"id": uuid.uuid4().hex, "sent_at": datetime.now(UTC).isoformat(timespec="seconds")}
    body = mask(json.dumps({"event": ending, "run": run, **sent, **facts})).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "pressrun"}
    if secret := settings.webhook_secret.get_secret_value():
        headers[SIGNATURE] = signature(secret, body)
    try:
        _post(url, body, headers, attempts)
    except (_Status, TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
        # neither the address nor the error's own text, which names it: it may hold a token
        reason = str(error) if isinstance(error, _Status) else type(error).__name__
        log.warning("the webhook was not told", run=run, reason=reason)


def signature(secret: str, body: bytes) -> str:
    """The signature header: the body's HMAC-SHA256 in hexadecimal digits."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _post(url: str, body: bytes, headers: dict[str, str], attempts: int) -> None:
    retrying = Retrying(
        retry=retry_if_exception(_may_pass),
        wait=wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE),
        stop=stop_after_attempt(attempts),
        reraise=True,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it names addresses
    with closing(Exchange()) as client:
        for attempt in retrying:
            with attempt:
                try:
                    status = client.post(
                        url, content=body, headers=headers, seconds=SECONDS, largest=LARGEST_ANSWER
                    ).status
                except BadAnswer as error:  # the event has arrived all the same
                    status = error.status
                if status // 100 != 2:
                    raise _Status(status)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, _Status):
        return error.status >= 500 or error.status in (408, 429)
    return isinstance(error, (TimeoutError, httpx.TransportError)) and not isinstance(
        error, httpx.UnsupportedProtocol
    )
