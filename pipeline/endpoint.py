"""OpenAI-compatible servers, whoever asks them: requests, and what their refusals mean."""

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from pipeline.cancellation import result_of
from pipeline.errors import ConfigError, JobError, Refused, Unavailable
from pipeline.http import Answer, BadAnswer, Exchange, worth_another_try
from pipeline.lines import one_line
from pipeline.telemetry import charge
from pipeline.watchdog import suspended

LARGEST_ANSWER = 2_000_000
"""Most bytes of an answer."""
CHAT = "/chat/completions"

Choice = TypeVar("Choice", bound=BaseModel)
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class _Completion(BaseModel):
    choices: list[Any]


class Endpoint:
    """One interface of the server at PRESSRUN_<ROLE>_URL, chat completions unless `path` names
    another one, for any number of threads.
    """

    def __init__(self, role: str, url: str, api_key: SecretStr, path: str = CHAT) -> None:
        self._whose, self._setting = f"the {role}'s", f"PRESSRUN_{role.upper()}_URL"
        try:
            base = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"{self._setting}: {error}") from error
        if base.scheme not in {"http", "https"} or not base.host:
            raise ConfigError(f"{self._setting}: must begin with http:// or https://")
        # its query stays: Azure expects an API version there
        self._url = base.copy_with(path=base.path.rstrip("/") + path)
        self._key, key = api_key, api_key.get_secret_value()
        # the second one is Azure's
        headers = {"Authorization": f"Bearer {key}", "api-key": key} if key else {}
        self._client = Exchange(headers=headers)

    def post(self, body: dict[str, Any], seconds: float) -> Answer:
        """The final answer to one request. Raises Unavailable where there is none, JobError for one
        that is too large, or compressed.
        """
        url = self._url
        # without user, password and query, which may hold keys
        place = f"{url.scheme}://{url.netloc.decode()}{url.path}"
        try:
            answer = self._client.post(
                url, json=body, seconds=seconds, largest=LARGEST_ANSWER, again=_may_pass
            )
        except TimeoutError as error:
            raise Unavailable(f"{place}: no answer within {seconds:g} s") from error
        except BadAnswer as error:
            raise JobError(f"{self._whose} server sent an answer of {error}") from error
        except httpx.TransportError as error:
            raise Unavailable(f"{place}: {str(error) or type(error).__name__}") from error
        meant = in_earnest(answer)
        if _may_pass(answer):
            said = self._without_key(error_message(meant))
            status = f"status {meant.status}"
            raise Unavailable(f"{place}: {status}: {said}" if said else f"{place}: {status}")
        return meant

    def choice(self, answer: Answer, shape: type[Choice]) -> Choice:
        """The first choice of a chat completion. Raises JobError for any other answer."""
        try:
            choices = _Completion.model_validate_json(answer.body).choices
            if choices:
                return shape.model_validate(choices[0])
        except ValidationError as error:
            said = "something else than a chat completion"
            raise JobError(f"{self._whose} server sent {said}") from error
        raise JobError(f"{self._whose} server sent a chat completion without any choices")

    def refusal(self, answer: Answer) -> JobError | Refused:
        """The error that an answer stands for whose status is not 200; Refused where every job
        would get it.
        """
        said = self._without_key(error_message(answer))
        if 300 <= answer.status < 400:
            place = answer.headers.get("location", "nowhere")
            said = f"it is at {self._without_key(place)}; correct {self._setting}"
        reason = f"{self._whose} server refused ({answer.status}): {said}"
        # some servers say so of what they will not write
        about_words = answer.status == 403 and ("moderation" in said or "flagged" in said)
        every = answer.status in {401, 402, 403, 404, 429} or 300 <= answer.status < 400
        return Refused(reason) if every and not about_words else JobError(reason)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _without_key(self, message: str) -> str:
        """The message on one line without our key, which some servers repeat."""
        key = self._key.get_secret_value()
        return one_line(message.replace(key, "…") if key else message, 300)


class ParallelEndpoint(Endpoint):
    """An endpoint that a job asks several things at once; `at_once` calls are in flight, of all
    jobs together.
    """

    def __init__(
        self, role: str, url: str, api_key: SecretStr, at_once: int, path: str = CHAT
    ) -> None:
        super().__init__(role, url, api_key, path)
        self._role, self._threads = role, ThreadPoolExecutor(at_once, role)

    @suspended()
    def each(self, ask: Callable[[Asked], Answered], asked: Iterable[Asked]) -> list[Answered]:
        """The answers of `ask`, in order; their time is charged to the role. Raises what a call
        or `asked` raises, and then makes no call that has not begun.
        """
        start, calls = time.perf_counter(), list[Future[Answered]]()
        try:
            for each in asked:
                calls.append(self._threads.submit(ask, each))
            return [result_of(call) for call in calls]
        finally:
            for call in calls:
                call.cancel()
            charge(self._role, time.perf_counter() - start)

    def close(self) -> None:
        """Close the connections, without waiting for answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        super().close()


def _may_pass(answer: Answer) -> bool:
    """True where the same request may succeed later; waiting cannot help a spent quota."""
    answer = in_earnest(answer)
    error = _parsed(answer.body).get("error")
    codes = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    spent = any(code in ("insufficient_quota", "billing_hard_limit_reached") for code in codes)
    return worth_another_try(answer.status) and not (answer.status == 429 and spent)


def in_earnest(answer: Answer) -> Answer:
    """The answer, with the status of an error that was sent with status 200."""
    error = _parsed(answer.body).get("error") if answer.status == 200 else None
    if not error:
        return answer
    code = error.get("code") if isinstance(error, dict) else None
    known = isinstance(code, int) and 400 <= code < 600
    return replace(answer, status=int(str(code)) if known else 502)


def error_message(answer: Answer) -> str:
    """The error message in an answer, in any of the usual shapes."""
    value = _parsed(answer.body)
    error = value.get("error", value.get("detail", value)) or answer.body.decode(errors="replace")
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _parsed(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; an empty one for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
