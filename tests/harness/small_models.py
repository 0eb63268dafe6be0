"""Models for tests: the shipped ones, and tiny random ones of the large models' classes."""

import inspect
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3ControlNetModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from pipeline.models import Models

WIDTH = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save(family: str, folder: Path, variant: str = "") -> None:
    """Write the pipeline of a family, in safetensors, as a download from the hub would lie."""
    made(family).save_pretrained(folder, safe_serialization=True, variant=variant or None)


def made(family: str, **more: Any) -> Any:
    """The pipeline of a family, with random weights that are always the same."""
    torch.manual_seed(0)
    pipe = _MADE[family](**more)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # T5 drops values out while it is trained
    return pipe


def shipped(root: Path) -> Models:
    """The models that ship with the repository; skips where they are not there yet."""
    if not (root / "diffusion").is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"the small models are missing in {root}")
        pytest.skip(f"no small models in {root}")
    return Models(root, "cpu")


def save_preview_decoder(family: str, folder: Path) -> None:
    """A TAESD for the pipeline of a family."""
    torch.manual_seed(1)
    AutoencoderTiny(
        latent_channels=16 if family in ("sd3", "z-image") else 4,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(folder)


def save_controlnet(pipe: Any, folder: Path, seed: int = 0, **config: Any) -> None:
    """A ControlNet for a pipeline, with random weights where a new one has zeros."""
    torch.manual_seed(seed)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    kind: Any = {
        "UNet2DConditionModel": ControlNetModel,
        "SD3Transformer2DModel": SD3ControlNetModel,
        "FluxTransformer2DModel": FluxControlNetModel,
    }[type(denoiser).__name__]
    known = inspect.signature(kind.__init__).parameters
    settings = {name: value for name, value in denoiser.config.items() if name in known}
    if kind is ControlNetModel:
        # halves the image as often as the VAE does
        settings["conditioning_embedding_out_channels"] = (8, 8)
    net = kind(**settings | config)
    for weight in net.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.5)
    net.save_pretrained(folder, safe_serialization=True)


def save_judge(folder: Path) -> None:
    """A vision transformer of OpenCLIP with OpenAI's tokenizer, as LAION publishes its models."""
    torch.manual_seed(0)
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    folder.mkdir(parents=True)
    model = open_clip.CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    described = json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    (folder / "open_clip_config.json").write_text(described)


def save_writer(folder: Path) -> None:
    """Qwen 2.5's classes, with a chat template."""
    torch.manual_seed(0)
    tokenizer = _qwen_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def stable_diffusion() -> StableDiffusionPipeline:
    """SD 1.5's classes."""
    return StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_clip_config()),
        tokenizer=_clip_tokenizer(),
        unet=_unet(cross_attention_dim=WIDTH),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_inpaint() -> StableDiffusionInpaintPipeline:
    """SD 1.5's classes with a UNet of nine channels."""
    parts = dict(stable_diffusion().components)
    parts["unet"] = _unet(cross_attention_dim=WIDTH, in_channels=9)
    return StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """SDXL's classes: two text encoders, pooled text and sizes as added conditions."""
    return StableDiffusionXLPipeline(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config()),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=_unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def stable_diffusion_3(layers: int = 1) -> StableDiffusion3Pipeline:
    """SD 3.5's classes: a transformer with three text encoders."""
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=16,
            num_layers=layers,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=WIDTH,
            pooled_projection_dim=2 * WIDTH,
            out_channels=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(16, shift_factor=0.06),
        text_encoder=CLIPTextModelWithProjection(_clip_config()),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config()),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(2 * WIDTH),
        tokenizer_3=_t5_tokenizer(),
    )


def flux(guidance_embeds: bool = False, layers: int = 1) -> FluxPipeline:
    """FLUX.1's classes: schnell without, dev with a guidance embedding."""
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(4, shift_factor=0.06),
        text_encoder=CLIPTextModel(_clip_config()),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_t5(WIDTH),
        tokenizer_2=_t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=layers,
            num_single_layers=layers,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        ),
    )


def qwen_image() -> QwenImagePipeline:
    """Qwen-Image's classes: true guidance, beside a negative prompt only."""
    tokenizer = _qwen_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3], "rope_type": "default"},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
    }
    pipe = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.4, -0.3, 0.2, -0.1],
            latents_std=[1.5, 0.8, 1.2, 0.9],
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision)
        ),
        tokenizer=tokenizer,
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
        ),
    )
    # with weights as they are drawn, a text moves the image by less than 1/255
    for weight in (
        *pipe.transformer.transformer_blocks.parameters(),
        *pipe.vae.decoder.conv_out.parameters(),
    ):
        if weight.ndim > 1:
            weight.data *= 3
    return pipe


def z_image() -> ZImagePipeline:
    """Z-Image's classes: a guidance of 0 is none."""
    tokenizer = _qwen_tokenizer()
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(16, scaling_factor=0.36, shift_factor=0.12),
        text_encoder=Qwen3Model(
            Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=16,
            )
        ),
        tokenizer=tokenizer,
        transformer=ZImageTransformer2DModel(
            dim=WIDTH,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=WIDTH,
            axes_dims=[4, 6, 6],
        ),
    )


def _qwen_tokenizer() -> Qwen2Tokenizer:
    """Letter by letter, with a chat template."""
    vocab = {letter: number for number, letter in enumerate([*LETTERS, "Ġ", "Ċ", ":"])}
    vocab["<|endoftext|>"] = len(vocab)
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    return tokenizer


def _vae(channels: int, **more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=32,
        use_quant_conv=channels == 4,
        use_post_quant_conv=channels == 4,
        **more,
    )


def _unet(**more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        use_linear_projection=True,
        **more,
    )


def _clip_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 2,
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=2 * len(LETTERS),
        eos_token_id=2 * len(LETTERS) + 1,
    )


def _clip_tokenizer() -> CLIPTokenizer:
    """Letter by letter; everything else is unknown."""
    entries = [*LETTERS, *(letter + "</w>" for letter in LETTERS)]
    vocab = {entry: number for number, entry in enumerate(entries)}
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def _t5(width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(LETTERS) + 4,
            d_model=width,
            d_kv=8,
            d_ff=width,
            num_layers=1,
            num_heads=2,
        )
    )


def _t5_tokenizer() -> T5Tokenizer:
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    return T5Tokenizer(
        vocab=[*vocab, *((letter, -1.0) for letter in LETTERS)],
        extra_ids=0,
        model_max_length=77,
    )


_MADE: dict[str, Callable[..., Any]] = {
    "sd": stable_diffusion,
    "sd-inpaint": stable_diffusion_inpaint,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "qwen-image": qwen_image,
    "z-image": z_image,
    "flux-dev": partial(flux, guidance_embeds=True),
}
