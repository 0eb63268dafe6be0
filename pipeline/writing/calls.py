"""One POST to a server that may be busy, slow or broken: time limit, size limit, retries."""

import json
from dataclasses import replace
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
from pipeline.http import Answer, BadAnswer, Exchange
from pipeline.writing.lines import one_line

ATTEMPTS = 4
LONGEST_WAIT = 30.0
"""Most seconds between tries, even where the server requests more."""
LARGEST_ANSWER = 2_000_000
"""Most bytes of an answer."""


class _Again(Exception):
    """A failure worth another try, after `wait` seconds where the server says so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def ask_patiently(
    client: Exchange, url: httpx.URL, body: dict[str, Any], *, limit: float, first_wait: float
) -> Answer:
    """The server's final answer to `body` as JSON; each try takes at most `limit` seconds.

    Broken connections, 408, 5xx and 429 (except for a used-up quota) are retried with jittered
    waits that begin at `first_wait` seconds. Raises Unavailable after the last try and past the
    time limit, JobError for an answer larger than LARGEST_ANSWER, or compressed.
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


def _ask(client: Exchange, url: httpx.URL, body: dict[str, Any], limit: float) -> Answer:
    try:
        answer = client.post(url, json=body, seconds=limit, largest=LARGEST_ANSWER)
    except TimeoutError as error:
        raise Unavailable(f"{_place(url)}: no answer within {limit:g} s") from error
    except BadAnswer as error:
        raise JobError(f"the writer's server sent an answer of {error}") from error
    except httpx.TransportError as error:
        raise _Again(str(error) or type(error).__name__) from error
    answer = _in_earnest(answer)
    status = answer.status
    if status in {408, 429} or status >= 500:
        if status == 429 and quota_is_used_up(answer):
            return answer
        said = one_line(error_message(answer), 300)
        raise _Again(
            f"status {status}: {said}" if said else f"status {status}", _retry_after(answer)
        )
    return answer


def _in_earnest(answer: Answer) -> Answer:
    """The answer, with the status of an error that was sent with status 200."""
    error = _parsed(answer.body).get("error") if answer.status == 200 else None
    if not error:
        return answer
    code = error.get("code") if isinstance(error, dict) else None
    known = isinstance(code, int) and 400 <= code < 600
    return replace(answer, status=int(str(code)) if known else 502)


def quota_is_used_up(answer: Answer) -> bool:
    """True where waiting cannot help, because the account's quota is spent."""
    error = _parsed(answer.body).get("error")
    codes = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    return any(code in ("insufficient_quota", "billing_hard_limit_reached") for code in codes)


def _parsed(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; an empty one for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _retry_after(response: Answer) -> float | None:
    """Seconds to wait by the `Retry-After` header, a number or a date; None without one."""
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
    """The error message in an answer, in any of the usual shapes."""
    value = _parsed(answer.body)
    error = value.get("error", value.get("detail", value)) or answer.body.decode(errors="replace")
    return str(error.get("message", error) if isinstance(error, dict) else error)
