"""The writer that calls an OpenAI-compatible server: LM Studio, vLLM, Ollama, Azure and others."""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, SecretStr, create_model

from pipeline.endpoint import Endpoint, error_message
from pipeline.errors import JobError
from pipeline.http import Answer
from pipeline.job import Brief, CheckKind, Context, Job, Rejected
from pipeline.lines import one_line
from pipeline.profile import EndpointWriterProfile
from pipeline.telemetry import charge, notice
from pipeline.watchdog import suspended
from pipeline.writing.messages import messages_for, texts_read
from pipeline.writing.reply import CUT_OFF, Draft, brief_from, parse_reply

log = structlog.get_logger(__name__)


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


class EndpointWriter:
    """The Writer port: one chat completion per job, with a JSON schema for the reply.

    After a server refuses a part of the request, all further requests leave that part out.
    """

    def __init__(self, profile: EndpointWriterProfile, url: str, api_key: SecretStr) -> None:
        self._profile, self._dialect = profile, Dialect()
        self._endpoint = Endpoint("writer", url, api_key)

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        """The server's brief. Raises JobError for a refusal and for a reply without a prompt,
        Refused where the server would refuse every job, Unavailable when it does not answer in
        time.
        """
        start = time.perf_counter()
        answer = self._ask(job, context, rejected)
        charge("writer", time.perf_counter() - start)
        stays = rejected is not None and not rejected.rule
        checks, read = 0 if stays else self._profile.checks, texts_read(job, context)
        draft = _draft(self._endpoint.choice(answer, _Choice), checks)
        return brief_from(job, context, draft, read, checks=checks)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    @suspended()
    def _ask(self, job: Job, context: Context, rejected: Rejected | None) -> Answer:
        """The answer to the fullest request that the server accepts."""
        dialect, request = (known := self._dialect), partial(_request, self._profile)
        post = partial(self._endpoint.post, seconds=self._profile.timeout)
        while (answer := post(request(dialect, job, context, rejected))).status != 200:
            said = error_message(answer)
            if answer.status not in {400, 422}:
                raise self._endpoint.refusal(answer)
            # a simpler dialect, by the server's message
            if "max_completion_tokens" in said and dialect.limit == "max_tokens":
                dialect = replace(dialect, limit="max_completion_tokens")
            elif "temperature" in said and dialect.temperature:
                dialect = replace(dialect, temperature=False)
            elif dialect.schema:
                dialect = replace(dialect, schema=False)
            else:
                raise self._endpoint.refusal(answer)
        if dialect != known:
            log.warning("the writer's server takes simpler requests only", dialect=repr(dialect))
            self._dialect = dialect
        return answer


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
        checks = profile.checks and not (rejected and not rejected.rule)
        parts: dict[str, Any] = {"text": str} if job.mode == "generated" else {}
        parts |= {"prompt": str} | ({"checks": list[_Check]} if checks else {})
        shape = create_model("Brief", __base__=_Strict, **parts)
        schema = {"name": "brief", "strict": True, "schema": shape.model_json_schema()}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _draft(choice: _Choice, checks: int) -> Draft:
    content = choice.message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    if not content:
        refusal = one_line(choice.message.refusal or "an empty reply", 300)
        raise JobError(f"the writer's server wrote nothing: {refusal}")
    draft = parse_reply(content, checks=checks)
    if not draft.prompt and choice.finish_reason == "length":
        raise JobError("the writer's reply was cut off; raise max_tokens in the profile's [writer]")
    if choice.finish_reason == "length":
        notice(CUT_OFF)
    return draft
