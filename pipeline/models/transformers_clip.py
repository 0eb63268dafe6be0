"""CLIP and SigLIP models in the format of transformers, with the calls that OpenCLIP's have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from pipeline.models.tokenizers import check_tokenizer
from pipeline.models.whole import LOCAL, load_whole


class Towers(torch.nn.Module):
    """The two towers of a CLIPModel (Radford et al. 2021, arXiv:2103.00020) or a SiglipModel (Zhai
    et al. 2023, arXiv:2303.15343).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def encode_text(self, tokens: Tensor) -> Tensor:
        """[texts, size]. Neither kind was trained with a mask of its padding."""
        read: Tensor = self._model.get_text_features(input_ids=tokens).pooler_output
        return read

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[images, size]."""
        seen: Tensor = self._model.get_image_features(pixel_values=pixels).pooler_output
        return seen


class Tokenizer:
    """Texts as tokens [texts, length], padded and truncated to the text tower's window."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self._tokenizer, self.context_length = tokenizer, length

    def __call__(self, texts: Sequence[str], context_length: int | None = None) -> Tensor:
        # all were trained on small letters, and Gemma's tokenizer, as SigLIP 2 has it, keeps others
        found = self._tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            truncation=True,
            max_length=context_length or self.context_length,
            return_tensors="pt",
        )
        tokens: Tensor = found["input_ids"]
        return tokens


class Preprocess:
    """An image as the image tower was trained on: float32 [3, height, width]."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, image: Image) -> Tensor:
        # as an array: in torch's default dtype it would be another model's while that one is loaded
        (pixels,) = self._processor(images=image, return_tensors="np")["pixel_values"]
        return torch.from_numpy(pixels).float()


def load_towers(folder: Path, dtype: torch.dtype) -> tuple[Towers, Preprocess, Tokenizer]:
    """The model in a folder, its preprocessing and its tokenizer. Raises ModelError for a model
    that lacks weights.
    """
    model = load_whole(AutoModel, folder, dtype=dtype)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **LOCAL)
    return Towers(model), Preprocess(processor), load_tokenizer(folder)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the model in a folder. Raises ModelError for one that knows no words."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right", **LOCAL)
    check_tokenizer(tokenizer, folder)
    length = AutoConfig.from_pretrained(folder, **LOCAL).text_config.max_position_embeddings
    return Tokenizer(tokenizer, length)
