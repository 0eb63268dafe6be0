"""Images and texts in one space, by OpenCLIP (Radford et al. 2021, arXiv:2103.00020)."""

import threading
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.job import ImageArray
from pipeline.media.image import to_image
from pipeline.models import Models
from pipeline.models.batching import Batcher
from pipeline.models.safetensors import read_json
from pipeline.models.tokenizers import fits
from pipeline.retrieval.embedders import Vectors

BATCH = 32


class ClipEmbedder:
    """The ImageEmbedder port over the two towers of an OpenCLIP model.

    The model, and torch, are loaded when it is first asked: most collections hold texts alone.
    """

    def __init__(self, reference: str, models: Models) -> None:
        self._reference, self._models = reference, models
        self._lock = threading.Lock()
        folder = models.folder(reference, "image_encoder")
        self.name = f"{folder.name}@{models.digest(reference, 'image_encoder')[:12]}"
        self.size = int(read_json(folder / "open_clip_config.json")["model_cfg"]["embed_dim"])
        self._texts: Batcher[list[str], Vectors] = Batcher(
            "image_encoder", self._text_tower, limit=BATCH, size=len, device_lock=models.device_lock
        )
        self._images: Batcher[list[Any], Vectors] = Batcher(
            "image_encoder",
            self._image_tower,
            limit=BATCH,
            size=len,
            device_lock=models.device_lock,
        )

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """[texts, size]. Calls of many threads share a pass; what is too long is cut."""
        return self._texts(list(texts))

    def reads_whole(self, text: str) -> bool:
        """Whether a text fits the model's window."""
        with self._lock:
            return fits(self._counting, text)

    def embed_images(self, images: Iterable[ImageArray]) -> Vectors:
        """[images, size]. Calls of many threads share a pass."""
        _, preprocess, _ = self._clip
        return self._images([preprocess(to_image(each)) for each in images])

    def _text_tower(self, items: Sequence[list[str]]) -> list[Vectors]:
        import torch

        model, _, tokenizer = self._clip
        tokens = tokenizer([text for item in items for text in item])
        with torch.inference_mode():
            return _apart(model.encode_text(tokens.to(self._models.device)), items)

    def _image_tower(self, items: Sequence[list[Any]]) -> list[Vectors]:
        import torch

        model, _, _ = self._clip
        pixels = torch.stack([image for item in items for image in item])
        with torch.inference_mode():
            return _apart(model.encode_image(pixels.to(self._models.device)), items)

    @cached_property
    def _counting(self) -> Any:
        # of our own: a call sets how its tokenizer cuts
        return deepcopy(self._clip[2])

    @property
    def _clip(self) -> tuple[Any, Any, Any]:
        return self._models.clip(self._reference, "image_encoder")


def _apart(embedded: Any, items: Sequence[Sequence[Any]]) -> list[Vectors]:
    ends = np.cumsum([len(item) for item in items])
    return np.split(embedded.float().cpu().numpy(), ends[:-1])
