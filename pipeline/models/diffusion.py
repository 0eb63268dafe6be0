"""Loading and tuning of diffusers pipelines from local folders and single files."""

from collections.abc import Container, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import diffusers
import torch
import transformers
from diffusers.models.embeddings import ImageProjection
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from torch._dynamo import config as dynamo
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.errors import ModelError
from pipeline.models.checkpoints import INDEX, checkpoint
from pipeline.models.contents import has_weights, left_out, parts_of, sole_weights, variant_of
from pipeline.models.safetensors import read_json
from pipeline.models.schedulers import configured
from pipeline.models.tokenizers import END, check_tokenizer, clip_tokenizer
from pipeline.models.whole import LOCAL, load_whole
from pipeline.profile import DiffusersProfile, Dtype, UNetScales

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By number of axes: the weights of convolutions of images, and of videos."""
COMPILED_SHAPES = 4096
UNREAD = ("lm_head.",)
"""Weights of text encoders that no pipeline reads: it takes their hidden states."""
PADS = {("sd2", "tokenizer"): "!", ("sdxl", "tokenizer_2"): "!"}
"""Tokens that fill the windows of OpenCLIP's text encoders, by family and tokenizer."""
LAST = 999
"""The timestep of the most noise."""
BLOCKS_OF_ANY_LENGTH = frozenset({"QwenImageTransformerBlock", "ZImageTransformerBlock"})
"""Those that read texts at their own lengths, which would be compiled for each length."""
REPEATED_BLOCKS = frozenset(
    {
        "BasicTransformerBlock",
        "Flux2SingleTransformerBlock",
        "Flux2TransformerBlock",
        "FluxSingleTransformerBlock",
        "FluxTransformerBlock",
        "JointTransformerBlock",
        "ResnetBlock2D",
    }
)


def load_pipeline(model: Path, unet: Path | None, profile: DiffusersProfile) -> Any:
    """The text-to-image pipeline in a folder or a single file, with `unet` and the profile's
    scheduler, if any.
    """
    # truncation warnings would put prompts into logs
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    parts: dict[str, Any] = {"dtype": getattr(torch, profile.dtype)}
    if unet:
        parts["unet"] = load_whole(diffusers.UNet2DConditionModel, unet, **parts)
    pipe = _from_file(model, parts) if model.is_file() else _from_folder(model, profile, parts)
    if hasattr(pipe, "scheduler"):
        pipe.scheduler = configured(pipe.scheduler, profile.scheduler, profile.scheduler_settings)
    elif profile.scheduler or profile.scheduler_settings:
        raise ModelError(f"{type(pipe).__name__} has no scheduler")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _from_folder(folder: Path, profile: DiffusersProfile, parts: dict[str, Any]) -> Any:
    spared = dict.fromkeys(left_out(folder))
    named = read_json(folder / "model_index.json").get("_class_name")
    known = {known.__name__ for known in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}
    auto = diffusers.AutoPipelineForText2Image if named in known else diffusers.DiffusionPipeline
    parts |= _models(folder, profile, parts)
    pipe = cast(Any, auto).from_pretrained(folder, use_safetensors=True, **LOCAL, **spared, **parts)
    for name, part in pipe.components.items():
        tokenizer = getattr(part, "tokenizer", part)  # a processor's own
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            check_tokenizer(tokenizer, folder / name)
    return pipe


def _models(folder: Path, profile: DiffusersProfile, given: Container[str]) -> dict[str, Any]:
    """The models among a pipeline's parts but those `given`, from the files that were checked."""
    variant, found = variant_of(folder, profile.variant), dict[str, Any]()
    dtype = {"dtype": getattr(torch, profile.dtype)}
    libraries = {"diffusers": diffusers, "transformers": transformers}
    for part, library, name in parts_of(folder):
        module = libraries.get(library) or getattr(diffusers.pipelines, library, None)
        kind = getattr(module, name, None)
        if part.name in given or not isinstance(kind, type):
            continue
        if issubclass(kind, (diffusers.ModelMixin, PreTrainedModel)):
            tagged = {"variant": variant} if variant and has_weights(part, variant) else {}
            found[part.name] = load_whole(kind, part, *UNREAD, **dtype, **tagged)
    return found


def _from_file(file: Path, parts: dict[str, Any]) -> Any:
    """The pipeline of a single-file checkpoint. Raises ModelError for one that lacks weights."""
    found = checkpoint(file)
    length = found.configs["text_encoder"]["max_position_embeddings"]
    parts |= {
        name: clip_tokenizer(PADS.get((found.family, name), END), length)
        for name in found.configs[INDEX]
        if name.startswith("tokenizer")
    }
    with TemporaryDirectory() as folder:
        found.write(Path(folder))
        kind = cast(Any, getattr(diffusers, found.pipeline))
        lacking = ModelError(f"{file} lacks some of its weights; fetch it again")
        try:
            pipe = kind.from_single_file(str(file), config=folder, local_files_only=True, **parts)
        except NotImplementedError as error:  # a weight that no tensor of the file has filled
            raise lacking from error
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    if any(weight.is_meta for module in modules for weight in module.parameters()):
        raise lacking
    if not found.prediction and not predicts_noise(pipe.unet):
        pipe.scheduler.register_to_config(prediction_type="v_prediction")
    return pipe


def predicts_noise(unet: Any) -> bool:
    """True for a UNet that predicts an image's noise, False for one of v (Salimans and Ho 2022,
    https://arxiv.org/abs/2202.00512). Before the first step an image is nearly noise alone: the
    former gives it back, and of v is left hardly any of it.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    noise = torch.randn(shape, generator=generator).to(unet.dtype)
    texts = torch.zeros((1, 1, unet.config.cross_attention_dim), dtype=unet.dtype)
    with torch.inference_mode():
        found = unet(noise, LAST, encoder_hidden_states=texts).sample
    given = noise[:, : found.shape[1]]
    alike = torch.nn.functional.cosine_similarity(given.flatten(), found.flatten(), dim=0)
    return bool(alike > 0.5)


def load_adapters(pipe: Any, folders: Sequence[Path], scales: Sequence[float | UNetScales]) -> None:
    """Load IP-Adapters (https://arxiv.org/abs/2308.06721) with their own scales into a pipeline,
    which then needs embeddings of images for each of them in every call.

    Raises ModelError for an unsupported family or kind, for adapters that take embeddings of
    different widths, and for scales that do not fit the UNet's blocks.
    """
    if not hasattr(pipe, "unet"):
        raise ModelError(f"{folders[0]}: image adapters are for Stable Diffusion 1, 2 and XL")
    files = [sole_weights(folder) for folder in folders]
    pipe.load_ip_adapter(
        [str(folder) for folder in folders],
        subfolder=[""] * len(files),
        weight_name=[file.name for file in files],
        image_encoder_folder=None,
        local_files_only=True,
    )
    layers = pipe.unet.encoder_hid_proj.image_projection_layers
    for file, projection in zip(files, layers, strict=True):
        if not isinstance(projection, ImageProjection):
            raise ModelError(f"{file}: of image adapters only the plain kind is known")
    widths = {layer.image_embeds.in_features for layer in layers}
    if len(widths) > 1:
        raise ModelError(
            f"image adapters of one renderer share one image encoder, and these take embeddings of "
            f"{' and '.join(map(str, sorted(widths)))} numbers"
        )
    pipe.set_ip_adapter_scale([_by_block(pipe.unet, scale) for scale in scales])


def _by_block(unet: Any, scale: float | UNetScales) -> Any:
    """The scale as diffusers takes it. Raises ModelError for a block without attention, which
    diffusers would ignore.
    """
    if not isinstance(scale, UNetScales):
        return scale
    for part, blocks in (("down", unet.down_blocks), ("up", unet.up_blocks)):
        scales = getattr(scale, part)
        known = {f"block_{at}" for at, each in enumerate(blocks) if hasattr(each, "attentions")}
        if unknown := set(scales if isinstance(scales, dict) else ()) - known:
            raise ModelError(
                f"{min(unknown)} in {part} of an image adapter's scale is none of the UNet's "
                f"blocks with attention: {', '.join(sorted(known))}"
            )
    return scale.model_dump()


def load_controlnet(folder: Path, name: str, dtype: Dtype) -> Any:
    """A ControlNet of diffusers' class `name`. Raises ModelError for a file that lacks weights, and
    for one with numbers that are not finite.
    """
    net = load_whole(getattr(diffusers, name), folder, dtype=getattr(torch, dtype))
    if not all(weight.isfinite().all() for weight in net.parameters()):
        raise ModelError(f"{folder} holds numbers that are not finite")
    return net


def denoiser_of(pipe: Any) -> Any:
    """The model of a pipeline that is called in each step. Raises ModelError."""
    found = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    if found is None:
        raise ModelError(f"{type(pipe).__name__} has no one model that is called in each step")
    return found


def tune(pipe: Any, *, compiled: bool, channels_last: bool) -> None:
    """Make a pipeline on its device faster.

    `compiled` compiles the denoiser's and decoder's repeated blocks, most once for each input shape
    (https://docs.pytorch.org/tutorials/recipes/regional_compilation.html).
    """
    denoiser = denoiser_of(pipe)
    if channels_last:
        for weight in (*denoiser.parameters(), *pipe.vae.parameters()):
            if layout := CHANNELS_LAST.get(weight.ndim):
                weight.data = weight.data.contiguous(memory_format=layout)
    if compiled:
        models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
        for block in (block for model in models for block in model.modules()):
            if (name := type(block).__name__) in REPEATED_BLOCKS | BLOCKS_OF_ANY_LENGTH:
                block.compile(dynamic=name in BLOCKS_OF_ANY_LENGTH)
        # an autoencoder's parts are called by themselves
        for part in (part for model in models for part in (model, *model.children())):
            part.register_forward_pre_hook(_allow_shapes)


def _allow_shapes(*_: object) -> None:
    """Let this thread compile COMPILED_SHAPES shapes: all blocks share one code, which is compiled
    for each size of batch, width and image, and each thread has limits of its own.
    """
    if dynamo.recompile_limit < COMPILED_SHAPES:
        dynamo.recompile_limit = dynamo.accumulated_recompile_limit = COMPILED_SHAPES


def load_preview_decoder(folder: Path, profile: DiffusersProfile) -> Any:
    """A tiny autoencoder (TAESD, https://github.com/madebyollin/taesd) of the pipeline's family."""
    return load_whole(diffusers.AutoencoderTiny, folder, dtype=getattr(torch, profile.dtype))
