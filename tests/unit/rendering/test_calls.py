"""A setting has an effect in every family's pipeline, or the job is refused."""

import inspect
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import diffusers
import numpy as np
import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

from pipeline import watchdog
from pipeline.errors import JobError
from pipeline.job import LoadedImage, RenderRequest
from pipeline.models import Models
from pipeline.models.pipelines import call_of, sources, unsupported
from pipeline.profile import DiffusersProfile
from pipeline.rendering.calls import call_arguments, hears_negative, taken
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer, local_renderer
from tests.harness import small_models

NAMES = [name for name in sources() if not unsupported(name)]
NO_GUIDANCE = {"DreamLiteMobilePipeline", "Flux2KleinKVPipeline", "HunyuanImagePipeline"}
BUILT_IN = {"HunyuanImagePipeline"}
OTHER_USES = (
    "needs a control image|guides by perturbed attention|makes videos|is no longer maintained"
)
PICTURE = LoadedImage("a" * 64, np.zeros((48, 32, 3), np.float32))


def a_request(**changes: Any) -> RenderRequest:
    settings = {
        "prompt": "a red circle",
        "negative": "",
        "width": 32,
        "height": 48,
        "steps": 2,
        "guidance": 4.0,
        "seeds": (7,),
    }
    return RenderRequest.model_validate(settings | changes)


def bare(cls: type, *, built_in: bool = False, distilled: bool = False) -> Any:
    """A pipeline without its models."""
    pipe = cls.__new__(cls)
    pipe.__dict__ |= {
        "_internal_dict": FrozenDict(is_distilled=distilled),
        "scheduler": None,
        "transformer": SimpleNamespace(config=SimpleNamespace(guidance_embeds=built_in)),
    }
    return pipe


def test_each_class_that_makes_images_of_texts_is_rendered_with_or_refused() -> None:
    """By diffusers' own list."""
    for cls in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values():
        name = cls.__name__
        assert name in NAMES or re.match(OTHER_USES, unsupported(name)), name


def test_no_class_is_refused_without_a_reason_and_a_remedy() -> None:
    refused = {name: unsupported(name) for name in sources() if name not in NAMES}
    assert len(refused) > len(NAMES) > 50
    for name, said in refused.items():
        assert re.fullmatch(r".{10,}: (take|let it name \w+Pipeline) .{10,}", said), name


def test_the_page_of_models_names_each_class_that_is_rendered_with() -> None:
    page = Path("docs/models.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+Pipeline)`", page)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_has_the_arguments_that_its_source_tells(name: str) -> None:
    given = inspect.signature(getattr(diffusers, name).__call__).parameters.values()
    named = {each.name: each.default for each in given if each.kind is not each.VAR_KEYWORD}
    takes, needs = call_of(name, sources()[name])
    assert takes == named.keys() - {"self"}
    assert needs == {each for each in takes if named[each] is inspect.Parameter.empty}


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_an_argument_of_the_pipeline_or_refused(name: str) -> None:
    cls = getattr(diffusers, name)
    fills = {"image": PICTURE, "mask": PICTURE} if "mask_image" in taken(bare(cls)) else {}
    for guidance, negative, built_in in product((0.0, 1.0, 4.0), ("", "blurred"), (False, True)):
        pipe = bare(cls, built_in=built_in)
        asked = a_request(guidance=guidance, negative=negative, **fills)
        refused = ""
        if guidance > 1 and name in (NO_GUIDANCE - BUILT_IN if built_in else NO_GUIDANCE):
            refused = "takes no guidance"
        elif negative and hears_negative(pipe, asked) and "negative_prompt" not in taken(pipe):
            refused = "takes no negative_prompt; leave `negative` empty"
        if refused:
            with pytest.raises(JobError, match=refused):
                call_arguments(pipe, [asked])
            continue
        arguments = call_arguments(pipe, [asked])
        bound = inspect.signature(cls.__call__).bind(pipe, generator=[], **arguments)
        assert "kwargs" not in bound.arguments
        if guidance > 1:
            assert 4.0 in arguments.values() or arguments["guidance_scale"] == 3.0
            if negative and hears_negative(pipe, asked):
                assert arguments["negative_prompt"] == ["blurred"]
        if fills:
            with pytest.raises(JobError, match="a row needs image and mask"):
                call_arguments(pipe, [a_request()])


def test_a_distilled_klein_takes_no_guidance_and_prompts_of_full_length() -> None:
    klein = diffusers.Flux2KleinPipeline
    with pytest.raises(JobError, match="takes no guidance"):
        call_arguments(bare(klein, distilled=True), [a_request()])
    assert "max_sequence_length" not in call_arguments(bare(klein), [a_request()])


@pytest.mark.parametrize(
    ("name", "asked", "argument", "value"),
    [
        ("SanaPipeline", {}, "use_resolution_binning", False),
        ("Ideogram4Pipeline", {}, "guidance_schedule", None),
        ("Ideogram4Pipeline", {"guidance": 0.0}, "guidance_scale", 1),
        ("OmniGenPipeline", {"guidance": 0.0}, "guidance_scale", 1),
        ("DreamLitePipeline", {"guidance": 0.0}, "guidance_scale", 1),
        ("Krea2Pipeline", {}, "guidance_scale", 3.0),
        ("SanaSprintPipeline", {"steps": 4}, "intermediate_timesteps", None),
        ("LDMTextToImagePipeline", {"guidance": 0.0}, "guidance_scale", 1),
        ("FluxKontextPipeline", {}, "max_area", 32 * 48),
        ("StableCascadeCombinedPipeline", {"steps": 4}, "prior_num_inference_steps", 4),
    ],
)
def test_a_family_gets_the_arguments_of_its_own(
    name: str, asked: dict[str, Any], argument: str, value: object
) -> None:
    assert call_arguments(bare(getattr(diffusers, name)), [a_request(**asked)])[argument] == value


@pytest.mark.parametrize("make", [DiffusersRenderer, local_renderer])
@pytest.mark.parametrize("family", ["qwen-image", "z-image"])
def test_guidance_and_negative_prompt_change_the_image(
    family: str,
    make: Callable[[Models, DiffusersProfile], EngineRenderer | DiffusersRenderer],
    tmp_path: Path,
) -> None:
    """From 1 on; below there is none."""
    small_models.save(family, tmp_path / family)
    renderer = make(Models(tmp_path, "cpu"), DiffusersProfile(model=family))
    assert make is DiffusersRenderer or isinstance(renderer, EngineRenderer)

    def differs(one: RenderRequest, other: RenderRequest) -> bool:
        ((a,), (b,)) = renderer.render(one), renderer.render(other)
        return bool(np.abs(a - b).max() > 1e-5)

    assert not differs(a_request(guidance=1.0), a_request(guidance=0.0, negative="blurred"))
    assert differs(a_request(guidance=4.0), a_request(guidance=8.0))
    assert differs(a_request(guidance=4.0), a_request(guidance=4.0, negative="blurred"))


class Silent(torch.nn.Module):
    """A pipeline that reports no steps and returns one `image` for all."""

    device, dtype = torch.device("cpu"), torch.float32
    components: ClassVar[dict[str, Any]] = {}

    def __call__(
        self,
        *,
        prompt: list[str],
        width: int,
        height: int,
        num_inference_steps: int,
        guidance_scale: float,
        generator: list[torch.Generator],
        output_type: str,
        **kwargs: object,
    ) -> SimpleNamespace:
        assert not kwargs
        assert watchdog._process._suspended == 1
        return SimpleNamespace(image=np.zeros((len(prompt), height, width, 3)))


def test_a_pipeline_that_reports_no_steps_is_no_hang(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = Models(tmp_path, "cpu")
    monkeypatch.setattr(models, "diffusion", lambda profile: Silent())
    monkeypatch.setattr(models, "remarks", lambda profile: [])
    renderer = DiffusersRenderer(models, DiffusersProfile(model="m"))
    assert len(renderer.render(a_request(seeds=(1, 2)))) == 2
    assert watchdog._process._suspended == 0
