"""Images beside the prompt: in mixed batches of the engine as in diffusers' own pipeline."""

from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import ImageProjection
from safetensors.torch import save_file

from pipeline.errors import JobError, ModelError
from pipeline.job import RenderRequest
from pipeline.models import Models
from pipeline.ports import Renderer
from pipeline.profile import DiffusersProfile
from pipeline.rendering.diffusers import DiffusersRenderer, shared_settings
from pipeline.rendering.local import EngineRenderer
from tests.harness import small_models

WIDTH, TOKENS = 12, 4
Renderers = tuple[Renderer, Renderer]


def random_adapter(unet: Any) -> dict[str, torch.Tensor]:
    """An IP-Adapter for a UNet, with random weights that are strong enough to be seen."""
    torch.manual_seed(1)
    cross = unet.config.cross_attention_dim
    projection = ImageProjection(WIDTH, cross, TOKENS).state_dict()
    state = {f"image_proj.{_plain(name)}": value for name, value in projection.items()}
    crossings = [name for name in unet.attn_processors if "attn2" in name]
    for number, name in enumerate(crossings):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for part, layer in (("k", attention.to_k), ("v", attention.to_v)):
            key = f"ip_adapter.{2 * number + 1}.to_{part}_ip.weight"
            state[key] = torch.randn_like(layer.weight)
    return state


def _plain(name: str) -> str:
    return name.replace("image_embeds", "proj")


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def renderers(request: pytest.FixtureRequest, tmp_path_factory) -> Renderers:
    """The engine and the reference over one pipeline with an adapter."""
    root = tmp_path_factory.mktemp(request.param)
    small_models.save(request.param, root / "model")
    (root / "adapter").mkdir()
    adapter = random_adapter(small_models.made(request.param).unet)
    save_file(adapter, root / "adapter" / "ip.safetensors")
    profile = DiffusersProfile(
        model="model", image_adapter="adapter", scheduler="EulerDiscreteScheduler"
    )
    models = Models(root, "cpu")
    reference = DiffusersRenderer(models, profile)
    return EngineRenderer(models, profile, reference), reference


def a_request(references: int, strength: float, width: int = WIDTH) -> RenderRequest:
    rng = np.random.default_rng(references)
    embeddings = tuple(tuple(rng.normal(size=width).tolist()) for _ in range(references))
    return RenderRequest(
        prompt="a cup",
        negative="",
        width=64,
        height=64,
        steps=3,
        guidance=3,
        seeds=(5, 6),
        references=embeddings,
        reference_scale=strength,
    )


ORDERS = [a_request(0, 0), a_request(1, 1), a_request(1, 0.5), a_request(3, 1)]


def test_reference_images_have_the_same_effect_whatever_shares_the_batch(
    renderers: Renderers,
) -> None:
    engine, reference = renderers
    expected = [reference.render(each) for each in ORDERS]
    with ThreadPoolExecutor(len(ORDERS)) as pool:
        found = list(pool.map(engine.render, ORDERS))
    for left, right in zip(found, expected, strict=True):
        assert np.abs(np.stack(left) - np.stack(right)).max() <= 2 / 255
    plain, *shown = (images[0] for images in expected)
    assert all(np.abs(each - plain).max() > 8 / 255 for each in shown)


@pytest.mark.parametrize("kind_of", [attrgetter("batch_key"), shared_settings])
def test_what_differs_in_strength_or_number_shares_no_call(kind_of) -> None:
    assert len({kind_of(each) for each in ORDERS}) == len(ORDERS)


def test_another_encoders_embeddings(renderers: Renderers) -> None:
    for renderer in renderers:
        with pytest.raises(JobError, match="12 numbers, not of 7"):
            renderer.render(a_request(1, 1, width=7))


@pytest.mark.parametrize("family", ["sd", "sd3", "flux"])
def test_a_model_without_an_adapter_takes_no_images(tmp_path: Path, family: str) -> None:
    small_models.save(family, tmp_path / "model")
    models, profile = Models(tmp_path, "cpu"), DiffusersProfile(model="model")
    engine = EngineRenderer(models, profile, DiffusersRenderer(models, profile))
    with pytest.raises(JobError, match="no image adapter"):
        engine.render(a_request(1, 1))


def test_adapters_that_cannot_be_used(tmp_path: Path) -> None:
    small_models.save("flux", tmp_path / "flux")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    profile = DiffusersProfile(model="flux", image_adapter="adapter")
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        Models(tmp_path, "cpu").diffusion(profile)
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, adapter / f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"a\.safetensors, b\.safetensors"):
        Models(tmp_path, "cpu").diffusion(profile)
    (adapter / "b.safetensors").unlink()
    with pytest.raises(ModelError, match="Stable Diffusion 1, 2 and XL"):
        Models(tmp_path, "cpu").diffusion(profile)
