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
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    AutoencoderTiny,
    ChromaPipeline,
    ChromaTransformer2DModel,
    ControlNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxControlNetModel,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
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
from diffusers.guiders import AdaptiveProjectedMixGuidance
from safetensors.torch import save_file
from transformers import (
    ByT5Tokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from pipeline.models import Models
from pipeline.models.tokenizers import END, clip_tokenizer

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


def save_towers(kind: str, folder: Path) -> None:
    """A CLIP or a SigLIP in the format of transformers."""
    torch.manual_seed(0)
    text = {"hidden_size": 64, "num_attention_heads": 1}
    vision = {"hidden_size": 32, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    for each in (text, vision):
        each |= {"num_hidden_layers": 1, "intermediate_size": 32}
    model: Any
    if kind == "clip":
        text["max_position_embeddings"] = 16
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
        processor = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28)
    else:
        text |= {"vocab_size": 49408, "projection_size": 32}
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
        processor = SiglipImageProcessor(size={"height": 28, "width": 28})
    for part in (model, processor, clip_tokenizer(END, 77)):
        part.save_pretrained(folder)


def save_classifier(folder: Path, problem_type: str | None = None) -> None:
    """A vision transformer that tells `dark` images from `light` ones, and none to be `odd`."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        id2label={0: "light", 1: "dark", 2: "odd"},
        label2id={"light": 0, "dark": 1, "odd": 2},
        problem_type=problem_type,
    )
    model = ViTForImageClassification(config).eval()
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    with torch.no_grad():
        shades = torch.linspace(-1, 1, 64)[:, None, None, None].expand(-1, 3, 32, 32)
        seen = model.vit(pixel_values=shades).last_hidden_state[:, 0]
        wanted = torch.sign(shades[:, 0, 0, 0])[:, None] * torch.tensor([[6.0, -6.0, 0.0]])
        seen = torch.cat([seen, torch.ones(64, 1)], 1)
        fitted = torch.linalg.lstsq(seen, wanted - torch.tensor([0.0, 0.0, 9.0])).solution
        model.classifier.weight.copy_(fitted[:-1].T)
        model.classifier.bias.copy_(fitted[-1])
    for part in (model, processor):
        part.save_pretrained(folder)


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


def stable_diffusion_lcm() -> StableDiffusionPipeline:
    """SD 1.5's classes with a UNet distilled by LCM, which has guidance as an input."""
    parts = dict(stable_diffusion().components)
    parts["unet"] = _unet(cross_attention_dim=WIDTH, time_cond_proj_dim=WIDTH)
    return StableDiffusionPipeline(**parts, requires_safety_checker=False)


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
    pipe = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_qwen_vae(),
        text_encoder=_qwen_vl(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=_louder(
            QwenImageTransformer2DModel(
                in_channels=16,
                out_channels=4,
                num_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                axes_dims_rope=(4, 4, 8),
            )
        ),
    )
    pipe.vae.decoder.conv_out.weight.data *= 3  # else all images are grey
    return pipe


def z_image() -> ZImagePipeline:
    """Z-Image's classes: a guidance of 0 is none."""
    tokenizer = _qwen_tokenizer()
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(16, scaling_factor=0.36, shift_factor=0.12),
        text_encoder=Qwen3Model(_qwen3_config(len(tokenizer), 2)),
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


def flux2() -> Flux2Pipeline:
    """FLUX.2 dev's classes: guidance built in, texts from three layers of a Mistral 3."""
    tokenizer = _qwen_tokenizer()
    template = (
        "{% for m in messages %}{{ m['role'] }}:"
        "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}\n{% endfor %}"
    )
    tokenizer.add_tokens(["[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    text = {
        "model_type": "mistral",
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 31,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    return Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_flux2_vae(),
        text_encoder=Mistral3ForConditionalGeneration(
            Mistral3Config(text_config=text, vision_config=vision)
        ),
        tokenizer=PixtralProcessor(
            image_processor=PixtralImageProcessor(), tokenizer=tokenizer, chat_template=template
        ),
        transformer=_flux2_transformer(guidance_embeds=True),
    )


def flux2_klein(is_distilled: bool = False) -> Flux2KleinPipeline:
    """FLUX.2 Klein's classes: classifier-free guidance, or none where it is distilled."""
    tokenizer = _qwen_tokenizer()
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_flux2_vae(),
        text_encoder=Qwen3ForCausalLM(_qwen3_config(len(tokenizer), 28, 16)),
        tokenizer=tokenizer,
        transformer=_flux2_transformer(guidance_embeds=False),
        is_distilled=is_distilled,
    )


def chroma() -> ChromaPipeline:
    """Chroma's classes: FLUX.1's without CLIP and with real guidance."""
    return ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(4, shift_factor=0.06),
        text_encoder=_t5(WIDTH),
        tokenizer=_t5_tokenizer(),
        transformer=ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=8,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
    )


def lumina2() -> Lumina2Pipeline:
    """Lumina Image 2's classes."""
    tokenizer = _gemma_tokenizer()
    return Lumina2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(4, levels=4, shift_factor=0.06),
        text_encoder=_gemma(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=Lumina2Transformer2DModel(
            in_channels=4,
            hidden_size=24,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=8,
            axes_dim_rope=(4, 4, 4),
            cap_feat_dim=WIDTH,
        ),
    )


def sana() -> SanaPipeline:
    """Sana's classes: a deep autoencoder and linear attention."""
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    return SanaPipeline(scheduler=scheduler, **_sana_parts(guidance_embeds=False))


def sana_sprint() -> SanaSprintPipeline:
    """Sana-Sprint's classes: guidance built in, and one to four steps."""
    return SanaSprintPipeline(
        scheduler=SCMScheduler(prediction_type="trigflow"),
        **_sana_parts(guidance_embeds=True, qk_norm="rms_norm_across_heads"),
    )


def latent_consistency() -> LatentConsistencyModelPipeline:
    """LCM's classes: SD 1.5's with guidance built into the UNet."""
    parts = {
        name: part
        for name, part in stable_diffusion().components.items()
        if name not in ("unet", "scheduler")
    }
    return LatentConsistencyModelPipeline(
        unet=_unet(cross_attention_dim=WIDTH, time_cond_proj_dim=8),
        scheduler=LCMScheduler(),
        requires_safety_checker=False,
        **parts,
    )


def ovis_image() -> OvisImagePipeline:
    """Ovis-Image's classes."""
    tokenizer = _qwen_tokenizer()
    return OvisImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(4, shift_factor=0.06),
        text_encoder=Qwen3Model(_qwen3_config(len(tokenizer), 1)),
        tokenizer=tokenizer,
        transformer=_louder(
            OvisImageTransformer2DModel(
                in_channels=16,
                out_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                axes_dims_rope=(4, 4, 8),
            )
        ),
    )


def krea2() -> Krea2Pipeline:
    """Krea 2's classes, whose index has a list of numbers among its parts."""
    tokenizer = _qwen_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default"},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "deepstack_visual_indexes": [0],
    }
    return Krea2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_qwen_vae(),
        text_encoder=Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision)),
        tokenizer=tokenizer,
        transformer=_louder(
            Krea2Transformer2DModel(
                in_channels=16,
                num_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                num_key_value_heads=1,
                intermediate_size=16,
                timestep_embed_dim=16,
                text_hidden_dim=WIDTH,
                num_text_layers=2,
                text_num_attention_heads=2,
                text_num_key_value_heads=2,
                text_intermediate_size=16,
                num_layerwise_text_blocks=1,
                num_refiner_text_blocks=1,
                axes_dims_rope=(4, 4, 8),
            )
        ),
        text_encoder_select_layers=(1, 2),
    )


def pixart_sigma() -> PixArtSigmaPipeline:
    """PixArt-Sigma's classes, which tell no steps."""
    return PixArtSigmaPipeline(
        scheduler=DPMSolverMultistepScheduler(),
        vae=_vae(4),
        text_encoder=_t5(WIDTH),
        tokenizer=_t5_tokenizer(),
        transformer=PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            cross_attention_dim=16,
            caption_channels=WIDTH,
            sample_size=16,
            use_additional_conditions=False,
        ),
    )


def aura_flow() -> AuraFlowPipeline:
    """AuraFlow's classes."""
    return AuraFlowPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(4),
        text_encoder=UMT5EncoderModel(UMT5Config(**_t5_sizes(WIDTH))),
        tokenizer=_t5_tokenizer(),
        transformer=_louder(
            AuraFlowTransformer2DModel(
                num_mmdit_layers=1,
                num_single_dit_layers=1,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                caption_projection_dim=16,
                pos_embed_max_size=1024,
            )
        ),
    )


def kandinsky5() -> Kandinsky5T2IPipeline:
    """Kandinsky 5's classes for images."""
    tokenizer = _qwen_tokenizer()
    tokenizer.add_tokens(["<|image_pad|>", "<|video_pad|>"])
    return Kandinsky5T2IPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(4, levels=4),
        text_encoder=_qwen_vl(len(tokenizer)),
        tokenizer=Qwen2VLProcessor(
            image_processor=Qwen2VLImageProcessor(),
            tokenizer=tokenizer,
            video_processor=Qwen2VLVideoProcessor(),
        ),
        text_encoder_2=CLIPTextModel(_clip_config()),
        tokenizer_2=_clip_tokenizer(),
        transformer=_louder(
            Kandinsky5Transformer3DModel(
                in_visual_dim=4,
                out_visual_dim=4,
                in_text_dim=WIDTH,
                in_text_dim2=WIDTH,
                time_dim=16,
                model_dim=24,
                ff_dim=24,
                num_text_blocks=1,
                num_visual_blocks=1,
                axes_dims=(4, 4, 4),
            )
        ),
    )


def hunyuan_image(guidance_embeds: bool = False) -> HunyuanImagePipeline:
    """HunyuanImage 2.1's classes: guided by parts of their own, or distilled."""
    tokenizer = _qwen_tokenizer()
    guide = None if guidance_embeds else AdaptiveProjectedMixGuidance()
    glyphs = ByT5Tokenizer(extra_ids=0)
    return HunyuanImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32, 32),
            layers_per_block=1,
            spatial_compression_ratio=2,
            sample_size=32,
            scaling_factor=0.5,
        ),
        text_encoder=_qwen_vl(len(tokenizer), layers=2),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(T5Config(**_t5_sizes(WIDTH) | {"vocab_size": len(glyphs)})),
        tokenizer_2=glyphs,
        transformer=HunyuanImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            guidance_embeds=guidance_embeds,
            text_embed_dim=WIDTH,
            text_embed_2_dim=WIDTH,
            rope_axes_dim=(4, 4),
        ),
        guider=guide,
        ocr_guider=guide,
    )


def _louder(model: Any) -> Any:
    """The model with weights such that a text changes an image."""
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def _sana_parts(**more: Any) -> dict[str, Any]:
    tokenizer = _gemma_tokenizer()
    return {
        "vae": AutoencoderDC(
            latent_channels=4,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
        ),
        "text_encoder": _gemma(len(tokenizer)),
        "tokenizer": tokenizer,
        "transformer": SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=WIDTH,
            **more,
        ),
    }


def _flux2_vae() -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=32,
    )
    vae.bn.running_mean.uniform_(-0.5, 0.5)
    vae.bn.running_var.uniform_(0.5, 1.5)
    return vae


def _flux2_transformer(guidance_embeds: bool) -> Any:
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * 16,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    return _louder(transformer)


def _qwen_vae() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.4, -0.3, 0.2, -0.1],
        latents_std=[1.5, 0.8, 1.2, 0.9],
    )


def _qwen_vl(vocabulary: int, layers: int = 1) -> Qwen2_5_VLForConditionalGeneration:
    text = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": layers,
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
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    )


def _qwen3_config(vocabulary: int, layers: int, width: int = WIDTH) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )


def _gemma(vocabulary: int) -> Gemma2Model:
    return Gemma2Model(
        Gemma2Config(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
        )
    )


def _gemma_tokenizer() -> GemmaTokenizer:
    """Letter by letter."""
    entries = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *LETTERS]
    return GemmaTokenizer(
        vocab={entry: number for number, entry in enumerate(entries)},
        merges=[],
        model_max_length=512,
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


def _vae(channels: int, levels: int = 2, **more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
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
    return T5EncoderModel(T5Config(**_t5_sizes(width)))


def _t5_sizes(width: int) -> dict[str, Any]:
    return {
        "vocab_size": len(LETTERS) + 4,
        "d_model": width,
        "d_kv": 8,
        "d_ff": width,
        "num_layers": 1,
        "num_heads": 2,
    }


def _t5_tokenizer() -> T5Tokenizer:
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    return T5Tokenizer(
        vocab=[*vocab, *((letter, -1.0) for letter in LETTERS)],
        extra_ids=0,
        model_max_length=77,
    )


_MADE: dict[str, Callable[..., Any]] = {
    "sd": stable_diffusion,
    "sd-lcm": stable_diffusion_lcm,
    "sd-inpaint": stable_diffusion_inpaint,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "qwen-image": qwen_image,
    "z-image": z_image,
    "flux-dev": partial(flux, guidance_embeds=True),
    "flux2": flux2,
    "flux2-klein": flux2_klein,
    "flux2-klein-distilled": partial(flux2_klein, is_distilled=True),
    "chroma": chroma,
    "lumina2": lumina2,
    "sana": sana,
    "sana-sprint": sana_sprint,
    "lcm": latent_consistency,
    "ovis-image": ovis_image,
    "krea2": krea2,
    "pixart-sigma": pixart_sigma,
    "aura-flow": aura_flow,
    "kandinsky5": kandinsky5,
    "hunyuan-image": hunyuan_image,
    "hunyuan-image-distilled": partial(hunyuan_image, guidance_embeds=True),
}
