"""Each profile for real models loads and renders tiny models of the same architecture classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import JobError
from pipeline.job import ImageArray, RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile, Profile
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer, local_renderer
from tests.harness import small_models

FAMILIES = {
    "sd15": "sd",
    "sdxl": "sdxl",
    "sdxl-turbo": "sdxl",
    "sd35": "sd3",
    "flux": "flux",
    "flux2-klein": "flux2-klein-distilled",
    "z-image-turbo": "z-image",
    "chroma": "chroma",
    "qwen-image": "qwen-image",
}


@pytest.fixture(scope="module", params=FAMILIES)
def profile_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def renderer(profile_name: str, tmp_path_factory: pytest.TempPathFactory) -> DiffusersRenderer:
    root = tmp_path_factory.mktemp("models")
    profile = Profile.load(profile_name).renderer
    small_models.save(FAMILIES[profile_name], root / profile.model, profile.variant)
    return DiffusersRenderer(Models(root, "cpu"), profile)


def a_request(profile_name: str, **changes: object) -> RenderRequest:
    """The profile's defaults at a tiny size in few steps."""
    defaults = Profile.load(profile_name).defaults
    settings = {
        "prompt": "a red circle",
        "negative": "",
        "width": 32,
        "height": 48,
        "steps": min(defaults.steps, 3),
        "guidance": defaults.guidance,
        "seeds": (7,),
    }
    return RenderRequest.model_validate(settings | changes)


def test_a_profile_renders_its_family_the_same_in_any_company(
    renderer: DiffusersRenderer, profile_name: str
) -> None:
    (alone,) = renderer.render(a_request(profile_name))
    _, _, accompanied = renderer.render(a_request(profile_name, seeds=(5, 6, 7)))
    assert alone.shape == (48, 32, 3)
    assert alone.dtype == np.float32
    assert 0 <= alone.min() < alone.max() <= 1
    assert np.abs(alone - accompanied).max() <= 2 / 255


class LastAlone:
    """Drops all rivals but the last one, after half of the steps."""

    points = (0.5,)

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        assert {preview.shape for preview in previews} == {(48, 32, 3)}
        return [len(previews) - 1]


def test_a_race_in_the_engine_ends_with_the_image_of_the_reference(
    profile_name: str, tmp_path: Path
) -> None:
    found = Profile.load(profile_name).renderer
    assert isinstance(found, DiffusersProfile)
    profile = found.model_copy(update={"dtype": "float32"})
    small_models.save(FAMILIES[profile_name], tmp_path / profile.model, profile.variant)
    renderer = local_renderer(Models(tmp_path, "cpu"), profile)
    if profile_name == "chroma":
        assert isinstance(renderer, DiffusersRenderer)
        return
    assert isinstance(renderer, EngineRenderer)
    asked = a_request(profile_name, seeds=(5, 6, 7))
    first, second, third = renderer.render(asked, LastAlone())
    assert first is None
    assert second is None
    assert third is not None
    assert np.abs(third - renderer._reference.render(asked)[2]).max() <= 2 / 255


def test_a_negative_prompt_tells_where_the_profile_guides(
    renderer: DiffusersRenderer, profile_name: str
) -> None:
    (plain,) = renderer.render(a_request(profile_name))
    (without,) = renderer.render(a_request(profile_name, negative="blurred"))
    guides = Profile.load(profile_name).defaults.guidance > 1
    assert (np.abs(plain - without).max() > 0) == guides


def test_every_denoising_step_is_a_sign_of_life(
    renderer: DiffusersRenderer, profile_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = list[None]()
    monkeypatch.setattr("pipeline.rendering.diffusers.beat", lambda: beats.append(None))
    asked = a_request(profile_name)
    renderer.render(asked)
    assert len(beats) == asked.steps


def test_a_size_that_the_family_cannot_render_is_the_jobs_error(
    renderer: DiffusersRenderer, profile_name: str
) -> None:
    with pytest.raises(JobError):
        renderer.render(a_request(profile_name, width=33))


def test_flux_with_built_in_guidance_guides_twice_for_a_negative_prompt_only() -> None:
    pipe = small_models.flux(guidance_embeds=True)
    plain = call_arguments(pipe, [a_request("flux", guidance=3.5)])
    assert (plain["guidance_scale"], plain["true_cfg_scale"]) == (3.5, 1.0)
    negative = call_arguments(pipe, [a_request("flux", guidance=3.5, negative="blurred")])
    assert (negative["guidance_scale"], negative["true_cfg_scale"]) == (1.0, 3.5)
