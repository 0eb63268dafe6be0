"""CLIP models: texts and images as vectors of one space."""

import threading
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.job import ImageArray
from pipeline.media.image import to_image
from pipeline.models.contents import embedding_size
from pipeline.models.loading import Models
from pipeline.models.tokenizers import fits
from pipeline.profile import Dtype

BATCH = 32

Vectors = NDArray[np.float32]


def unit(vectors: Vectors) -> Vectors:
    """The vectors, or the one, at length 1."""
    made: Vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
    return made


class _Call(NamedTuple):
    """One caller's inputs: texts, and preprocessed images [3, side, side]."""

    texts: Sequence[str]
    pixels: Sequence[Any]


class Clip:
    """The two towers of a CLIP (Radford et al. 2021, arXiv:2103.00020), as OpenCLIP's models have
    them; CLIP and SigLIP in the format of transformers are called like these.

    Concurrent calls share forward passes of at most `batch` texts or images. The vectors have the
    model's own lengths. The model, and torch, are loaded at first use. `name` has the files'
    version, `size` is a vector's number of components. Raises ModelError.
    """

    def __init__(
        self,
        models: Models,
        reference: str,
        role: str,
        *,
        dtype: Dtype = "float32",
        batch: int = BATCH,
    ) -> None:
        self._models, self._reference, self._role, self._dtype = models, reference, role, dtype
        folder = models.folder(reference, role)
        self.name = f"{folder.name}@{models.digest(reference, role)[:12]}"
        self.size = embedding_size(folder)
        self._limit, self._lock = batch, threading.Lock()
        self._batcher = models.batcher(
            role,
            self._run,
            limit=batch,
            size=lambda call: len(call.pixels) or len(call.texts) or 1,
        )

    def load(self) -> None:
        """Load the model ahead of its first use."""
        _ = self._loaded

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """[texts, size]; texts that are too long are cut."""
        return self.encode(texts, ())[0]

    def encode_images(self, images: Iterable[ImageArray]) -> Vectors:
        """[images, size]. Images are preprocessed as for the model's training: most models see the
        middle square only.
        """
        return self.encode((), images)[1]

    def encode(self, texts: Sequence[str], images: Iterable[ImageArray]) -> tuple[Vectors, Vectors]:
        """Both in one call."""
        _, preprocess, _ = self._loaded
        # in the caller's own thread, and one image at a time
        return self._batcher(_Call(texts, [preprocess(to_image(image)) for image in images]))

    def reads_whole(self, text: str) -> bool:
        """True if the text fits the model's window."""
        with self._lock:
            return fits(self._counting, text)

    def _run(self, calls: Sequence[_Call]) -> list[tuple[Vectors, Vectors]]:
        import torch

        model, _, tokenizer = self._loaded
        device, dtype = self._models.device, getattr(torch, self._dtype)
        texts = list(dict.fromkeys(text for call in calls for text in call.texts))
        pixels = [image for call in calls for image in call.pixels]
        read, seen = ([np.empty((0, self.size), np.float32)] for _ in range(2))
        with torch.inference_mode():
            for first in range(0, len(texts), self._limit):
                tokens = tokenizer(texts[first : first + self._limit]).to(device)
                read.append(model.encode_text(tokens).float().cpu().numpy())
            for first in range(0, len(pixels), self._limit):
                chunk = torch.stack(pixels[first : first + self._limit]).to(device, dtype)
                seen.append(model.encode_image(chunk).float().cpu().numpy())
        by_text = dict(zip(texts, np.concatenate(read), strict=True))
        rows = iter(np.concatenate(seen))
        return [
            (
                np.array([by_text[text] for text in call.texts]).reshape(-1, self.size),
                np.array([next(rows) for _ in call.pixels]).reshape(-1, self.size),
            )
            for call in calls
        ]

    @cached_property
    def _counting(self) -> Any:
        # a second tokenizer for counting: a call sets how its tokenizer truncates
        return deepcopy(self._loaded[2])

    @property
    def _loaded(self) -> tuple[Any, Any, Any]:
        return self._models.clip(self._reference, self._role, self._dtype)
