"""The architecture of the small model that sees, and its folder."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlamaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    TimmWrapperConfig,
)

from examples.shapes import world
from examples.shapes.training import common
from examples.shapes.training.sees import wording

STRIDE, WIDTH, SPOKEN = 16, 128, 96
"""Pixels of a place of the tower's last map, and the widths of tower and Llama."""
TOKENS = (world.PIXELS // STRIDE) ** 2
"""Image tokens, in rows from the top left."""


def vision_config() -> TimmWrapperConfig:
    """A narrow ResNet-10 that ends at 4×4 places."""
    return TimmWrapperConfig(
        architecture="resnet10t",
        model_args={"stem_width": 16, "channels": [32, 64, 96, WIDTH], "output_stride": STRIDE},
        do_pooling=False,
        hidden_size=WIDTH,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> FastVlmForConditionalGeneration:
    """An untrained model: a ResNet whose 4×4 places are the image's tokens, and a Llama.

    A convolutional tower because a transformer would need far more images to tell the shapes apart.
    """
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=SPOKEN,
        intermediate_size=224,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    config = FastVlmConfig(
        vision_config=vision_config().to_dict(),
        text_config=text.to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids(wording.IMAGE),
        tie_word_embeddings=True,
    )
    model = FastVlmForConditionalGeneration(config)
    nn.init.normal_(model.get_input_embeddings().weight, std=0.1)
    for layer in model.model.language_model.layers[:2]:
        _match(layer.self_attn)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.max_new_tokens = 48
    return model


def _match(attention: nn.Module, heads: int = 2, scale: float = 3.5) -> None:
    """Start with query = key, so that a word attends to the places that hold its like."""
    rows = heads * attention.head_dim
    with torch.no_grad():
        attention.k_proj.weight[:rows] *= scale
        attention.q_proj.weight[:rows] = attention.k_proj.weight[:rows]


def features(tower: nn.Module, pixels: Tensor) -> Tensor:
    """The tower's features, [n, TOKENS, WIDTH], for pixels [n, 3, 64, 64] in -1..1."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    seen: Tensor = tower(pixels).last_hidden_state
    return seen.flatten(2).transpose(1, 2)


def processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The processor: images to 64×64 in -1..1, each placeholder to TOKENS tokens."""
    side = {"height": world.PIXELS, "width": world.PIXELS}
    images = CLIPImageProcessor(
        size=side,
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        image_token=wording.IMAGE,
        chat_template=wording.CHAT_TEMPLATE,
    )


def save(
    model: FastVlmForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write a folder that AutoModelForImageTextToText and AutoProcessor load, weights in fp16."""
    common.save_half(model, folder)
    processor(tokenizer).save_pretrained(folder)
