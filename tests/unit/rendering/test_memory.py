"""A model in less memory than its weights take: the same images, or nearly the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from transformers import T5EncoderModel

from pipeline.errors import ModelError
from pipeline.job import RenderRequest
from pipeline.models import Models
from pipeline.models.diffusion import denoiser_of
from pipeline.profile import DiffusersProfile
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer
from tests.harness import small_models

REQUEST = RenderRequest(
    prompt="a cup", negative="", width=64, height=64, steps=3, guidance=3, seeds=(5, 6)
)


def renderers(root: Path, **settings: Any) -> tuple[Models, EngineRenderer, DiffusersRenderer]:
    """The engine and the reference with these settings of memory."""
    profile = DiffusersProfile.model_validate({"model": "model", "memory": settings})
    models = Models(root, "cpu")
    reference = DiffusersRenderer(models, profile)
    return models, EngineRenderer(models, profile, reference), reference


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_eight_bits_take_a_fraction_of_the_memory_and_change_little(
    tmp_path: Path, family: str
) -> None:
    small_models.save(family, tmp_path / "model")
    models, engine, _ = renderers(tmp_path)
    whole, wanted = engine.render(REQUEST), DiffusersProfile(model="model")
    small = DiffusersProfile.model_validate({"model": "model", "memory": {"weights": "float8"}})
    assert models.nbytes(small) < models.nbytes(wanted)
    sizes = [
        sum(each.nbytes for each in denoiser_of(models.diffusion(profile)).parameters())
        for profile in (small, wanted)
    ]
    assert sizes[0] < 0.5 * sizes[1]
    for renderer in renderers(tmp_path, weights="float8")[1:]:
        difference = np.abs(np.stack(renderer.render(REQUEST)) - np.stack(whole)).max()
        assert 0 < difference < 0.1


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_an_offloaded_model_renders_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    small_models.save(family, tmp_path / "model")
    wanted = renderers(tmp_path)[1].render(REQUEST)
    # on the processor the host's memory is the device's: layers go to the disk instead
    monkeypatch.setattr(Models, "offloaded", lambda *_: True)
    kind: Any = type(small_models.made(family))
    offload = kind.enable_group_offload

    def to_disk(pipe: Any, device: object, exclude_modules: list[str], **settings: Any) -> None:
        # T5's embedding has two names, and the second file of it would be empty
        parts = pipe.components.items()
        more = [name for name, part in parts if isinstance(part, T5EncoderModel)]
        settings |= {"exclude_modules": [*exclude_modules, *more]}
        offload(pipe, device, offload_to_disk_path=tmp_path / "layers", **settings)

    monkeypatch.setattr(kind, "enable_group_offload", to_disk)
    for renderer in renderers(tmp_path, offload="host")[1:]:
        difference = np.abs(np.stack(renderer.render(REQUEST)) - np.stack(wanted))
        assert difference.max() < 1e-5
    assert any((tmp_path / "layers").iterdir())


def test_the_vae_works_in_tiles(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "model")
    _, engine, reference = renderers(tmp_path, tiling=True)
    tiled, whole = engine.render(REQUEST), renderers(tmp_path)[1].render(REQUEST)
    assert np.abs(np.stack(tiled) - np.stack(whole)).max() > 0.01
    assert np.abs(np.stack(tiled) - np.stack(reference.render(REQUEST))).max() < 2 / 255


def test_what_would_have_no_effect_is_refused(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "model")
    profile = DiffusersProfile.model_validate({"model": "model", "memory": {"offload": "host"}})
    with pytest.raises(ModelError, match="`auto` offloads on a GPU alone"):
        Models(tmp_path, "cpu").diffusion(profile)
    auto = DiffusersProfile.model_validate({"model": "model", "memory": {"offload": "auto"}})
    assert Models(tmp_path, "cpu").nbytes(auto) == Models(tmp_path, "cpu").nbytes(
        DiffusersProfile(model="model")
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"compile": True, "memory": {"weights": "float8"}}, "compile needs"),
        ({"compile": True, "memory": {"offload": "host"}}, "compile needs"),
        ({"loras": "loras", "memory": {"weights": "float8"}}, "loras need"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        DiffusersProfile.model_validate({"model": "model"} | settings)
