"""ControlNets of single rows: in mixed batches as in diffusers' ControlNet pipelines, and without a
trace.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from pipeline.job import Control, ImageArray, LoadedImage, RenderRequest
from pipeline.media.image import to_image
from pipeline.models import Models
from pipeline.profile import ControlProfile, DiffusersProfile
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.conditions.control import PREPROCESSORS
from pipeline.rendering.diffusers import DiffusersRenderer
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
        made: ImageArray = pipe(
            generator=torch.Generator().manual_seed(request.seeds[0]), **arguments
        ).images[0]
        return made


@pytest.fixture(scope="module")
def encoded() -> Iterator[None]:
    """Have diffusers' pipelines take the mode of an image's latents, as the engine does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
        )
        yield


@pytest.fixture(scope="module", params=PIPELINES)
def workshop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, encoded: None
) -> Workshop:
    return opened(request.param, tmp_path_factory.mktemp(request.param))


def opened(family: str, root: Path) -> Workshop:
    pipe = small_models.made(family)
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
