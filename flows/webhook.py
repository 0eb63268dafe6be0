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

from pipeline.http import BadAnswer, Exchange
from pipeline.masking import mask
from pipeline.settings import Settings

SIGNATURE = "X-Pressrun-Signature"
ATTEMPTS = 5
SECONDS = 10.0
LARGEST_ANSWER = 1 << 20
"""Bytes of the answer, which is not used."""

Ending = Literal["finished", "cancelled", "failed"]


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
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it names addresses
    try:
        with closing(Exchange()) as client:
            status = client.post(
                url,
                content=body,
                headers=headers,
                seconds=SECONDS,
                largest=LARGEST_ANSWER,
                attempts=attempts,
                timeouts_too=True,
            ).status
    except BadAnswer as error:  # the event has arrived all the same
        status = error.status
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
        # neither the address nor the error's own text, which names it: it may hold a token
        log.warning("the webhook was not told", run=run, reason=type(error).__name__)
        return
    if status // 100 != 2:
        log.warning("the webhook was not told", run=run, reason=f"status {status}")


def signature(secret: str, body: bytes) -> str:
    """The signature header: the body's HMAC-SHA256 in hexadecimal digits."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
