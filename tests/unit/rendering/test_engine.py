"""The engine's images are those of diffusers' own pipelines, whatever shares the batch."""

import threading
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from pipeline.errors import JobError
from pipeline.job import ImageArray, LoadedImage, RenderRequest
from pipeline.rendering.calls import call_arguments, seeded
from pipeline.rendering.engine import IDLE_GROUPS_KEPT, Engine
from pipeline.rendering.families import family_of
from tests.harness import small_models

CLOSE = 2 / 255
STEPS = 7
BLACK = np.zeros((48, 32, 3), np.float32)
UNET_SCHEDULERS = (
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing", "use_karras_sigmas": True}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    ("DPMSolverMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
)
CASES = [
    ("sd", scheduler, settings | {"prediction_type": prediction})
    for scheduler, settings in UNET_SCHEDULERS
    for prediction in ("epsilon", "v_prediction")
]
# a scheduler does not know which U-Net it steps
CASES += [("sdxl", *UNET_SCHEDULERS[0]), ("sdxl", *UNET_SCHEDULERS[-1])]
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SDE = {"algorithm_type": "sde-dpmsolver++"}
TO_SIGMA_MIN = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
MORE_SCHEDULERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True}),
    ("HeunDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing", "eta": 0.5}),
    ("LCMScheduler", {}),
    ("LCMScheduler", {"original_inference_steps": 8}),
    ("TCDScheduler", {}),
    ("TCDScheduler", {"eta": 0.3}),
    ("DPMSolverMultistepScheduler", SDE),
    ("DPMSolverMultistepScheduler", SDE | {"use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", SDE | TO_SIGMA_MIN | {"solver_type": "heun"}),
    ("DPMSolverMultistepScheduler", {"solver_order": 1, "use_exponential_sigmas": True}),
    ("DPMSolverMultistepScheduler", {"euler_at_final": True, "timestep_spacing": "trailing"}),
    ("DPMSolverSinglestepScheduler", {}),
    ("DPMSolverSinglestepScheduler", SDE | {"use_karras_sigmas": True}),
    # without `lower_order_final` an odd number of steps changes diffusers' scheduler for good
    (
        "DPMSolverSinglestepScheduler",
        TO_SIGMA_MIN | {"solver_type": "heun", "lower_order_final": True},
    ),
    ("UniPCMultistepScheduler", {}),
    ("UniPCMultistepScheduler", {"use_karras_sigmas": True, "disable_corrector": [0, 2]}),
    ("UniPCMultistepScheduler", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
)
FEW_STEPS = [
    ("sd", name, LATENT | settings | {"prediction_type": "v_prediction"})
    for name, settings in MORE_SCHEDULERS
]
FEW_STEPS += [
    ("sd", "EulerDiscreteScheduler", LATENT | {"prediction_type": "sample"}),
    ("sdxl", "LCMScheduler", LATENT),
    ("sd3", "UniPCMultistepScheduler", {"use_flow_sigmas": True}),
    ("sd3", "DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 3.0}),
    # Qwen-Image gives a scheduler with flow sigmas its own ones all the same
    (
        "qwen-image",
        "UniPCMultistepScheduler",
        {"use_flow_sigmas": True, "use_dynamic_shifting": True},
    ),
    ("flux", "FlowMatchLCMScheduler", {}),
    ("sd3", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
]
CASES += [
    (family, "FlowMatchEulerDiscreteScheduler", settings)
    for family in ("sd3", "flux", "flux-dev", "z-image", "qwen-image", "flux2", "flux2-klein")
    for settings in ({}, {"shift": 3.0}, {"use_dynamic_shifting": True})
]

NEWER = [
    (family, "FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True})
    for family in ("z-image", "qwen-image", "flux2", "flux2-klein")
]


def a_request(**changes: object) -> RenderRequest:
    settings = {
        "prompt": "a red circle",
        "negative": "",
        "width": 32,
        "height": 48,
        "steps": STEPS,
        "guidance": 3.0,
        "seeds": (7,),
    }
    return RenderRequest.model_validate(settings | changes)


@pytest.fixture(scope="module")
def pipes() -> dict[str, Any]:
    return {}


@pytest.fixture
def pipe(request: pytest.FixtureRequest, pipes: dict[str, Any]) -> Any:
    family, scheduler, settings = request.param
    if settings.get("use_flow_sigmas"):
        settings = settings | {"prediction_type": "flow_prediction"}
    if family not in pipes:
        pipes[family] = small_models.made(family)
        pipes[family].set_progress_bar_config(disable=True)
    taken = {name: value for name, value in settings.items() if name != "eta"}
    pipes[family].scheduler = getattr(diffusers, scheduler)(**taken)
    if "eta" in settings:
        pipes[family].scheduler.register_to_config(eta=settings["eta"])
    return pipes[family]


@pytest.fixture
def engine(pipe: Any) -> Iterator[Engine]:
    engine = Engine(family_of(pipe), limit=4, device_lock=threading.Lock())
    yield engine
    engine.close()


def reference(pipe: Any, asked: RenderRequest) -> ImageArray:
    generator = torch.Generator("cpu").manual_seed(asked.seeds[0])
    with seeded(pipe.scheduler, [generator]):
        image: ImageArray = pipe(generator=generator, **call_arguments(pipe, [asked])).images[0]
    return image


@pytest.mark.parametrize("pipe", FEW_STEPS, indirect=True, ids=str)
def test_few_steps_are_diffusers_own_beside_others(pipe: Any, engine: Engine) -> None:
    asked = [a_request(seeds=(steps,), steps=steps) for steps in (1, 2, 6)]
    samples = [engine.begin(each, each.seeds[0]) for each in asked]
    futures = [engine.submit(sample, sample.steps) for sample in samples]
    for each, future in zip(asked, futures, strict=True):
        assert np.abs(future.result(60) - reference(pipe, each)).max() <= CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("pipe", CASES, indirect=True, ids=str)
def test_company_that_comes_and_goes_changes_nothing(pipe: Any, engine: Engine) -> None:
    """Six candidates in four places, with other steps, prompts and guidance, two of them with a
    stop on their way.
    """
    asked = [
        a_request(seeds=(seed,), steps=steps, prompt=prompt, guidance=guidance)
        for seed, steps, prompt, guidance in (
            (7, 5, "a red circle", 3.0),
            (8, 3, "a blue star", 1.0),
            (9, 4, "a green ring", 2.0),
            (10, 2, "a red circle", 5.0),
            (11, 4, "a star", 1.0),
            (12, 1, "a ring", 3.0),
        )
    ]
    samples = [engine.begin(each, each.seeds[0]) for each in asked]
    stops = [engine.submit(samples[i], 2) for i in (0, 2)]
    rest = [engine.submit(samples[i], samples[i].steps) for i in (1, 3, 4, 5)]
    for stop in stops:
        stop.result(60)
    ends = [engine.submit(samples[i], samples[i].steps) for i in (0, 2)]
    images = [future.result(60) for future in (ends[0], rest[0], ends[1], *rest[1:])]
    for each, image in zip(asked, images, strict=True):
        assert np.abs(image - reference(pipe, each)).max() <= CLOSE


@pytest.mark.parametrize("pipe", NEWER, indirect=True, ids=str)
def test_texts_of_any_length_and_negative_prompts_share_a_batch(pipe: Any, engine: Engine) -> None:
    """In two sizes, each with a shift of its own."""
    words = "a red circle beside a blue star under a green ring"
    asked = [
        a_request(seeds=(seed,), prompt=words[:end], **changes)
        for seed, (end, changes) in enumerate(
            (
                (50, {"negative": "a blurred image of nothing at all in the dark"}),
                (5, {"guidance": 5.0, "negative": "rain"}),
                (30, {"guidance": 1.0}),
                (12, {"width": 64, "steps": 4, "negative": "rain"}),
                (44, {"width": 64, "steps": 5, "guidance": 2.0}),
            )
        )
    ]
    if isinstance(pipe, diffusers.Flux2Pipeline | diffusers.Flux2KleinPipeline):
        asked = [each.model_copy(update={"negative": ""}) for each in asked]
    samples = [engine.begin(each, each.seeds[0]) for each in asked]
    futures = [engine.submit(sample, sample.steps) for sample in samples]
    for each, future in zip(asked, futures, strict=True):
        assert np.abs(future.result(60) - reference(pipe, each)).max() <= CLOSE


@pytest.mark.parametrize("pipe", [("sd", "HeunDiscreteScheduler", {})], indirect=True)
def test_both_calls_of_a_step_of_second_order_count_as_one(engine: Engine) -> None:
    sample = engine.begin(a_request(steps=4), 7)
    met = list[tuple[int, int]]()
    for until in (1, 3, 4):
        engine.submit(sample, until).result(60)
        met.append((sample.step, engine.stats.steps))
    assert met == [(1, 2), (3, 6), (4, 7)]
    late = engine.begin(a_request(steps=4, image=LoadedImage("1" * 64, BLACK), strength=0.5), 7)
    engine.submit(late, 4).result(60)
    assert engine.stats.steps == 7 + 3


@pytest.mark.parametrize("pipe", [("sd", "LCMScheduler", {})], indirect=True)
def test_steps_beyond_those_of_the_training_fail_the_row(engine: Engine) -> None:
    with pytest.raises(
        JobError,
        match=r"LCMScheduler takes no 60 steps: .*: 60$",
    ):
        engine.begin(a_request(steps=60), 7)


@pytest.mark.parametrize("pipe", [CASES[0]], indirect=True)
def test_lanes_of_shapes_that_went_by_are_forgotten(engine: Engine) -> None:
    for width in range(16, 16 + 8 * (IDLE_GROUPS_KEPT + 5), 8):
        asked = a_request(width=width, steps=1)
        engine.submit(engine.begin(asked, 1), until=1).result(timeout=60)
    engine.submit(engine.begin(asked, 2), until=1).result(timeout=60)
    assert len(engine._groups) <= IDLE_GROUPS_KEPT + 1
