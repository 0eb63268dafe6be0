"""The device's memory that the weights of published models take under `renderer.memory`.

Counted on models of the exact classes and sizes without numbers (torch's device `meta`), in GB:
`whole`, as `renderer.dtype` has them; `float8`, the denoiser's in 8 bits; `offloaded`, what is on
the device at most while a layer calculates and the next one is copied, the VAE among it; `both`.
What the images themselves take comes on top. `--dtype` is the precision.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from benchmarks.common import arguments, show
from benchmarks.gpu.architectures import ARCHITECTURES
from pipeline.models.memory import shrink
from pipeline.profile import DiffusersProfile

CLIP_L = CLIPTextConfig(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
    projection_dim=768,
)  # fmt: skip
CLIP_G = CLIPTextConfig(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
    projection_dim=1280, hidden_act="gelu",
)  # fmt: skip
T5_XXL = T5Config(
    d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24, vocab_size=32128,
    feed_forward_proj="gated-gelu",
)  # fmt: skip
ENCODERS: Mapping[str, tuple[tuple[Any, Any], ...]] = {
    "sdxl": ((CLIPTextModel, CLIP_L), (CLIPTextModelWithProjection, CLIP_G)),
    "flux": ((CLIPTextModel, CLIP_L), (T5EncoderModel, T5_XXL)),
}


def main() -> None:
    """Count and print."""
    parser = arguments(__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    given = parser.parse_args()
    figures = measure(given.dtype)
    show("Memory of models' weights, in GB", figures)
    if given.json:
        print(json.dumps(figures))


def measure(dtype: Literal["float32", "bfloat16", "float16"]) -> dict[str, float]:
    """GB by model and option."""
    figures = dict[str, float]()
    for name, make in ARCHITECTURES.items():
        meta = torch.device("meta")
        pipe = make("full", getattr(torch, dtype), meta).pipe
        with meta:
            encoders = [kind(config).to(getattr(torch, dtype)) for kind, config in ENCODERS[name]]
        for stored in ("whole", "float8"):
            profile = DiffusersProfile.model_validate(
                {"dtype": dtype, "memory": {"weights": stored}}
            )
            shrink(pipe, profile)
            models = [*encoders, *(m for m in pipe.components.values() if isinstance(m, nn.Module))]
            layers = sorted(_layers([each for each in models if each is not pipe.vae]))
            offloaded = nbytes(pipe.vae) + sum(layers[-2:])
            figures[f"{name}_{stored}"] = sum(map(nbytes, models)) / 1e9
            figures[f"{name}_{'both' if stored == 'float8' else 'offloaded'}"] = offloaded / 1e9
    return figures


def nbytes(model: nn.Module) -> int:
    """Bytes of a model's weights."""
    return sum(each.nbytes for each in model.parameters())


def _layers(models: list[nn.Module]) -> Iterator[int]:
    """Bytes of each layer's own weights."""
    for module in (module for model in models for module in model.modules()):
        yield sum(each.nbytes for each in module.parameters(recurse=False))


if __name__ == "__main__":
    main()
