"""A record says how many tokens the text encoders read, whoever renders."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.job import RenderRequest
from pipeline.ports import Renderer
from pipeline.profile import Profile
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.families import family_of
from pipeline.rendering.local import EngineRenderer
from pipeline.rendering.prompts import as_it_stands
from pipeline.rendering.text_encoders import TextEncoders
from pipeline.telemetry import metered
from tests.harness import small_models


def a_request(prompt: str, negative: str = "", guidance: float = 3.0) -> RenderRequest:
    return RenderRequest(
        prompt=prompt,
        negative=negative,
        width=64,
        height=64,
        steps=1,
        guidance=guidance,
        seeds=(1,),
    )


@pytest.fixture(scope="module", params=["engine", "diffusers"])
def renderer(request: pytest.FixtureRequest, models_root: Path) -> Renderer:
    """Both ways to render with the shipped model, whose encoder reads 46 tokens."""
    models, profile = small_models.shipped(models_root), Profile.load("shapes").renderer
    reference = DiffusersRenderer(models, profile)
    return EngineRenderer(models, profile, reference) if request.param == "engine" else reference


@pytest.mark.parametrize(
    ("asked", "read", "told"),
    [
        (a_request("red " * 46), [("prompt", 46, 46, 1)], []),
        (a_request("red " * 47), [("prompt", 47, 47, 2)], []),
        (
            a_request("red", "blue " * 60),
            [("prompt", 1, 1, 1), ("negative prompt", 60, 60, 2)],
            [],
        ),
        (
            a_request("red " * 800),
            [("prompt", 800, 736, 16)],
            ["the text encoder read 736 of 800 tokens of the prompt"],
        ),
        (
            a_request("red", "blue " * 60, guidance=1.0),
            [("prompt", 1, 1, 1)],
            ["the negative prompt has no effect with this model at guidance 1"],
        ),
    ],
)
def test_a_record_says_what_was_read(
    renderer: Renderer, asked: RenderRequest, read: list[tuple[Any, ...]], told: list[str]
) -> None:
    with metered() as meter:
        renderer.render(asked)
        renderer.render(asked)
    assert meter.notices == told
    assert [(each.text, each.tokens, each.read, each.chunks) for each in meter.tokens] == read


def test_a_negative_prompt_in_no_guided_step_is_told_of(models_root: Path) -> None:
    models, shapes = small_models.shipped(models_root), Profile.load("shapes").renderer
    profile = shapes.model_copy(update={"guided_until": 0.0})
    reference = DiffusersRenderer(models, profile)
    said = "the negative prompt has no effect: the profile guides no step"
    ignored = "renderer.guided_from and guided_until have no effect with this model"
    engine = EngineRenderer(models, profile, reference)
    for renderer, told in ((engine, [said]), (reference, [ignored])):
        with metered() as meter:
            renderer.render(a_request("red", "blue"))
        assert meter.notices == told


def test_every_text_encoder_that_leaves_tokens_out_is_named(subtests: pytest.Subtests) -> None:
    for family, rooms in {
        "sd": {},
        "sdxl": {},
        "sd3": {"text encoder 3": 255},
        "flux": {"text encoder": 75, "text encoder 2": 255},
        "flux-dev": {"text encoder": 75, "text encoder 2": 511},
        # `user:` is ahead of the prompt, in the same window
        "z-image": {"text encoder": 507},
        "flux2-klein": {"text encoder": 507},
        "qwen-image": {"text encoder": 512},
    }.items():
        with subtests.test(family), metered() as meter:
            TextEncoders(small_models.made(family)).report(a_request("a" * 600))
            cut = [said for said in meter.notices if " read " in said]
            told = [said.split(" of ")[0].removeprefix("the ") for said in cut]
            assert told == [f"{encoder} read {room}" for encoder, room in rooms.items()]


@pytest.mark.parametrize(("family", "room"), [("z-image", 507), ("flux2-klein", 507)])
def test_a_language_model_reads_as_many_tokens_as_are_told(family: str, room: int) -> None:
    pipe = small_models.made(family)
    for kept, differs in ((room - 1, True), (room, False)):
        texts = as_it_stands(["a" * kept + "b", "a" * kept + "c"])
        with torch.no_grad():
            one, other = (each["text"] for each in family_of(pipe).encode(texts))
        assert torch.equal(one, other) != differs


@pytest.mark.parametrize(("family", "effect"), [("flux", False), ("flux-dev", True), ("sd3", True)])
def test_guidance_and_negative_prompts_without_effect_are_told(family: str, effect: bool) -> None:
    with metered() as meter:
        TextEncoders(small_models.made(family)).report(a_request("a", "b"))
    said = [
        "guidance 3 has no effect with this model",
        "the negative prompt has no effect with this model at guidance 3",
    ]
    assert meter.notices == ([] if effect else said)
