"""The replies of a vision-language model about images, and scores made of them."""

import hashlib
import threading
from collections.abc import Callable, Sequence

from cachetools import LRUCache
from pydantic import Field

from pipeline.job import ImageArray, Score, ScorePart
from pipeline.judging.logistic import Calibration
from pipeline.judging.validity import scores_of_valid
from pipeline.models import Models
from pipeline.models.vision_language import LONGEST, Describer, Reply
from pipeline.profile import Dtype, JudgeProfile
from pipeline.telemetry import notice

REMEMBERED = 256
"""Replies that a judge keeps: a search for what is missing, and contrasts of a calibration, have
an image judged by many texts.
"""

MOST = 500
"""Characters of an instruction."""


class ReplyingJudgeProfile(JudgeProfile):
    """A judge of a kind that has a vision-language model reply in words about each image."""

    model: str = Field(description="model reference of transformers' AutoModelForImageTextToText")
    dtype: Dtype = "float32"
    batch: int = Field(default=8, ge=1, description="images in one call")
    instruction: str = Field(min_length=1, max_length=MOST, description="to the model")
    max_tokens: int = Field(default=64, ge=1, le=512, description="of a reply, which is cut there")
    slope: float
    offset: float

    def models(self) -> dict[str, str]:
        """The one model."""
        return {"vision_language": self.model}


class Replies:
    """The replies to a judge's instruction, each image's once."""

    def __init__(self, models: Models, profile: ReplyingJudgeProfile) -> None:
        self._model = Describer(
            models,
            profile.model,
            "vision_language",
            dtype=profile.dtype,
            batch=profile.batch,
            tokens=profile.max_tokens,
            instruction=profile.instruction,
        )
        self._judge = profile.name
        self._calibration = Calibration(profile.slope, profile.offset)
        self._known: LRUCache[bytes, Reply] = LRUCache(REMEMBERED)
        self._lock = threading.Lock()

    def scores(
        self, images: Sequence[ImageArray], measure: Callable[[Sequence[str]], Sequence[float]]
    ) -> list[Score]:
        """One score per image, in order, by the number that `measure` gives its reply, with the
        reply in its part; the model does not see invalid images.
        """

        def scores(valid: Sequence[ImageArray]) -> list[Score]:
            said = [reply.text for reply in self._of(valid)]
            return [
                self._score(number, text) for number, text in zip(measure(said), said, strict=True)
            ]

        return scores_of_valid(images, scores)

    def _score(self, number: float, reply: str) -> Score:
        score = self._calibration.score(number)
        if not score.valid:
            return score
        part = ScorePart(judge=self._judge, raw=score.raw, calibrated=score.calibrated, reply=reply)
        return score.model_copy(update={"parts": (part,)})

    def _of(self, images: Sequence[ImageArray]) -> list[Reply]:
        """The replies about valid images, in order; a notice says where one was cut."""
        keys = [
            hashlib.sha256(repr(each.shape).encode() + each.tobytes()).digest() for each in images
        ]
        with self._lock:
            found = {key: self._known[key] for key in keys if key in self._known}
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
        found |= zip(new, self._model.replies([*new.values()]), strict=True)
        with self._lock:
            self._known.update(found)
        replies = [found[key] for key in keys]
        if not all(reply.whole for reply in replies):
            where = f"at max_tokens or {LONGEST} characters"
            notice(f"a reply to the judge {self._judge!r} was cut, {where}")
        return replies
