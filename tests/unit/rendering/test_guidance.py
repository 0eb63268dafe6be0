"""Guidance as a table: which texts each step predicts with, and how much each counts."""

import threading

import numpy as np
import pytest
import torch

from pipeline.errors import JobError
from pipeline.job import ImageArray, RenderRequest
from pipeline.rendering.engine import Engine
from pipeline.rendering.families import family_of
from pipeline.rendering.guidance import ALL_STEPS, Branch, Guidance
from tests.harness import small_models

CLOSE = 2 / 255
COMPOSED = Guidance(composed=True)


def test_the_prompt_is_weighted_by_the_scale_and_the_negative_by_the_rest() -> None:
    assert ALL_STEPS.branches("a", "b", 3.0, 2, guided=True) == (
        Branch("a", (3.0, 3.0)),
        Branch("b", (-2.0, -2.0), unconditional=True),
    )


def test_a_model_that_guides_itself_predicts_with_the_prompt_alone() -> None:
    assert ALL_STEPS.branches("a", "b", 3.0, 2, guided=False) == (Branch("a", (1.0, 1.0)),)


def test_guidance_begins_and_ends_where_the_profile_says() -> None:
    prompt, negative = Guidance(0.25, 0.75).branches("a", "", 3.0, 4, guided=True)
    assert prompt.weights == (1.0, 3.0, 3.0, 1.0)
    assert negative.weights == (0.0, -2.0, -2.0, 0.0)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat AND a dog", [("a cat", 1.0), ("a dog", 1.0)]),
        ("a cat :1.2 AND a dog: -.5", [("a cat", 1.2), ("a dog", -0.5)]),
        ("a SAND castle", [("a SAND castle", 1.0)]),
        ("at 16:9", [("at 16", 9.0)]),
        ("a: b", [("a: b", 1.0)]),
        ("a :nan", [("a :nan", 1.0)]),
    ],
)
def test_the_word_and_divides_a_prompt(prompt: str, parts: list[tuple[str, float]]) -> None:
    assert COMPOSED.parts(prompt) == parts
    assert ALL_STEPS.parts(prompt) == [(prompt, 1.0)]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (" AND ".join("abcdefghi"), "joins 9 prompts"),
        ("a :11 AND b", "beyond 10"),
        ("a AND b :-1", "add up to 0"),
    ],
)
def test_prompts_that_cannot_be_composed_are_refused(prompt: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        COMPOSED.branches(prompt, "", 3.0, 2, guided=True)


@pytest.mark.parametrize(
    ("guidance", "prompt", "scale"),
    [
        (ALL_STEPS, "a red circle", 3.0),
        (Guidance(0.3, 0.7), "a red circle", 3.0),
        (COMPOSED, "a red circle AND a star :0.4", 3.0),
        (COMPOSED, "a red circle :0.7 AND a star AND a ring :-0.2", 3.0),
        (COMPOSED, "a red circle AND a star :0.4", 1.0),
        (Guidance(0.0, 0.5, composed=True), "a red circle AND a star", 3.0),
    ],
)
def test_an_image_is_the_sum_of_its_branches(guidance: Guidance, prompt: str, scale: float) -> None:
    pipe = small_models.made("sd")
    engine = Engine(family_of(pipe), limit=4, device_lock=threading.Lock(), guidance=guidance)
    asked = RenderRequest(
        prompt=prompt, negative="blue", width=32, height=48, steps=6, guidance=scale, seeds=(7,)
    )
    company = asked.model_copy(update={"prompt": "a ring", "guidance": 1.0})
    futures = [engine.submit(engine.begin(each, 7), 6) for each in (asked, company)]
    image, _ = (future.result(60) for future in futures)
    engine.close()
    assert np.abs(image - summed(pipe, guidance, asked)).max() <= CLOSE


@torch.inference_mode()
def summed(pipe: object, guidance: Guidance, asked: RenderRequest) -> ImageArray:
    """The image by diffusers' own parts, each branch in a call of its own."""
    unet, vae, scheduler = (getattr(pipe, name) for name in ("unet", "vae", "scheduler"))
    encode = getattr(pipe, "encode_prompt")  # noqa: B009 - no type of diffusers' pipelines has it
    texts = {each: encode(each, "cpu", 1, False)[0] for each, _ in guidance.parts(asked.prompt)}
    unconditional = encode(asked.negative, "cpu", 1, False)[0]
    parts = guidance.parts(asked.prompt)
    generator = torch.Generator().manual_seed(asked.seeds[0])
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    x = torch.randn(1, unet.config.in_channels, 48 // scale, 32 // scale, generator=generator)
    scheduler.set_timesteps(asked.steps)
    x = x * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps):
        given = scheduler.scale_model_input(x, timestep)
        base = unet(given, timestep, encoder_hidden_states=unconditional).sample
        apart = [
            (weight, unet(given, timestep, encoder_hidden_states=texts[text]).sample)
            for text, weight in parts
        ]
        inside = guidance.first <= step / asked.steps < guidance.until and asked.guidance > 1
        if inside:
            out = base + asked.guidance * sum(weight * (each - base) for weight, each in apart)
        else:
            out = sum(weight * each for weight, each in apart) / sum(weight for weight, _ in apart)
        x = scheduler.step(out, timestep, x).prev_sample
    decoded = vae.decode(x / vae.config.scaling_factor).sample[0]
    image: ImageArray = (decoded / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    return image
