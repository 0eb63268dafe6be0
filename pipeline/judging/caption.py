"""Judges images by their captions: a vision-language model describes an image, and a text embedding
compares the description with the job's text.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.job import ImageArray, JudgeRequest, Score
from pipeline.judging.replies import MOST, Replies, ReplyingJudgeProfile
from pipeline.models import Models
from pipeline.profile import QdrantProfile, RetrievalProfile
from pipeline.telemetry import notice


class CaptionJudgeProfile(ReplyingJudgeProfile):
    """A captioning model, the embedding that compares, and the calibration of its cosines."""

    kind: Literal["caption"] = "caption"
    instruction: str = Field(
        default="Describe this image in one sentence.",
        min_length=1,
        max_length=MOST,
        description="to the model",
    )
    embedding: str = Field(default="", description="as in the retrieval: retrieval.embedding")

    def beside(self, retrieval: RetrievalProfile) -> Self:
        """With the retrieval's embedding of texts. Raises ValueError where it has none."""
        embedding = retrieval.embedding if isinstance(retrieval, QdrantProfile) else ""
        if not embedding:
            raise ValueError(f"judge {self.name!r} compares texts: set retrieval.embedding")
        if self.embedding not in ("", embedding):
            raise ValueError(
                f"judge {self.name!r}: its embedding has to be retrieval.embedding, {embedding!r}"
            )
        return self.model_copy(update={"embedding": embedding})


class TextEmbedding(Protocol):
    """Turns texts into vectors of length 1, or 0 for a text without content."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[texts, size], one row per text, in order."""
        ...

    def reads_whole(self, text: str) -> bool:
        """False if the text is cut."""
        ...


class CaptionJudge:
    """The Judge port over a captioning model and an embedding of texts."""

    def __init__(
        self, models: Models, embedding: TextEmbedding, profile: CaptionJudgeProfile
    ) -> None:
        self._replies, self._embedding = Replies(models, profile), embedding
        self._name, self._against = profile.name, profile.against

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order; `raw` is the cosine of caption and text, -1..1."""
        text = request.words(self._against)

        def cosines(captions: Sequence[str]) -> list[float]:
            if not self._embedding.reads_whole(text):
                notice(f"the judge {self._name!r} compared the beginning of the {self._against}")
            wanted, *said = self._embedding.embed([text, *captions])
            found: list[float] = (np.array(said) @ wanted).tolist()
            return found

        return self._replies.scores(images, cosines)
