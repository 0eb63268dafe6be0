"""Judges images by questions that the model of an OpenAI-compatible server answers: vLLM, SGLang,
llama.cpp and others that take images and return log-probabilities.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from pipeline.endpoint import ParallelEndpoint, error_message
from pipeline.errors import JobError, Refused
from pipeline.job import ImageArray, JudgeRequest, Score
from pipeline.judging.asking import scores_by
from pipeline.lines import one_line
from pipeline.media.image import data_url
from pipeline.profile import AskingJudgeProfile
from pipeline.settings import Settings

LIKELIEST = 20
"""Tokens whose log-probabilities are asked for, the most that servers give by default."""
NO_CHANCES = (
    "the judge's server returns no log-probabilities of its answers: serve the model with vLLM, "
    f"SGLang or llama.cpp, with at least {LIKELIEST} of them for each token"
)


class QuestionsEndpointJudgeProfile(AskingJudgeProfile):
    """An OpenAI-compatible server's vision-language model, which answers questions."""

    kind: Literal["questions_endpoint"] = "questions_endpoint"
    model: str = Field(description="the server's name of the model")
    timeout: float = Field(default=60.0, gt=0, description="seconds for one call")
    at_once: int = Field(default=8, ge=1, le=64, description="calls of one worker in flight")


class _Token(BaseModel):
    token: str
    logprob: float


class _Position(BaseModel):
    top_logprobs: list[_Token] = []


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Choice(BaseModel):
    logprobs: _Logprobs | None = None


class QuestionsEndpointJudge:
    """The Judge port over a server: one chat completion of one token for each question about each
    image.
    """

    def __init__(self, settings: Settings, profile: QuestionsEndpointJudgeProfile) -> None:
        self._profile = profile
        url, key = settings.judge_url, settings.judge_api_key
        self._endpoint = ParallelEndpoint("judge", url, key, profile.at_once)

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order; the server does not see invalid images.

        Raises JobError for an answer that is neither yes nor no, Refused where the server would
        refuse every job, Unavailable when it does not answer in time.
        """
        return scores_by(self._chances, images, request, self._profile)

    def close(self) -> None:
        """Close the connections, without waiting for answers."""
        self._endpoint.close()

    def _chances(self, images: Sequence[ImageArray], questions: Sequence[str]) -> list[list[float]]:
        pairs = ((url, question) for url in map(data_url, images) for question in questions)
        chances = iter(self._endpoint.each(self._ask, pairs))
        return [[next(chances) for _ in questions] for _ in images]

    def _ask(self, pair: tuple[str, str]) -> float:
        """P(yes) by an image, which is a data: URL, and a question about it."""
        image, question = pair
        answer = self._endpoint.post(
            _body(self._profile.model, image, question), self._profile.timeout
        )
        if answer.status != 200:
            if answer.status in {400, 422} and "logprob" in error_message(answer).lower():
                raise Refused(f"{NO_CHANCES} ({self._endpoint.refusal(answer).detail})")
            raise self._endpoint.refusal(answer)
        found = self._endpoint.choice(answer, _Choice).logprobs
        if not found or not found.content or not found.content[0].top_logprobs:
            raise Refused(NO_CHANCES)
        return yes_of([(each.token, each.logprob) for each in found.content[0].top_logprobs])


def yes_of(likeliest: Sequence[tuple[str, float]]) -> float:
    """P(yes) by the likeliest first tokens of an answer and their log-probabilities.

    It is the share of the tokens that are a yes among those that are a yes or a no. Where the no is
    not among the tokens, it may have as much as the least of them, or as all of them leave. Raises
    JobError where neither is there.
    """
    words = [(token.strip().casefold(), math.exp(min(logprob, 0))) for token, logprob in likeliest]
    yes, no = (sum(chance for word, chance in words if word == each) for each in ("yes", "no"))
    if not yes + no:
        said = one_line(", ".join(repr(token) for token, _ in likeliest[:3]), 100)
        raise JobError(
            f"the judge's server answered neither yes nor no, but most likely {said}: take a model "
            "that answers without thinking aloud"
        )
    chances = [chance for _, chance in words]
    unseen = min(min(chances), max(1 - sum(chances), 0))
    return yes / (yes + (no or unseen))


def _body(model: str, image: str, question: str) -> dict[str, Any]:
    content = [
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": question},
    ]
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": LIKELIEST,
    }
