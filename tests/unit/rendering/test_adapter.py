"""Images beside the prompt: in mixed batches of the engine as in diffusers' own pipeline."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.embeddings import ImageProjection
from safetensors.torch import save_file

from pipeline.errors import JobError, ModelError
from pipeline.job import ImageArray, RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.diffusers import DiffusersRenderer, shared_settings
from pipeline.rendering.local import EngineRenderer
from tests.harness import small_models

WIDTH, TOKENS = 12, 4


@dataclass(frozen=True)
class Renderers:
    """The engine and the reference over one pipeline with an adapter."""

    root: Path
    engine: EngineRenderer
    reference: DiffusersRenderer

    def by_diffusers(self, request: RenderRequest) -> list[ImageArray]:
        """The images of a pipeline of its own, with the adapters' scales set for all of a call."""
        pipe: Any = diffusers.DiffusionPipeline.from_pretrained(self.root / "model")
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        arguments = call_arguments(pipe, [request])
        if request.references:
            named, retrieved = (
                request.references[: request.named],
                request.references[request.named :],
            )
            given = {  # the images and scales of each adapter
                "adapter": (request.references, 1.0),
                "layout": (named, {"down": {"block_1": [0.5]}}),
                "look": (retrieved, 0.7),
            }
            folders = [name for name in given if self.root.joinpath(name).is_dir()]
            used = [given[name] for name in folders]
            pipe.load_ip_adapter(
                [str(self.root / name) for name in folders], subfolder=[""] * len(folders),
                weight_name=["ip.safetensors"] * len(folders), image_encoder_folder=None,
            )  # fmt: skip
            pipe.set_ip_adapter_scale(
                [scaled(scale, request.reference_scale if images else 0) for images, scale in used]
            )
            embeds = [torch.tensor(images or [[0.0] * WIDTH])[None] for images, _ in used]
            arguments["ip_adapter_image_embeds"] = [
                torch.cat([torch.zeros_like(each), each]) for each in embeds
            ]
        seeds = (torch.Generator().manual_seed(seed) for seed in request.seeds)
        return [pipe(generator=seed, **arguments).images[0] for seed in seeds]


def scaled(scale: Any, by: float) -> Any:
    if isinstance(scale, dict):
        return {key: scaled(each, by) for key, each in scale.items()}
    return [each * by for each in scale] if isinstance(scale, list) else scale * by


def random_adapter(unet: Any, seed: int = 1, width: int = WIDTH) -> dict[str, torch.Tensor]:
    """An IP-Adapter for a UNet, with random weights that are strong enough to be seen."""
    torch.manual_seed(seed)
    cross = unet.config.cross_attention_dim
    projection = ImageProjection(width, cross, TOKENS).state_dict()
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


def made_of(family: str, root: Path, adapters: str | dict[str, Any]) -> Renderers:
    small_models.save(family, root / "model")
    for seed, name in enumerate([adapters] if isinstance(adapters, str) else adapters, 1):
        (root / name).mkdir()
        adapter = random_adapter(small_models.made(family).unet, seed)
        save_file(adapter, root / name / "ip.safetensors")
    profile = DiffusersProfile.model_validate(
        {"model": "model", "image_adapter": adapters, "scheduler": "EulerDiscreteScheduler"}
    )
    models = Models(root, "cpu")
    reference = DiffusersRenderer(models, profile)
    return Renderers(root, EngineRenderer(models, profile, reference), reference)


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def renderers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Renderers:
    """Over SD and over SDXL."""
    return made_of(request.param, tmp_path_factory.mktemp(request.param), "adapter")


def a_request(
    references: int, scale: float, draw: int = 0, width: int = WIDTH, named: int = 0
) -> RenderRequest:
    rng = np.random.default_rng([references, draw])
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
        named=named,
        reference_scale=scale,
    )


REQUESTS = [
    a_request(*each) for each in ((0, 0), (1, 1), (1, 1, 1), (1, 0.5), (1, 0), (3, 1), (3, 0.2))
]


def test_reference_images_have_the_same_effect_whatever_shares_the_batch(
    renderers: Renderers,
) -> None:
    expected = [renderers.by_diffusers(each) for each in REQUESTS]
    for renderer in (renderers.engine, renderers.reference):
        with ThreadPoolExecutor(len(REQUESTS)) as pool:
            found = list(pool.map(renderer.render, REQUESTS))
        for left, right in zip(found, expected, strict=True):
            assert np.abs(np.stack(left) - np.stack(right)).max() <= 2 / 255
    plain, full, other, half, none, *_ = (images[0] for images in expected)
    assert np.abs(none - plain).max() <= 2 / 255
    assert all(np.abs(each - plain).max() > 8 / 255 for each in (full, half))
    assert all(np.abs(each - full).max() > 8 / 255 for each in (other, half))


SEVERAL = {
    "layout": {"model": "layout", "images": "named", "scale": {"down": {"block_1": [0.5]}}},
    "look": {"model": "look", "images": "retrieved", "scale": 0.7},
}


def test_several_adapters_have_their_own_images_and_scales(tmp_path: Path) -> None:
    renderers = made_of("sdxl", tmp_path, SEVERAL)
    numbers = [(1, 0), (1, 1), (2, 1), (3, 1), (0, 0)]
    requests = [a_request(count, 0.9, named=named) for count, named in numbers]
    requests.append(a_request(2, 0.4, named=1))
    expected = [renderers.by_diffusers(each)[0] for each in requests]
    for renderer in (renderers.engine, renderers.reference):
        with ThreadPoolExecutor(len(requests)) as pool:
            found = [images[0] for images in pool.map(renderer.render, requests)]
        assert np.abs(np.stack(found) - np.stack(expected)).max() <= 2 / 255
    look, layout, both, *_, plain, weaker = expected
    assert all(np.abs(each - plain).max() > 8 / 255 for each in (look, layout, both))
    assert all(np.abs(each - both).max() > 8 / 255 for each in (look, layout, weaker))


@pytest.mark.parametrize(
    ("scale", "reason"),
    [
        ({"up": {"block_7": 1}}, "block_7 in up .* block_0"),
        ({"down": {"block_1": [1, 1, 1]}}, "Expected 1 scales for down.block_1, got 3"),
    ],
)
def test_scales_of_blocks_that_the_unet_does_not_have(
    tmp_path: Path, scale: dict[str, Any], reason: str
) -> None:
    adapter = {"model": "layout", "scale": scale}
    with pytest.raises(ModelError, match=reason):
        made_of("sd", tmp_path, {"layout": adapter})


def test_adapters_of_different_encoders(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "model")
    unet = small_models.made("sd").unet
    for name, width in (("one", WIDTH), ("other", 7)):
        (tmp_path / name).mkdir()
        save_file(random_adapter(unet, width=width), tmp_path / name / "ip.safetensors")
    profile = DiffusersProfile.model_validate(
        {"model": "model", "image_adapter": {name: {"model": name} for name in ("one", "other")}}
    )
    with pytest.raises(ModelError, match=r"share one image encoder, .* 7 and 12 numbers"):
        Models(tmp_path, "cpu").diffusion(profile)


def test_the_engine_keeps_numbers_of_images_apart_and_diffusers_the_images_and_scales() -> None:
    assert len({each.batch_key for each in REQUESTS}) == 3
    assert a_request(2, 1, named=1).batch_key != a_request(2, 1).batch_key
    assert len({shared_settings(each) for each in REQUESTS}) == len(REQUESTS)


def test_another_encoders_embeddings(renderers: Renderers) -> None:
    for renderer in (renderers.engine, renderers.reference):
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
