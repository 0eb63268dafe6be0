"""Judges images by their looks: a linear head over a CLIP's embeddings of images.

Source: LAION-Aesthetics (Schuhmann et al., "LAION-5B", 2022, arXiv:2210.08402, and
https://github.com/LAION-AI/aesthetic-predictor): a linear regression of people's marks, 1 to 10,
on the normalised embedding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.errors import ModelError
from pipeline.job import ImageArray, JudgeRequest, Score
from pipeline.judging.logistic import Calibration, scores_of
from pipeline.models import Models
from pipeline.models.clip import Clip, Vectors, unit
from pipeline.models.contents import sole_weights
from pipeline.models.safetensors import read_header
from pipeline.profile import Dtype, JudgeProfile

ROLE = "aesthetic_head"


class AestheticJudgeProfile(JudgeProfile):
    """A linear head over a CLIP's embeddings, and the calibration of its marks."""

    kind: Literal["aesthetic"] = "aesthetic"
    model: str = Field(description="model reference: OpenCLIP, or CLIP or SigLIP of transformers")
    head: str = Field(description="model reference of a folder with the head's weight and bias")
    dtype: Dtype = "float32"
    batch: int = Field(default=32, ge=1, description="images in one call")
    slope: float
    offset: float

    def models(self) -> dict[str, str]:
        """The CLIP, and the head."""
        return {"judge": self.model, ROLE: self.head}


class AestheticJudge:
    """The Judge port over a CLIP with a linear head."""

    def __init__(self, models: Models, profile: AestheticJudgeProfile) -> None:
        self._clip = Clip(models, profile.model, "judge", dtype=profile.dtype, batch=profile.batch)
        self._weight, self._bias = read_head(models.folder(profile.head, ROLE), self._clip.size)
        self._clip.load()
        self._calibration = Calibration(profile.slope, profile.offset)

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """One score per image, in order, whatever was asked for; `raw` is the head's mark."""
        del request

        def marks(seen: Sequence[ImageArray]) -> list[float]:
            found: list[float] = (unit(self._clip.encode_images(seen)) @ self._weight).tolist()
            return [mark + self._bias for mark in found]

        return scores_of(images, marks, self._calibration)


def read_head(folder: Path, size: int) -> tuple[Vectors, float]:
    """The weight [size] and the bias of the one safetensors file in a folder: tensors that are
    named, or end in, `weight` and `bias`. Raises ModelError for any other content.
    """
    from safetensors.numpy import load_file

    file = sole_weights(folder)
    header = read_header(file)
    names = {name.rpartition(".")[2]: name for name in header}
    if len(header) != 2 or names.keys() != {"weight", "bias"}:
        held = ", ".join(sorted(header)[:5]) or "nothing"
        raise ModelError(f"{file} has to hold a weight and a bias alone, and holds {held}")
    shapes = [header[names[each]]["shape"] for each in ("weight", "bias")]
    if shapes[0] not in ([1, size], [size]) or shapes[1] not in ([1], []):
        raise ModelError(
            f"{file} holds a weight and a bias of shapes {shapes[0]} and {shapes[1]}: for this "
            f"model's embeddings they have to be {[1, size]} and [1]"
        )
    try:
        tensors = load_file(file)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"{file} cannot be read ({error!r}): save it as float32") from error
    weight = tensors[names["weight"]].astype(np.float32).reshape(size)
    bias = float(tensors[names["bias"]].astype(np.float32).reshape(()))
    if not (np.isfinite(weight).all() and np.isfinite(bias)):
        raise ModelError(f"{file} holds values that are not finite")
    return weight, bias
