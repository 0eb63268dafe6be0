"""One POST to a server that may be busy, slow or broken: time limit, size limit, retries."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from pipeline.errors import JobError, Unavailable

ATTEMPTS = 4
LONGEST_WAIT = 30.0
"""Seconds, also where the server asks for more."""
LARGEST_ANSWER = 2_000_000
"""Bytes."""


@dataclass(frozen=True)
class Answer:
    """A server's final word: a status below 500 that is neither 408 nor 429."""

    status: int
    body: bytes


class _Again(Exception):
    """Worth another try, not before `wait` seconds where the server said so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def ask_patiently(
    client: httpx.Client, url: httpx.URL, body: dict[str, Any], *, limit: float, first_wait: float
) -> Answer:
    """POST `body` as JSON; each try may take `limit` seconds in all.

    Broken connections, 408, 429 and 5xx are tried again with jittered waits that begin at
    `first_wait` seconds; then, and past the time limit, Unavailable. JobError for an answer
    larger than LARGEST_ANSWER.
    """
    backoff = wait_exponential_jitter(multiplier=first_wait, max=LONGEST_WAIT, jitter=first_wait)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _Again) else None
        return backoff(state) if asked is None else min(asked, LONGEST_WAIT)

    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait,
        retry=retry_if_exception_type(_Again),
        reraise=True,
    )
    try:
        return retrying(_ask, client, url, body, limit)
    except _Again as error:
        raise Unavailable(f"{_place(url)}: {error}") from error


def _ask(client: httpx.Client, url: httpx.URL, body: dict[str, Any], limit: float) -> Answer:
    deadline = time.monotonic() + limit
    try:
        with client.stream("POST", url, json=body) as response:
            content = _content(response, deadline)
    except (httpx.ReadTimeout, httpx.WriteTimeout, TimeoutError) as error:
        raise Unavailable(f"{_place(url)}: no answer within {limit:g} s") from error
    except httpx.TransportError as error:
        raise _Again(str(error) or type(error).__name__) from error
    if response.status_code in {408, 429} or response.status_code >= 500:
        raise _Again(f"status {response.status_code}", _retry_after(response))
    return Answer(response.status_code, content)


def _content(response: httpx.Response, deadline: float) -> bytes:
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise JobError(f"the writer's server sent more than {LARGEST_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(content)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, given as a number or a date."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value[:6])
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def _place(url: httpx.URL) -> str:
    """The address without user, password and query, which may hold keys."""
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


def error_message(answer: Answer) -> str:
    """What the server says went wrong, in one of the usual shapes."""
    text = answer.body.decode(errors="replace")
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return text
    error = value.get("error", value) if isinstance(value, dict) else value
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)
