"""The embedder of texts with a model: a Hugging Face text encoder."""

import threading
from collections.abc import Sequence
from copy import deepcopy

import numpy as np

from pipeline.models import Models
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
        self._batcher = models.batcher("embedding", self._run, limit=batch, size=len)

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
            vectors = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        ends = np.cumsum([len(item) for item in items])
        return np.split(vectors, ends[:-1])

    @property
    def _longest(self) -> int:
        positions = int(getattr(self._model.config, "max_position_embeddings", LONGEST))
        return min(LONGEST, positions, int(self._tokenizer.model_max_length))
