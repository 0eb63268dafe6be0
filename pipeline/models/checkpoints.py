"""Single-file checkpoints in the layout of their first publishers, read by their headers alone.

A file names neither its classes nor its settings: both follow from the names and shapes of its
tensors, and from `checkpoints.json`, which has what the tensors do not tell.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import MALFORMED, ModelError
from pipeline.models.safetensors import read_header, read_json, read_metadata

INDEX = "model_index.json"
UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer.text_model."
OPEN_CLIP = "cond_stage_model.model."
CLIP_XL = "conditioner.embedders.0.transformer.text_model."
OPEN_CLIP_XL = "conditioner.embedders.1.model."
REFINER = "conditioner.embedders.0.model."
KEPT = 23
"""Layers of SD 2's text encoder, which leaves out the last one of OpenCLIP's."""
HEAD = 64
"""Size of an attention head, but for SD 1's UNet."""
HEADS = 8
"""Attention heads of SD 1's UNet in each block."""
MOST_MODULES = 100
"""Modules of a list; published models have half as many."""
VOCABULARY = 49408
"""Tokens of CLIP's vocabulary."""
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
FOLDER = (
    "use its diffusers folder (`hf download`), or make one of the file, as docs/models.md shows"
)

Header = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's family, the diffusers configurations of its parts, and its kind of prediction,
    empty where the file does not tell.
    """

    family: str
    configs: Mapping[str, Mapping[str, Any]]
    prediction: str

    @property
    def pipeline(self) -> str:
        """The diffusers class."""
        return str(self.configs[INDEX]["_class_name"])

    def write(self, folder: Path) -> None:
        """Write the configurations as those of a diffusers folder."""
        for part, config in self.configs.items():
            name = "scheduler_config.json" if part == "scheduler" else "config.json"
            file = folder / part if part == INDEX else folder / part / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(config), encoding="utf-8")


def checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file. Raises ModelError, which says what else the file is."""
    header = read_header(path)
    if reason := _unusable(header):
        raise ModelError(f"{path} {reason}")
    try:
        return _described(header, read_metadata(path))
    except (IndexError, *MALFORMED) as error:
        raise ModelError(
            f"{path} is no Stable Diffusion checkpoint of a known shape ({error}): {FOLDER}"
        ) from error


def part_config(model: Path, part: str) -> Mapping[str, Any]:
    """The configuration of a pipeline's part, in a folder or a single file; empty where there is
    none. Raises ModelError.
    """
    if model.is_file():
        return checkpoint(model).configs.get(part, {})
    config = model / part / "config.json"
    return read_json(config) if config.is_file() else {}


def part_of(name: str) -> str:
    """The part of the pipeline that a tensor of a checkpoint belongs to."""
    if name.startswith(UNET):
        return "unet"
    return "vae" if name.startswith(VAE) else "text_encoder"


def _unusable(header: Header) -> str:
    """The kind of a file that is no pipeline, and the remedy; empty for one that is."""

    def has(*starts: str) -> bool:
        return any(key.startswith(starts) for key in header)

    if not has(UNET):
        return _other_kind(header)
    if UNET + "double_blocks.0.img_attn.qkv.weight" in header:
        return f"is of FLUX, whose T5 encoder's vocabulary is in no such file: {FOLDER}"
    if UNET + "input_blocks.0.0.weight" not in header:
        return f"is a checkpoint of a family unknown in this layout: {FOLDER}"
    if "edm_mean" in header:
        return f"is of Playground 2.5, which is unknown in this layout: {FOLDER}"
    if has(REFINER):
        return "is SDXL's refiner, which makes no image by itself: name the base checkpoint"
    if has(OPEN_CLIP_XL) and not has(CLIP_XL):
        return "lacks one of SDXL's two text encoders: take the version of it with both"
    if not has(CLIP, OPEN_CLIP, OPEN_CLIP_XL):
        return f"holds no text encoder in a known layout: take its full version, or {FOLDER}"
    if not has(VAE + "decoder."):
        return "holds no VAE: take its version with a baked VAE"
    kinds = {str(entry.get("dtype")) for key, entry in header.items() if key.startswith(UNET)}
    if strange := sorted(kinds - FLOATS) or sorted(key for key in header if "scale_weight" in key):
        return f"is quantized ({strange[0]}): take its fp16 or fp32 version"
    return ""


def _other_kind(header: Header) -> str:
    keys = list(header)

    def some(*parts: str) -> bool:
        return any(part in key for key in keys for part in parts)

    if some("lora_", ".lora", "hada_", "lokr_"):
        return "is a LoRA: put it into the folder of renderer.loras, and name it in a row's loras"
    if some("ip_adapter.", "image_proj."):
        return "is an image adapter: put it into a folder alone, and name that as image_adapter"
    if some("control_model.", "controlnet_", "input_hint_block.", "zero_convs."):
        return "is a ControlNet: name its diffusers folder as a model of renderer.controls"
    if keys and len(keys) <= 3 and some("emb_params", "clip_l", "clip_g", "<", "string_to_"):
        return "is a textual inversion: put it into the folder of renderer.embeddings"
    autoencoder = (VAE, "vae.", "encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
    if keys and all(key.startswith(autoencoder) for key in keys):
        return "is a VAE alone: name a checkpoint that holds a whole model"
    if some(
        "input_blocks.0.0.",
        "down_blocks.0.",
        "double_blocks.0.",
        "joint_blocks.0.",
        "_blocks.0.attn",
    ):
        return f"is a denoiser alone, without text encoder and VAE: {FOLDER}"
    if some("text_model.", "resblocks."):
        return "is a text encoder alone: name a checkpoint that holds a whole model"
    return f"is of an unknown layout: {FOLDER}"


@cache
def _settings() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    return read_json(Path(__file__).with_suffix(".json"))


def _described(header: Header, metadata: Mapping[str, str]) -> Checkpoint:
    """The checkpoint of a header. Raises ValueError, or another error of MALFORMED, for a missing
    tensor and for sizes that do not fit.
    """
    if OPEN_CLIP_XL + "token_embedding.weight" in header:
        family = "sdxl"
        sizes = {
            "text_encoder": _clip(header, CLIP_XL),
            "text_encoder_2": _open_clip(header, OPEN_CLIP_XL),
        }
    elif OPEN_CLIP + "token_embedding.weight" in header:
        family = "sd2"
        text = _open_clip(header, OPEN_CLIP)
        sizes = {"text_encoder": text | {"num_hidden_layers": min(KEPT, text["num_hidden_layers"])}}
    else:
        family, sizes = "sd1", {"text_encoder": _clip(header, CLIP)}
    sizes |= {"unet": _unet(header, family), "vae": _vae(header)}
    if family == "sdxl":
        # six sizes are embedded beside the pooled text
        given = sizes["unet"]["projection_class_embeddings_input_dim"]
        pooled = sizes["text_encoder_2"]["projection_dim"]
        sizes["unet"]["addition_time_embed_dim"] = (given - pooled) // 6
    index = dict(_settings()[family][INDEX])
    channels = sizes["unet"]["in_channels"]
    match channels - sizes["vae"]["latent_channels"]:
        case 0:
            pass
        case 5:  # a mask, and the latents of the masked image
            index["_class_name"] = str(index["_class_name"]).replace("Pipeline", "InpaintPipeline")
        case _:
            raise ValueError(f"its UNet takes {channels} channels")
    configs = {
        part: {**config, **sizes.get(part, {})} for part, config in _settings()[family].items()
    }
    prediction = _prediction(header, metadata, family)
    if prediction:
        configs["scheduler"]["prediction_type"] = prediction
    if "ztsnr" in header:
        configs["scheduler"] |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return Checkpoint(family, configs | {INDEX: index}, prediction)


def _prediction(header: Header, metadata: Mapping[str, str], family: str) -> str:
    """The kind of prediction: by a tensor that says so, by the ModelSpec entries of the metadata
    (https://github.com/Stability-AI/ModelSpec), or that of all models of the family.
    """
    said = metadata.get("modelspec.prediction_type", "").lower()
    if "v_pred" in header or said.startswith("v"):
        return "v_prediction"
    return "epsilon" if said == "epsilon" or family != "sd2" else ""


def _shapes(header: Header) -> Callable[[str], list[int]]:
    def shape(key: str) -> list[int]:
        if key not in header:
            raise ValueError(f"it lacks {key}")
        found: list[int] = header[key]["shape"]
        return found

    return shape


def _count(header: Header, start: str) -> int:
    """The modules of a list, which are numbered from 0."""
    places = {key[len(start) :].partition(".")[0] for key in header if key.startswith(start)}
    count = 0
    while str(count) in places:
        count += 1
    if count > MOST_MODULES:
        raise ValueError(f"{start}{count - 1} is one module too many")
    return count


def _unet(header: Header, family: str) -> dict[str, Any]:
    shape = _shapes(header)
    # a level ends with what halves the image; a block is its channels and its transformers
    levels: list[list[tuple[int, int]]] = [[]]
    for number in range(1, _count(header, UNET + "input_blocks.")):
        block = f"{UNET}input_blocks.{number}."
        if block + "0.op.weight" in header:
            levels.append([])
        else:
            channels = shape(block + "0.out_layers.3.weight")[0]
            levels[-1].append((channels, _count(header, block + "1.transformer_blocks.")))
    if len({len(level) for level in levels}) != 1 or any(len(set(each)) != 1 for each in levels):
        raise ValueError("the blocks of its UNet differ within a level")
    middle = UNET + "middle_block.1."
    widths = [level[0][0] for level in levels]
    depths = [level[0][1] for level in levels]
    if (last := _count(header, middle + "transformer_blocks.")) != depths[-1] and depths[-1]:
        raise ValueError(f"the middle of its UNet has {last} transformers, not {depths[-1]}")
    crossed = [bool(depth) for depth in depths]
    sizes: dict[str, Any] = {
        "in_channels": shape(UNET + "input_blocks.0.0.weight")[1],
        "out_channels": shape(UNET + "out.2.weight")[0],
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": [("CrossAttn" if each else "") + "DownBlock2D" for each in crossed],
        "up_block_types": [("CrossAttn" if each else "") + "UpBlock2D" for each in crossed[::-1]],
        "transformer_layers_per_block": [*(each or 1 for each in depths[:-1]), last],
        "cross_attention_dim": shape(middle + "transformer_blocks.0.attn2.to_k.weight")[1],
        "use_linear_projection": len(shape(middle + "proj_in.weight")) == 2,
        "attention_head_dim": HEADS if family == "sd1" else [each // HEAD for each in widths],
    }
    if family == "sdxl":
        sizes["projection_class_embeddings_input_dim"] = shape(UNET + "label_emb.0.0.weight")[1]
    return sizes


def _vae(header: Header) -> dict[str, Any]:
    shape, down = _shapes(header), VAE + "encoder.down."
    levels = range(_count(header, down))
    return {
        "block_out_channels": [shape(f"{down}{n}.block.0.conv1.weight")[0] for n in levels],
        "down_block_types": ["DownEncoderBlock2D" for _ in levels],
        "up_block_types": ["UpDecoderBlock2D" for _ in levels],
        "layers_per_block": _count(header, down + "0.block."),
        "latent_channels": shape(VAE + "decoder.conv_in.weight")[1],
        "use_quant_conv": VAE + "quant_conv.weight" in header,
        "use_post_quant_conv": VAE + "post_quant_conv.weight" in header,
    }


def _clip(header: Header, start: str) -> dict[str, Any]:
    shape = _shapes(header)
    sizes = _text_sizes(
        shape(start + "embeddings.token_embedding.weight"),
        shape(start + "embeddings.position_embedding.weight"),
    )
    return sizes | {
        "intermediate_size": shape(start + "encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": _count(header, start + "encoder.layers."),
        "projection_dim": sizes["hidden_size"],
    }


def _open_clip(header: Header, start: str) -> dict[str, Any]:
    shape, blocks = _shapes(header), start + "transformer.resblocks."
    sizes = _text_sizes(
        shape(start + "token_embedding.weight"), shape(start + "positional_embedding")
    )
    projected = start + "text_projection"
    return sizes | {
        "intermediate_size": shape(blocks + "0.mlp.c_fc.weight")[0],
        "num_hidden_layers": _count(header, blocks),
        "projection_dim": shape(projected)[1] if projected in header else sizes["hidden_size"],
    }


def _text_sizes(tokens: list[int], positions: list[int]) -> dict[str, int]:
    if tokens[0] != VOCABULARY:
        raise ValueError(f"its text encoder knows {tokens[0]} tokens, and CLIP's has {VOCABULARY}")
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": tokens[1],
        "num_attention_heads": tokens[1] // HEAD,
        "max_position_embeddings": positions[0],
    }
