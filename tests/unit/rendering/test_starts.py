"""Image-to-image and inpainting: as diffusers' own pipelines do them, whatever shares the batch."""

import threading
from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    StableDiffusion3InpaintPipeline,
)

from pipeline.errors import JobError
from pipeline.job import ImageArray, LoadedImage, RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile, Profile
from pipeline.rendering.calls import SCHNELL_TOKENS, strength_of
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.engine import Engine
from pipeline.rendering.families import family_of
from pipeline.rendering.families.base import images as decoded
from pipeline.rendering.inputs import pasted
from pipeline.rendering.local import local_renderer
from pipeline.settings import SHIPPED_MODELS
from tests.harness import small_models

CLOSE = 2 / 255
WIDTH, HEIGHT, STEPS = 32, 48, 7
SAMPLERS = {
    "euler": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    "dpm": ("DPMSolverMultistepScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {"beta_end": 0.012}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "single": ("DPMSolverSinglestepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {}),
    "shifted": ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
}
CASES = [("sd", sampler) for sampler in list(SAMPLERS)[:-2]]
CASES += [("sdxl", "dpm"), ("sd-inpaint", "ancestral"), ("sd3", "flow"), ("flux", "shifted")]
CASES += [("z-image", "shifted"), ("qwen-image", "shifted")]


def pixels(seed: int) -> ImageArray:
    """Coarse noise, which survives a decoder."""
    coarse = np.random.default_rng(seed).random((HEIGHT // 8, WIDTH // 8, 3), dtype=np.float32)
    return coarse.repeat(8, 0).repeat(8, 1)


IMAGE, OTHER = (LoadedImage(str(seed) * 64, pixels(seed)) for seed in (1, 2))
LEFT = np.zeros((HEIGHT, WIDTH, 3), np.float32)
LEFT[:, : WIDTH // 2] = 1
MASK = LoadedImage("f" * 64, LEFT)


def a_request(seed: int, **changes: object) -> RenderRequest:
    settings = {
        "prompt": "a red circle",
        "negative": "",
        "width": WIDTH,
        "height": HEIGHT,
        "steps": STEPS,
        "guidance": 3.0,
        "seeds": (seed,),
    }
    return RenderRequest.model_validate(settings | changes)


def mixed(fills: bool) -> list[RenderRequest]:
    """Rows of all kinds, in several lengths and with several images."""
    masked = [
        a_request(1, image=IMAGE, mask=MASK, strength=1.0),
        a_request(2, image=IMAGE, mask=MASK, strength=0.6, prompt="a blue star"),
        a_request(3, image=OTHER, mask=MASK, strength=0.75, steps=5),
    ]
    if fills:
        return masked
    return [
        a_request(4),
        a_request(5, image=IMAGE, strength=0.5),
        *masked,
        a_request(6, image=OTHER, strength=1.0, guidance=1.0),
        a_request(7, image=IMAGE, strength=0.3, steps=5),
    ]


@pytest.fixture(scope="module")
def pipes() -> dict[str, Any]:
    return {}


@pytest.fixture(params=CASES, ids="-".join)
def pipe(request: pytest.FixtureRequest, pipes: dict[str, Any]) -> Any:
    family, sampler = request.param
    if family not in pipes:
        pipes[family] = small_models.made(family)
        pipes[family].set_progress_bar_config(disable=True)
    name, settings = SAMPLERS[sampler]
    pipes[family].scheduler = getattr(diffusers, name)(**settings)
    return pipes[family]


@pytest.fixture
def engine(pipe: Any) -> Iterator[Engine]:
    engine = Engine(family_of(pipe), limit=4, device_lock=threading.Lock())
    yield engine
    engine.close()


def expected(pipe: Any, asked: RenderRequest) -> ImageArray:
    """The image of diffusers' own pipeline, and outside a mask the input image itself."""
    arguments: dict[str, Any] = {"guidance_scale": asked.guidance}
    if "ZImage" in type(pipe).__name__:
        arguments = {"guidance_scale": asked.guidance - 1}
    if "Qwen" in type(pipe).__name__:
        arguments = {"true_cfg_scale": asked.guidance, "negative_prompt": " "}
    if asked.image is not None:
        arguments |= {"image": asked.image.pixels[None], "strength": strength_of(pipe, asked)}
        if asked.mask is not None:
            arguments["mask_image"] = LEFT[None, ..., 0]
        if "Inpaint" not in type(pipe).__name__:
            make = AutoPipelineForInpainting if asked.mask else AutoPipelineForImage2Image
            pipe = make.from_pipe(pipe)
    if "Flux" in type(pipe).__name__:
        arguments["max_sequence_length"] = SCHNELL_TOKENS
    if "width" in signature(type(pipe).__call__).parameters:
        arguments |= {"width": WIDTH, "height": HEIGHT}
    shift = pipe.vae.config.shift_factor if isinstance(pipe, StableDiffusion3InpaintPipeline) else 0
    made: Any = pipe(
        prompt=asked.prompt,
        num_inference_steps=asked.steps,
        generator=torch.Generator("cpu").manual_seed(asked.seeds[0]),
        output_type="latent" if shift else "np",
        **arguments,
    ).images[0]
    if shift:
        # this pipeline forgets the shift (https://github.com/huggingface/diffusers/issues/13611)
        plain = made[None] / pipe.vae.config.scaling_factor + shift
        with torch.inference_mode():
            made = decoded(pipe.vae.decode(plain).sample)[0].numpy()
    if asked.image is None or asked.mask is None:
        return made
    within: ImageArray = np.where(LEFT == 1, made, asked.image.pixels)
    return within


def rendered(engine: Engine, requests: Sequence[RenderRequest]) -> list[ImageArray]:
    samples = [engine.begin(each, each.seeds[0]) for each in requests]
    futures = [engine.submit(sample, sample.steps) for sample in samples]
    return [
        pasted(each, [future.result(60)])[0] for each, future in zip(requests, futures, strict=True)
    ]


def test_every_start_is_diffusers_own_in_mixed_company(pipe: Any, engine: Engine) -> None:
    requests = mixed(family_of(pipe).fills)
    for asked, image in zip(requests, rendered(engine, requests), strict=True):
        assert np.abs(image - expected(pipe, asked)).max() <= CLOSE, asked.seeds
    (alone,) = rendered(engine, requests[1:2])
    assert np.abs(alone - expected(pipe, requests[1])).max() <= CLOSE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    small_models.save("sd", root / "sd")
    small_models.save("sd-inpaint", root / "sd-inpaint")
    return root


@pytest.mark.parametrize("name", ["sd", "sd-inpaint"])
def test_the_reference_renderer_and_the_engine_agree(folder: Path, name: str) -> None:
    models, profile = Models(folder, "cpu"), DiffusersProfile(model=name, dtype="float32", batch=4)
    reference, engine = DiffusersRenderer(models, profile), local_renderer(models, profile)
    requests = [a.model_copy(update={"seeds": (8, 9)}) for a in mixed(name == "sd-inpaint")]
    for asked in requests:
        for one, other in zip(reference.render(asked), engine.render(asked), strict=True):
            assert other is not None
            assert np.abs(one - other).max() <= CLOSE
            if asked.mask and asked.image:
                outside = LEFT == 0
                assert np.abs(other - asked.image.pixels)[outside].max() == 0
                assert np.abs(other - asked.image.pixels)[~outside].max() > 0.1


def test_a_smaller_strength_stays_closer_to_the_image() -> None:
    profile = Profile.load("shapes").renderer
    assert isinstance(profile, DiffusersProfile)
    engine = local_renderer(Models(SHIPPED_MODELS, "cpu"), profile)
    blue = np.ones((64, 64, 3), np.float32)
    blue[16:48, 16:48] = (0.1, 0.2, 0.9)
    image = LoadedImage("b" * 64, blue)

    def distance(strength: float) -> float:
        asked = a_request(1, width=64, height=64, steps=20, image=image, strength=strength)
        (made,) = engine.render(asked)
        assert made is not None
        return float(np.abs(made - blue).mean())

    small, middle, all_of_it = distance(0.1), distance(0.5), distance(1.0)
    assert 2 * small < middle < all_of_it


def test_a_model_that_fills_masks_renders_no_other_row(folder: Path) -> None:
    models, profile = Models(folder, "cpu"), DiffusersProfile(model="sd-inpaint", dtype="float32")
    with pytest.raises(JobError, match="needs image and mask"):
        local_renderer(models, profile).render(a_request(1))


def test_a_strength_is_rounded_the_same_everywhere(pipes: dict[str, Any]) -> None:
    """SD's pipelines round the steps that they take down, SD 3's and FLUX's those left out, under
    any scheduler.
    """
    down, out = (pipes.setdefault(name, small_models.made(name)) for name in ("sd", "flux"))
    flow = diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True)
    out = SimpleNamespace(transformer=out.transformer, scheduler=flow)
    for steps in range(1, 200):
        for taken in range(1, steps + 1):
            asked = a_request(0, steps=steps, image=IMAGE, strength=(taken + 0.3) / (steps + 0.3))
            assert int(steps * strength_of(down, asked)) == steps - asked.first_step
            assert int(steps - steps * strength_of(out, asked)) == asked.first_step


def test_a_sample_whose_start_fails_is_begun_anew(pipes: dict[str, Any]) -> None:
    """Memory runs out in the second image that a nine-channel model has encoded."""
    pipe = pipes.setdefault("sd-inpaint", small_models.made("sd-inpaint"))
    family = family_of(pipe)
    real, calls = family.encode_image, list[int]()

    def once_too_little(image: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(image)

    asked = a_request(2, image=IMAGE, mask=MASK, strength=0.6)
    engine = Engine(family, limit=4, device_lock=threading.Lock())
    (wanted,) = rendered(engine, [asked])
    engine.close()
    family.encode_image = once_too_little  # type: ignore[method-assign]
    engine = Engine(family, limit=4, device_lock=threading.Lock())
    made = rendered(engine, [asked, asked.model_copy(update={"seeds": (3,)})])
    engine.close()
    assert np.abs(made[0] - wanted).max() <= CLOSE
