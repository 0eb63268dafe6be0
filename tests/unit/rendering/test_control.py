"""ControlNets of single rows: in mixed batches as in diffusers' ControlNet pipelines, and without a
trace.
"""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import load_file, save_file

from pipeline.errors import JobError, ModelError
from pipeline.job import Control, ImageArray, LoadedImage, RenderRequest
from pipeline.media.image import to_image
from pipeline.models import Models
from pipeline.models.controlnets import KINDS, check_fit
from pipeline.profile import ControlProfile, DiffusersProfile, Preprocessor
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.inputs import PREPROCESSORS
from pipeline.rendering.local import EngineRenderer
from tests.harness import small_models

CLOSE, SEEN = 2 / 255, 4 / 255
PROFILE = DiffusersProfile(
    model="model",
    controls={
        "canny": ControlProfile(model="one", preprocessor="canny"),
        "given": ControlProfile(model="one"),
        "depth": ControlProfile(model="other"),
    },
)
PIPELINES = {
    "sd": (diffusers.StableDiffusionControlNetPipeline, "image"),
    "sdxl": (diffusers.StableDiffusionXLControlNetPipeline, "image"),
    "sd3": (diffusers.StableDiffusion3ControlNetPipeline, "control_image"),
    "flux": (diffusers.FluxControlNetPipeline, "control_image"),
}


def picture(seed: int) -> LoadedImage:
    """A square of a colour on another one."""
    colours = np.random.default_rng(seed).random((2, 3), np.float32)
    pixels = np.tile(colours[0], (32, 32, 1))
    pixels[6 + seed : 20 + seed, 8:24] = colours[1]
    return LoadedImage(f"{seed:064x}", np.round(pixels * 255).astype(np.float32) / np.float32(255))


@dataclass(frozen=True)
class Workshop:
    """A model with two ControlNets, and both renderers over them."""

    family: str
    root: Path
    reference: DiffusersRenderer
    engine: EngineRenderer

    def request(self, control: Control | None, **changes: object) -> RenderRequest:
        asked = {
            "prompt": "a red circle", "negative": "blue", "width": 32, "height": 32, "steps": 4,
            "guidance": 3.0, "seeds": (7,), "control": control,
        }  # fmt: skip
        return RenderRequest.model_validate(asked | changes)

    def by_diffusers(self, request: RenderRequest) -> ImageArray:
        """The image of a ControlNet pipeline of its own, or of a plain one."""
        pipe: Any = diffusers.DiffusionPipeline.from_pretrained(self.root / "model")
        arguments = call_arguments(pipe, [request])
        if control := request.control:
            kind, argument = PIPELINES[self.family]
            named = PROFILE.controls[control.name]
            net = diffusers.AutoModel.from_pretrained(str(self.root / named.model))
            pipe = kind(**pipe.components, controlnet=net)
            image = to_image(PREPROCESSORS[named.preprocessor](control.image.pixels))
            arguments |= {
                argument: image,
                "controlnet_conditioning_scale": control.scale,
                "control_guidance_start": control.first,
                "control_guidance_end": control.until,
            }
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(request.seeds[0])
        with pytest.MonkeyPatch.context() as patch:
            # they draw the latents of a control image, the engine takes the distribution's mode
            patch.setattr(DiagonalGaussianDistribution, "sample", lambda each, _=None: each.mode())
            made: ImageArray = pipe(generator=generator, **arguments).images[0]
        return made


@pytest.fixture(scope="module", params=PIPELINES)
def workshop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return opened(request.param, tmp_path_factory.mktemp(request.param))


def opened(family: str, root: Path) -> Workshop:
    # deeper than a ControlNet, whose residuals several blocks then share
    deep = {"layers": 3} if family in ("sd3", "flux") else {}
    pipe = small_models.made(family, **deep)
    pipe.save_pretrained(root / "model")
    fewer = {
        "sd3": ({"num_layers": 2}, {"num_layers": 3, "force_zeros_for_pooled_projection": False}),
        "flux": ({"num_layers": 2, "num_single_layers": 0}, {"num_single_layers": 1}),
    }.get(family, ({}, {}))
    for seed, (name, config) in enumerate(zip(("one", "other"), fewer, strict=True)):
        small_models.save_controlnet(pipe, root / name, seed, **config)
    models = Models(root, "cpu")
    reference = DiffusersRenderer(models, PROFILE)
    return Workshop(family, root, reference, EngineRenderer(models, PROFILE, reference))


CASES = [
    None,
    Control("canny", picture(1)),
    Control("given", picture(1), scale=0.5),
    Control("depth", picture(2)),
    Control("depth", picture(1), scale=1.5, first=0.25, until=0.75),
    Control("canny", picture(3), until=0.5),
]


@pytest.mark.slow
def test_rows_of_any_controls_share_a_batch_and_are_diffusers_own(workshop: Workshop) -> None:
    asked = [workshop.request(control) for control in CASES]
    others = [
        workshop.request(CASES[1], seeds=(9, 10), steps=2, guidance=1.0),
        workshop.request(None, steps=6),
    ]
    with ThreadPoolExecutor(8) as pool:
        mixed = list(pool.map(workshop.engine.render, [*asked, *others]))
    wanted = [workshop.by_diffusers(request) for request in [*asked, others[0]]]
    for request, images, own in zip([*asked, others[0]], mixed, wanted, strict=False):
        assert images[0] is not None
        assert np.abs(images[0] - own).max() <= CLOSE
        alone = workshop.reference.render(request)[0]
        assert np.abs(alone - own).max() <= CLOSE
    assert all(np.abs(each - wanted[0]).max() > SEEN for each in wanted[1:])


def test_a_control_leaves_no_trace(workshop: Workshop) -> None:
    for renderer in (workshop.engine, workshop.reference):
        plain, shown, again, nothing = (
            renderer.render(workshop.request(control))[0]
            for control in (None, CASES[1], None, Control("canny", picture(1), scale=0.0))
        )
        assert np.array_equal(plain, again)
        assert np.array_equal(plain, nothing)
        assert not np.array_equal(plain, shown)


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return opened("sd", tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("control", [CASES[1], Control("depth", picture(2), scale=2, first=0.6)])
def test_a_row_that_begins_from_an_image_is_controlled_from_there_on(
    sd: Workshop, control: Control
) -> None:
    begun = {"image": picture(3), "strength": 0.5, "steps": 8}
    engine, reference, plain = (
        renderer.render(sd.request(with_, **begun))[0]
        for renderer, with_ in ((sd.engine, control), (sd.reference, control), (sd.engine, None))
    )
    assert np.abs(engine - reference).max() <= CLOSE
    assert np.abs(engine - plain).max() > SEEN


def test_one_image_in_two_sizes_is_read_in_each(sd: Workshop) -> None:
    small = LoadedImage(picture(1).sha256, picture(1).pixels[:16, :16])
    sizes = [(picture(1), 32), (small, 16), (picture(1), 32)]
    first, other, again = (
        sd.engine.render(sd.request(Control("canny", image), width=side, height=side))[0]
        for image, side in sizes
    )
    assert other.shape == (16, 16, 3)
    assert np.array_equal(first, again)


def test_an_unknown_control_fails_its_row_alone(sd: Workshop) -> None:
    for renderer in (sd.engine, sd.reference):
        with pytest.raises(JobError, match=r"no ControlNet 'pose' \(there are: canny"):
            renderer.render(sd.request(Control("pose", picture(1))))
    assert np.abs(sd.engine.render(sd.request(CASES[1]))[0]).any()


@pytest.mark.parametrize(
    ("preprocessor", "wanted"),
    [
        ("none", (1.0, 0.2, 0.0)),
        ("invert", (0.0, 0.8, 1.0)),
        # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
        ("luminance", (0.4157, 0.4157, 0.4157)),
        ("canny", (0.0, 0.0, 0.0)),
    ],
)
def test_a_preprocessor_makes_the_control_image(
    preprocessor: Preprocessor, wanted: tuple[float, float, float]
) -> None:
    image = np.tile(np.array((1.0, 0.2, 0.0), np.float32), (8, 8, 1))
    made = PREPROCESSORS[preprocessor](image)
    assert made.dtype == np.float32
    assert np.allclose(made, wanted, atol=1 / 255)


def _nan(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    save_file(state | {"conv_in.bias": torch.full_like(state["conv_in.bias"], torch.nan)}, file)


def _lacking(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["conv_in.bias"]
    save_file(state, file)


def _config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_nan, "one holds numbers that are not finite"),
        (_lacking, "one lacks weights: conv_in.bias"),
        (
            _config(block_out_channels=[8, 32]),
            "one is for another model than .*model: its bl",
        ),
        (_config(cross_attention_dim=768), "its cross_attention_dim is 768, not 32"),
        (_config(_class_name="ControlNetUnionModel"), "a ControlNetUnionModel, and .* ControlNetM"),
        (_config(_class_name="FluxControlNetModel"), "for another kind of model"),
        (_config(global_pool_conditions=True), "one that pools its image"),
    ],
)
def test_a_controlnet_that_does_not_fit_is_refused_with_both_names(
    sd: Workshop, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    shutil.copytree(sd.root / "one", tmp_path / "one")
    (tmp_path / "model").symlink_to(sd.root / "model")
    damage(tmp_path / "one")
    models = Models(tmp_path, "cpu")
    with pytest.raises(ModelError, match=said):
        models.controlnet("one", PROFILE)


@pytest.mark.parametrize(
    ("denoiser", "changes", "said"),
    [
        ("FluxTransformer2DModel", {}, ""),
        ("FluxTransformer2DModel", {"num_mode": 7}, "a union"),
        ("FluxTransformer2DModel", {"conditioning_embedding_channels": 16}, "XLabs"),
        ("FluxTransformer2DModel", {"num_attention_heads": 4}, "num_attention_heads is 4, not 2"),
        ("SD3Transformer2DModel", {"extra_conditioning_channels": 1}, "one for inpainting"),
        # as the ones by Stability AI, which read no text
        ("SD3Transformer2DModel", {"joint_attention_dim": None}, ""),
        ("ZImageTransformer2DModel", {}, "there are no ControlNets for the model"),
    ],
)
def test_the_fit_is_checked_by_configurations_alone(
    tmp_path: Path, denoiser: str, changes: dict[str, object], said: str
) -> None:
    sizes = {"in_channels": 16, "num_attention_heads": 2, "joint_attention_dim": 32}
    name = KINDS[denoiser].name if denoiser in KINDS else "ControlNetModel"
    for part, config in (
        ("model/transformer", {"_class_name": denoiser} | sizes),
        ("net", {"_class_name": name} | sizes | changes),
    ):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    if not said:
        assert check_fit(tmp_path / "net", tmp_path / "model") == name
        return
    with pytest.raises(ModelError, match=said):
        check_fit(tmp_path / "net", tmp_path / "model")


def test_a_model_that_is_forgotten_takes_its_controlnets_along(sd: Workshop) -> None:
    models = Models(sd.root, "cpu")
    models.diffusion(PROFILE)
    first = models.controlnet("one", PROFILE)
    assert models.controlnet("one", PROFILE) is first
    models.forget(PROFILE)
    assert models.controlnet("one", PROFILE) is not first
