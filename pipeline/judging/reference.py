"""Judges images by their likeness to the images that a job named and retrieved.

Source: Ruiz et al., "DreamBooth" (2022, arXiv:2208.12242), CLIP-I: the mean cosine between the
embeddings of a generated image and of real ones.
"""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field

from pipeline.errors import NothingToJudge
from pipeline.job import Embedding, ImageArray, JudgeRequest, Score
from pipeline.judging.logistic import Calibration, scores_of
from pipeline.models import Models
from pipeline.models.clip import Clip, unit
from pipeline.profile import JudgeProfile, QdrantProfile, RetrievalProfile


class ReferenceJudgeProfile(JudgeProfile):
    """Likeness to a job's images, by the encoder that embedded them."""

    kind: Literal["reference"] = "reference"
    encoder: str = Field(default="", description="model reference: retrieval.image_encoder")
    batch: int = Field(default=32, ge=1, description="images in one call")
    slope: float
    offset: float

    def beside(self, retrieval: RetrievalProfile) -> Self:
        """With the retrieval's encoder of images. Raises ValueError where it has none."""
        encoder = retrieval.image_encoder if isinstance(retrieval, QdrantProfile) else ""
        if not encoder:
            raise ValueError(f"judge {self.name!r} compares images: set retrieval.image_encoder")
        if self.encoder not in ("", encoder):
            raise ValueError(
                f"judge {self.name!r}: its encoder has to be retrieval.image_encoder, {encoder!r}"
            )
        return self.model_copy(update={"encoder": encoder})


class ReferenceJudge:
    """The Judge port over the encoder of images."""

    def __init__(self, models: Models, profile: ReferenceJudgeProfile) -> None:
        self._clip = Clip(models, profile.encoder, "judge", batch=profile.batch)
        self._clip.load()
        self._calibration = Calibration(profile.slope, profile.offset)

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order; `raw` is the mean cosine, -1..1. Raises NothingToJudge for
        a job without images.
        """
        if not request.references:
            raise NothingToJudge("no image was named or retrieved")

        def likeness(seen: Sequence[ImageArray]) -> list[float]:
            return likenesses(self._clip.encode_images(seen), request.references)

        return scores_of(images, likeness, self._calibration)


def likenesses(seen: np.ndarray, references: Sequence[Embedding]) -> list[float]:
    """The mean cosine of each of `seen`, [images, size], with the references."""
    mean = unit(np.array(references, np.float32)).mean(0)
    likeness: list[float] = (unit(seen) @ mean).tolist()
    return likeness
