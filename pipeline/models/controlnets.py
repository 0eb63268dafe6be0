"""ControlNets and the models that they are for, compared by their configurations, without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import ModelError
from pipeline.models.checkpoints import part_config
from pipeline.models.safetensors import read_json


class Kind(NamedTuple):
    """The class of the ControlNets for a kind of denoiser, and the sizes that both have alike."""

    name: str
    sizes: tuple[str, ...]


_TRANSFORMER = (
    "in_channels", "attention_head_dim", "num_attention_heads", "joint_attention_dim",
    "pooled_projection_dim",
)  # fmt: skip
KINDS: Mapping[str, Kind] = {
    "UNet2DConditionModel": Kind(
        "ControlNetModel",
        ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim"),
    ),
    "SD3Transformer2DModel": Kind("SD3ControlNetModel", _TRANSFORMER),
    "FluxTransformer2DModel": Kind("FluxControlNetModel", _TRANSFORMER),
}
"""By the class of the denoiser."""
_UNSUPPORTED = {
    "global_pool_conditions": "one that pools its image",
    "num_mode": "one of several kinds of images (a union)",
    "extra_conditioning_channels": "one for inpainting",
    "conditioning_embedding_channels": "of XLabs' kind",
}


def check_fit(folder: Path, model: Path, unet: Path | None = None) -> str:
    """The class of a ControlNet that fits the pipeline in `model`, with another `unet` where one is
    given. Raises ModelError, which names both.
    """
    base: Mapping[str, Any]
    if unet:
        base = read_json(unet / "config.json")
    else:
        base = part_config(model, "unet") or part_config(model, "transformer")
    own = read_json(folder / "config.json")
    kind = KINDS.get(str(base.get("_class_name")))
    if kind is None:
        raise ModelError(f"there are no ControlNets for the model in {model}, a kind unknown here")
    if own.get("_class_name") != kind.name:
        raise ModelError(
            f"{folder} is a {own.get('_class_name')}, and {model} takes a {kind.name}: it is for"
            " another kind of model"
        )
    if refused := next((said for name, said in _UNSUPPORTED.items() if own.get(name)), ""):
        raise ModelError(f"{folder} is {refused}: such a ControlNet cannot be used here")
    for name in kind.sizes:
        if _differ(own, base, name):
            raise ModelError(
                f"{folder} is for another model than {model}: its {name} is {own[name]}, not"
                f" {base[name]}"
            )
    return kind.name


def _differ(own: Mapping[str, Any], base: Mapping[str, Any], name: str) -> bool:
    """True where both say a size and it is not the same; a ControlNet may do without texts."""
    return name in own and name in base and own[name] not in (base[name], None)
