"""Embedders with a model: a Hugging Face text encoder, and OpenCLIP for images and texts."""

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
LONGEST = 512
"""Tokens of a text that a text encoder reads."""


class TextEncoder:
    """An Embedder: a text encoder whose last layer is averaged over the tokens of a text."""

    def __init__(self, reference: str, models: Models, batch: int = BATCH) -> None:
        folder = models.folder(reference, "embedding")
        self.name = f"{folder.name}@{models.digest(reference, 'embedding')[:12]}"
        self._model, self._tokenizer = models.text_encoder(reference)
        # a second tokenizer for counting: a call sets how its tokenizer truncates
        self._counting, self._lock = deepcopy(self._tokenizer), threading.Lock()
        self.size = int(self._model.config.hidden_size)
        self._batcher: Batcher[tuple[str, ...], Vectors] = Batcher(
            "embedding", self._run, limit=batch, size=len, device_lock=models.device_lock
        )

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, size]. Concurrent calls share a forward pass; texts that are too long are cut."""
        if not texts:
            return np.empty((0, self.size), dtype=np.float32)
        return self._batcher(tuple(texts))

    def reads_whole(self, text: str) -> bool:
        """True if the text fits the model's window."""
        room = self._longest - self._tokenizer.num_special_tokens_to_add()
        if len(text.encode()) <= room:  # a token takes a byte or more
            return True
        with self._lock:
            found = self._counting(text, add_special_tokens=False, verbose=False)["input_ids"]
        return bool(len(found) <= room)

    def _run(self, items: Sequence[tuple[str, ...]]) -> list[Vectors]:
        import torch

        texts = [text for item in items for text in item]
        with torch.inference_mode():
            tokens = self._tokenizer(
                texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            ).to(self._model.device)
            states = self._model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            return _split(torch.nn.functional.normalize(mean, dim=-1), items)

    @property
    def _longest(self) -> int:
        positions = int(getattr(self._model.config, "max_position_embeddings", LONGEST))
        return min(LONGEST, positions, int(self._tokenizer.model_max_length))


class ClipEmbedder:
    """An ImageEmbedder: the two towers of an OpenCLIP model (Radford et al. 2021,
    arXiv:2103.00020).

    The model, and torch, are loaded at first use: most collections hold texts alone.
    """

    def __init__(self, reference: str, models: Models) -> None:
        self._reference, self._models = reference, models
        self._lock = threading.Lock()
        role, device_lock = "image_encoder", models.device_lock
        folder = models.folder(reference, role)
        self.name = f"{folder.name}@{models.digest(reference, role)[:12]}"
        self.size = int(read_json(folder / "open_clip_config.json")["model_cfg"]["embed_dim"])
        self._texts: Batcher[list[str], Vectors] = Batcher(
            role, self._text_tower, limit=BATCH, size=len, device_lock=device_lock
        )
        self._images: Batcher[list[Any], Vectors] = Batcher(
            role, self._image_tower, limit=BATCH, size=len, device_lock=device_lock
        )

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """[texts, size]. Concurrent calls share a forward pass; texts that are too long are cut."""
        return self._texts(list(texts))

    def reads_whole(self, text: str) -> bool:
        """True if the text fits the model's window."""
        with self._lock:
            return fits(self._counting, text)

    def embed_images(self, images: Iterable[ImageArray]) -> Vectors:
        """[images, size]. Concurrent calls share a forward pass."""
        _, preprocess, _ = self._clip
        return self._images([preprocess(to_image(each)) for each in images])

    def _text_tower(self, items: Sequence[list[str]]) -> list[Vectors]:
        import torch

        model, _, tokenizer = self._clip
        tokens = tokenizer([text for item in items for text in item])
        with torch.inference_mode():
            return _split(model.encode_text(tokens.to(self._models.device)), items)

    def _image_tower(self, items: Sequence[list[Any]]) -> list[Vectors]:
        import torch

        model, _, _ = self._clip
        pixels = torch.stack([image for item in items for image in item])
        with torch.inference_mode():
            return _split(model.encode_image(pixels.to(self._models.device)), items)

    @cached_property
    def _counting(self) -> Any:
        # a second tokenizer for counting: a call sets how its tokenizer truncates
        return deepcopy(self._clip[2])

    @property
    def _clip(self) -> tuple[Any, Any, Any]:
        return self._models.clip(self._reference, "image_encoder")


def _split(embedded: Any, items: Sequence[Sequence[Any]]) -> list[Vectors]:
    """The rows of a batch as one array per item, in order."""
    ends = np.cumsum([len(item) for item in items])
    return np.split(embedded.float().cpu().numpy(), ends[:-1])
