"""The chance that an image shows a concept, told by a CLIP that was not trained for it."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from pipeline.errors import ConfigError
from pipeline.job import ImageArray
from pipeline.models.clip import Clip, Vectors, unit


class Concept:
    """A caption of what is refused, and captions of what is allowed.

    With the latter the score is relative: the softmax of slope · cosine over all captions, which is
    zero-shot classification (Radford et al. 2021, arXiv:2103.00020, 3.1). Without, it is absolute:
    the sigmoid of slope · cosine + offset, for which a short caption needs another offset than a
    long one. Raises ConfigError for a caption that the CLIP would cut.
    """

    def __init__(
        self, clip: Clip, concept: str, unlike: Sequence[str], slope: float, offset: float
    ) -> None:
        self._clip, self._captions = clip, [concept, *unlike]
        self._slope, self._offset = slope, offset

    def load(self) -> None:
        """Load the model ahead of its first use."""
        _ = self._read

    def chances(self, images: Sequence[ImageArray]) -> list[float]:
        """One chance in 0..1 for each image, in order."""
        logits = self._slope * (unit(self._clip.encode_images(images)) @ self._read.T)
        # against the offset, or against the captions of what is allowed
        others = logits[:, 1:] if logits.shape[1] > 1 else np.full((len(images), 1), -self._offset)
        odds = logits[:, 0] - np.logaddexp.reduce(others, axis=1)
        chances: list[float] = (0.5 * (1 + np.tanh(odds / 2))).tolist()
        return chances

    @cached_property
    def _read(self) -> Vectors:
        check_captions(self._captions, self._clip.reads_whole)
        return unit(self._clip.encode_texts(self._captions))


def check_captions(captions: Sequence[str], fits: Callable[[str], bool]) -> None:
    """Raise ConfigError for a caption that does not fit its CLIP's window."""
    if cut := [each for each in captions if not fits(each)]:
        raise ConfigError(f"the guard's caption {cut[0]!r} is longer than its CLIP reads")
