"""The chance that a text or an image is of some categories, told by a moderation server."""

import time
from collections.abc import Sequence
from threading import Lock
from typing import Annotated, Any

from cachetools import LRUCache, cached
from pydantic import BaseModel, Field, ValidationError

from pipeline.endpoint import ParallelEndpoint
from pipeline.errors import JobError, Refused
from pipeline.job import ImageArray
from pipeline.lines import one_line
from pipeline.media.image import data_url
from pipeline.profile import EndpointGuardProfile
from pipeline.settings import Settings
from pipeline.telemetry import charge
from pipeline.watchdog import suspended

KEPT = 2_000
"""Answers on texts that are remembered: passages and styles come again."""
LONGEST = 100
"""Characters of a category's name that are kept."""

Chance = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Result(BaseModel):
    category_scores: dict[str, Chance] = Field(min_length=1)


class _Answer(BaseModel):
    results: list[_Result] = Field(min_length=1)


class Moderation:
    """OpenAI's moderations, of the server at PRESSRUN_GUARD_URL: one call for each text and image.

    Calls raise Unavailable where the server does not answer, Refused where it would refuse every
    job or lacks a category of the profile, JobError for an answer that is no moderation.
    """

    def __init__(self, settings: Settings, profile: EndpointGuardProfile) -> None:
        self._profile = profile
        url, key = settings.guard_url, settings.guard_api_key
        self._endpoint = ParallelEndpoint("guard", url, key, profile.at_once, "/moderations")
        self._of_text = cached(LRUCache(KEPT), lock=Lock())(self._ask)

    def load(self) -> None:
        """There is no model in this process."""

    def found(self, text: str) -> str:
        """The reason against the text; empty where it is not refused."""
        start = time.perf_counter()
        with suspended():
            chance, category = self._of_text(text)
        charge("guard", time.perf_counter() - start)
        if chance < self._profile.threshold:
            return ""
        return f"chance {chance:.2f} of {category!r}, threshold {self._profile.threshold:g}"

    def chances(self, images: Sequence[ImageArray]) -> list[float]:
        """One chance in 0..1 for each image, in order."""
        parts = ([{"type": "image_url", "image_url": {"url": data_url(image)}}] for image in images)
        return [chance for chance, _ in self._endpoint.each(self._ask, parts)]

    def close(self) -> None:
        """Close the connections, without waiting for answers."""
        self._endpoint.close()

    def _ask(self, given: str | list[dict[str, Any]]) -> tuple[float, str]:
        """The highest chance of a category of the profile, and the category's name."""
        body = {"input": given} | ({"model": self._profile.model} if self._profile.model else {})
        answer = self._endpoint.post(body, self._profile.timeout)
        if answer.status != 200:
            raise self._endpoint.refusal(answer)
        try:
            results = _Answer.model_validate_json(answer.body).results
        except ValidationError as error:
            raise JobError("the guard's server sent something else than moderations") from error
        scores = [result.category_scores for result in results]
        for category in self._profile.categories:
            if any(category not in each for each in scores):
                known = one_line(", ".join(map(repr, scores[0])), 300)
                raise Refused(f"the guard's server knows no category {category!r}; it has: {known}")
        wanted = self._profile.categories
        chance, category = max(
            (chance, name)
            for each in scores
            for name, chance in each.items()
            if name in wanted or not wanted
        )
        return chance, one_line(category, LONGEST)
