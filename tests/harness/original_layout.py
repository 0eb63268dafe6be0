"""Tiny Stable Diffusion pipelines of the publishers' own sizes of heads and groups, and their
weights in one file, in the publishers' layout: the inverse of diffusers' conversion.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipeline.models.tokenizers import END, clip_tokenizer

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
OUTER = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def stable_diffusion() -> StableDiffusionPipeline:
    """SD 1.5, with few channels and layers."""
    torch.manual_seed(0)
    return StableDiffusionPipeline(
        vae=_vae(0.18215),
        text_encoder=CLIPTextModel(_text(64, "quick_gelu")).eval(),
        tokenizer=clip_tokenizer(END, 77),
        unet=_unet((32, 64), cross_attention_dim=64, attention_head_dim=8),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """SDXL, likewise."""
    torch.manual_seed(1)
    return StableDiffusionXLPipeline(
        vae=_vae(0.13025),
        text_encoder=CLIPTextModel(_text(64, "quick_gelu")).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text(128, "gelu")).eval(),
        tokenizer=clip_tokenizer(END, 77),
        tokenizer_2=clip_tokenizer("!", 77),
        unet=_unet(
            (64, 128),
            cross_attention_dim=64 + 128,
            attention_head_dim=(1, 2),
            use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 128,
        ),
        scheduler=EulerDiscreteScheduler(**NOISE, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )


def published(family: str) -> Any:
    """The models of SD 1.5 or SDXL in their published sizes."""
    xl = family == "sdxl"
    middle = ("CrossAttnDownBlock2D",) * (2 if xl else 3)
    kinds = ("DownBlock2D", *middle) if xl else (*middle, "DownBlock2D")
    more: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
    if xl:
        more = {
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "use_linear_projection": True,
            "transformer_layers_per_block": (1, 2, 10),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        }
    parts = {
        "unet": UNet2DConditionModel(
            block_out_channels=(320, 640, 1280) if xl else (320, 640, 1280, 1280),
            down_block_types=kinds,
            up_block_types=tuple(each.replace("Down", "Up") for each in kinds[::-1]),
            **more,
        ),
        "vae": AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        ),
        "text_encoder": CLIPTextModel(_text(768, "quick_gelu", 12)),
    }
    if xl:
        parts["text_encoder_2"] = CLIPTextModelWithProjection(_text(1280, "gelu", 32))
    return SimpleNamespace(**parts)


def weights(pipe: Any) -> dict[str, Tensor]:
    """All weights of a pipeline by their original names."""
    xl = hasattr(pipe, "text_encoder_2")
    clip = "conditioner.embedders.0." if xl else "cond_stage_model."
    found = {f"model.diffusion_model.{name}": value for name, value in _unet_weights(pipe.unet)}
    found |= {f"first_stage_model.{name}": value for name, value in _vae_weights(pipe.vae)}
    for name, value in pipe.text_encoder.state_dict().items():
        found[f"{clip}transformer.text_model.{name.removeprefix('text_model.')}"] = value
    # older files hold it, as an integer tensor
    positions = f"{clip}transformer.text_model.embeddings.position_ids"
    found[positions] = torch.arange(77)[None]
    if xl:
        prefix = "conditioner.embedders.1.model."
        found |= {prefix + name: value for name, value in _open_clip(pipe.text_encoder_2)}
    return {name: value.contiguous() for name, value in found.items()}


def save(pipe: Any, file: Path, metadata: Mapping[str, str] | None = None, **more: Tensor) -> None:
    """Write a pipeline as a single-file checkpoint, with further tensors."""
    save_file(weights(pipe) | more, file, dict(metadata or {}))


def _unet(channels: tuple[int, int], **more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        **more,
    ).eval()


def _vae(scale: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        scaling_factor=scale,
    ).eval()


def _text(width: int, act: str, layers: int = 2) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        hidden_act=act,
    )


def _replaced(name: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        name = name.replace(ours, theirs)
    return name


def _unet_weights(unet: Any) -> Iterator[tuple[str, Tensor]]:
    per_level = unet.config.layers_per_block + 1
    for name, value in unet.state_dict().items():
        if outer := next((key for key in OUTER if name.startswith(key + ".")), ""):
            yield name.replace(outer, OUTER[outer]), value
            continue
        found = re.fullmatch(r"(down|mid|up)_blocks?(?:\.(\d+))?\.(\w+)\.(\d+)\.(.*)", name)
        assert found, name
        side, level, kind, layer, rest = found.groups()
        rest = _replaced(rest, RESNET) if kind == "resnets" else rest
        place = 1 if kind == "attentions" else 0
        if side == "mid":
            block = f"middle_block.{2 * int(layer) + place}"
        elif kind == "downsamplers":
            block, rest = f"input_blocks.{(int(level) + 1) * per_level}.0.op", rest[5:]
        elif kind == "upsamplers":
            crossed = unet.config.up_block_types[int(level)].startswith("CrossAttn")
            block = f"output_blocks.{(int(level) + 1) * per_level - 1}.{2 if crossed else 1}"
        elif side == "down":
            block = f"input_blocks.{int(level) * per_level + int(layer) + 1}.{place}"
        else:
            block = f"output_blocks.{int(level) * per_level + int(layer)}.{place}"
        yield f"{block}.{rest}", value


def _vae_weights(vae: Any) -> Iterator[tuple[str, Tensor]]:
    last = len(vae.config.block_out_channels) - 1
    for name, value in vae.state_dict().items():
        if "mid_block.attentions" in name:
            names = {"group_norm": "norm", "to_out.0": "proj_out", "to_": ""}
            renamed = _replaced(name.replace("mid_block.attentions.0", "mid.attn_1"), names)
            yield renamed, value[:, :, None, None] if value.ndim == 2 else value
            continue
        renamed = _replaced(name, {"conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out"})
        renamed = re.sub(
            r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", renamed
        )
        renamed = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{last - int(m[1])}", renamed)
        renamed = re.sub(r"(down|up)samplers\.0", r"\1sample", renamed)
        yield _replaced(renamed, {"down_blocks": "down", "resnets": "block"}), value


def _open_clip(encoder: Any) -> Iterator[tuple[str, Tensor]]:
    state = {k.removeprefix("text_model."): v for k, v in encoder.state_dict().items()}
    yield "text_projection", state.pop("text_projection.weight").T
    yield "token_embedding.weight", state.pop("embeddings.token_embedding.weight")
    yield "positional_embedding", state.pop("embeddings.position_embedding.weight")
    yield "logit_scale", torch.tensor(1.0)
    for kind in ("weight", "bias"):
        yield f"ln_final.{kind}", state.pop(f"final_layer_norm.{kind}")
    for name, value in state.items():
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)", name)
        assert found, name
        start = f"transformer.resblocks.{found[1]}."
        if not (part := re.fullmatch(r"self_attn\.([qkv])_proj\.(\w+)", found[2])):
            yield start + _replaced(found[2], LAYER), value
        elif part[1] == "q":
            joint = [state[name.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            yield f"{start}attn.in_proj_{part[2]}", torch.cat(joint)
