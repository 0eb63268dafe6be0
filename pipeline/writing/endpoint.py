"""The writer that calls an OpenAI-compatible server: LM Studio, vLLM, Ollama, Azure and others."""

import json
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx
import structlog
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, create_model

from pipeline.errors import ConfigError, JobError, Refused, Unavailable
from pipeline.http import Answer, BadAnswer, Exchange, worth_another_try
from pipeline.job import Brief, CheckKind, Context, Job, Rejected
from pipeline.profile import EndpointWriterProfile
from pipeline.telemetry import charge, notice
from pipeline.watchdog import suspended
from pipeline.writing.lines import one_line
from pipeline.writing.messages import messages_for, texts_read
from pipeline.writing.reply import CUT_OFF, Draft, brief_from, parse_reply

log = structlog.get_logger(__name__)

LARGEST_ANSWER = 2_000_000
"""Most bytes of an answer."""


@dataclass(frozen=True)
class Dialect:
    """The features of the interface that a server supports."""

    schema: bool = True
    temperature: bool = True
    limit: str = "max_tokens"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")  # strict schemas have to say so


class _Check(_Strict):
    kind: CheckKind
    question: str


class _Part(BaseModel):
    text: str = ""


class _Message(BaseModel):
    content: str | list[_Part] | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice]


class EndpointWriter:
    """The Writer port: one chat completion per job, with a JSON schema for the reply.

    After a server refuses a part of the request, all further requests leave that part out.
    """

    def __init__(self, profile: EndpointWriterProfile, url: str, api_key: SecretStr) -> None:
        try:
            base = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"PRESSRUN_WRITER_URL: {error}") from error
        if base.scheme not in {"http", "https"} or not base.host:
            raise ConfigError("PRESSRUN_WRITER_URL: must begin with http:// or https://")
        # its query stays: Azure expects an API version there
        self._url = base.copy_with(path=base.path.rstrip("/") + "/chat/completions")
        self._profile, self._key = profile, api_key
        key = api_key.get_secret_value()
        # the second one is Azure's
        headers = {"Authorization": f"Bearer {key}", "api-key": key} if key else {}
        self._client = Exchange(headers=headers)
        self._dialect = Dialect()

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        """The server's brief. Raises JobError for a refusal and for a reply without a prompt,
        Refused where the server would refuse every job, Unavailable when it does not answer in
        time.
        """
        start = time.perf_counter()
        answer = self._ask(job, context, rejected)
        charge("writer", time.perf_counter() - start)
        draft, read = _draft(answer), texts_read(job, context)
        return brief_from(job, context, draft, read, checks=0 if rejected else self._profile.checks)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @suspended()
    def _ask(self, job: Job, context: Context, rejected: Rejected | None) -> Answer:
        """The answer to the fullest request that the server accepts."""
        dialect, request = (known := self._dialect), partial(_request, self._profile)
        while (answer := self._post(request(dialect, job, context, rejected))).status != 200:
            said = error_message(answer)
            if answer.status not in {400, 422}:
                raise self._refusal(answer)
            # a simpler dialect, by the server's message
            if "max_completion_tokens" in said and dialect.limit == "max_tokens":
                dialect = replace(dialect, limit="max_completion_tokens")
            elif "temperature" in said and dialect.temperature:
                dialect = replace(dialect, temperature=False)
            elif dialect.schema:
                dialect = replace(dialect, schema=False)
            else:
                raise self._refusal(answer)
        if dialect != known:
            log.warning("the writer's server takes simpler requests only", dialect=repr(dialect))
            self._dialect = dialect
        return answer

    def _post(self, body: dict[str, Any]) -> Answer:
        """The final answer to one request. Raises Unavailable where there is none, JobError for one
        that is too large, or compressed.
        """
        url, limit = self._url, self._profile.timeout
        # without user, password and query, which may hold keys
        place = f"{url.scheme}://{url.netloc.decode()}{url.path}"
        try:
            answer = self._client.post(
                url, json=body, seconds=limit, largest=LARGEST_ANSWER, again=_may_pass
            )
        except TimeoutError as error:
            raise Unavailable(f"{place}: no answer within {limit:g} s") from error
        except BadAnswer as error:
            raise JobError(f"the writer's server sent an answer of {error}") from error
        except httpx.TransportError as error:
            raise Unavailable(f"{place}: {str(error) or type(error).__name__}") from error
        meant = in_earnest(answer)
        if _may_pass(answer):
            said = one_line(error_message(meant), 300)
            status = f"status {meant.status}"
            raise Unavailable(f"{place}: {status}: {said}" if said else f"{place}: {status}")
        return meant

    def _refusal(self, answer: Answer) -> JobError | Refused:
        said = self._without_key(error_message(answer))
        if 300 <= answer.status < 400:
            place = answer.headers.get("location", "nowhere")
            said = f"it is at {self._without_key(place)}; correct PRESSRUN_WRITER_URL"
        reason = f"the writer's server refused ({answer.status}): {said}"
        # some servers say so of what they will not write
        about_words = answer.status == 403 and ("moderation" in said or "flagged" in said)
        every = answer.status in {401, 402, 403, 404, 429} or 300 <= answer.status < 400
        return Refused(reason) if every and not about_words else JobError(reason)

    def _without_key(self, message: str) -> str:
        """The message on one line without our key, which some servers repeat."""
        key = self._key.get_secret_value()
        return one_line(message.replace(key, "…") if key else message, 300)


def _request(
    profile: EndpointWriterProfile,
    dialect: Dialect,
    job: Job,
    context: Context,
    rejected: Rejected | None,
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": profile.model,
        "messages": messages_for(
            job, context, "json" if dialect.schema else "lines", profile.checks, rejected
        ),
        dialect.limit: profile.max_tokens,
    }
    if dialect.temperature:
        body["temperature"] = profile.temperature
        if profile.temperature > 0:
            body["seed"] = job.seed % 2**63  # servers read a signed number
    if dialect.schema:
        checks = profile.checks and not rejected
        parts: dict[str, Any] = {"text": str} if job.mode == "generated" else {}
        parts |= {"prompt": str} | ({"checks": list[_Check]} if checks else {})
        shape = create_model("Brief", __base__=_Strict, **parts)
        schema = {"name": "brief", "strict": True, "schema": shape.model_json_schema()}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _draft(answer: Answer) -> Draft:
    try:
        choices = _Completion.model_validate_json(answer.body).choices
    except ValidationError as error:
        raise JobError("the writer's server sent something else than a chat completion") from error
    if not choices:
        raise JobError("the writer's server sent a chat completion without any choices")
    choice = choices[0]
    content = choice.message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    if not content:
        refusal = one_line(choice.message.refusal or "an empty reply", 300)
        raise JobError(f"the writer's server wrote nothing: {refusal}")
    draft = parse_reply(content)
    if not draft.prompt and choice.finish_reason == "length":
        raise JobError("the writer's reply was cut off; raise max_tokens in the profile's [writer]")
    if choice.finish_reason == "length":
        notice(CUT_OFF)
    return draft


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
