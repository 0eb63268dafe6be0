"""Tiny models of the newer families' classes, in folders as they are published, render any row."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pipeline.errors import JobError
from pipeline.job import ImageArray, RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile
from pipeline.rendering import calls, diffusers
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.telemetry import metered
from tests.harness import small_models

NO_GUIDANCE = {"flux2-klein-distilled"}
GUIDANCE_IS_INPUT = {"flux-dev", "flux2", "hunyuan-image-distilled", "lcm", "sana-sprint"}
NEGATIVE_REFUSED = {"flux2", "flux2-klein", "lcm", "sana-sprint"}
NEGATIVE_UNHEARD = {"hunyuan-image-distilled"}
ALONE = {"kandinsky5"}
SILENT = {"pixart-sigma"}
FAMILIES = [
    "flux-dev",
    "qwen-image",
    "z-image",
    "chroma",
    "lumina2",
    "pixart-sigma",
    "aura-flow",
    "lcm",
    "ovis-image",
    "krea2",
    "kandinsky5",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "flux2",
            "flux2-klein",
            "flux2-klein-distilled",
            "sana",
            "sana-sprint",
            "hunyuan-image",
            "hunyuan-image-distilled",
        )
    ),
]
VISIBLE = 1e-4
"""Larger than what a batch's size changes, and smaller than what a setting does."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def models(family: str, tmp_path_factory: pytest.TempPathFactory) -> Models:
    root = tmp_path_factory.mktemp("models")
    small_models.save(family, root / family)
    return Models(root, "cpu")


@pytest.fixture(scope="module")
def renderer(family: str, models: Models) -> Iterator[DiffusersRenderer]:
    renderer = DiffusersRenderer(models, DiffusersProfile(model=family, batch=2))
    yield renderer
    renderer.close()


@pytest.fixture(scope="module")
def asked(family: str) -> RenderRequest:
    return RenderRequest(
        prompt="a red circle",
        negative="",
        width=32,
        height=64,
        steps=2,
        guidance=1.0 if family in NO_GUIDANCE else 4.0,
        seeds=(7,),
    )


@pytest.fixture(scope="module")
def plain(renderer: DiffusersRenderer, asked: RenderRequest) -> ImageArray:
    (image,) = renderer.render(asked)
    return image


def differs(
    plain: ImageArray, renderer: DiffusersRenderer, asked: RenderRequest, **changes: object
) -> bool:
    (image,) = renderer.render(asked.model_copy(update=changes))
    return bool(np.abs(image - plain).max() > VISIBLE)


def test_an_image_has_its_size_and_its_seed(
    family: str,
    renderer: DiffusersRenderer,
    asked: RenderRequest,
    plain: ImageArray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And each step is a sign of life, where the pipeline tells of it."""
    beats = list[None]()
    monkeypatch.setattr(diffusers, "beat", lambda: beats.append(None))
    other, again = renderer.render(asked.model_copy(update={"seeds": (8, 7)}))
    assert len(beats) == (0 if family in SILENT else asked.steps)
    assert plain.shape == (64, 32, 3)
    assert np.isfinite(plain).all()
    assert np.abs(plain - again).max() <= 2 / 255
    assert np.abs(plain - other).max() > 0.05


def test_a_longer_prompt_in_the_call_changes_no_image(
    family: str,
    models: Models,
    renderer: DiffusersRenderer,
    asked: RenderRequest,
    plain: ImageArray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = list[int]()

    def counted(pipe: Any, requests: Any) -> dict[str, Any]:
        sizes.append(len({each.prompt for each in requests}))
        return calls.call_arguments(pipe, requests)

    monkeypatch.setattr(diffusers, "call_arguments", counted)
    longer = asked.model_copy(update={"prompt": "two blue squares on a green ground " * 2})
    with ThreadPoolExecutor(3) as threads:
        with models.device_lock:  # what comes meanwhile shares the next call
            first = threads.submit(renderer.render, asked)
            time.sleep(0.1)
            images = [threads.submit(renderer.render, each) for each in (asked, longer)]
            time.sleep(0.1)
        for each in (first, images[0]):
            assert np.abs(plain - each.result()[0]).max() <= 1e-4
        assert np.abs(plain - images[1].result()[0]).max() > VISIBLE
    assert max(sizes) == (1 if family in ALONE else 2)


def test_guidance_has_an_effect_above_1_or_is_refused(
    family: str, renderer: DiffusersRenderer, asked: RenderRequest, plain: ImageArray
) -> None:
    if family in NO_GUIDANCE:
        with pytest.raises(JobError, match="takes no guidance; let `guidance` be 0 or 1"):
            renderer.render(asked.model_copy(update={"guidance": 8.0}))
        return
    assert differs(plain, renderer, asked, guidance=8.0)
    (none,) = renderer.render(asked.model_copy(update={"guidance": 1.0}))
    assert np.abs(plain - none).max() > VISIBLE
    if family not in GUIDANCE_IS_INPUT:
        assert not differs(none, renderer, asked, guidance=0.0)
    assert not differs(plain, renderer, asked)


def test_a_negative_prompt_is_heard_or_it_is_said(
    family: str, renderer: DiffusersRenderer, asked: RenderRequest, plain: ImageArray
) -> None:
    if family in NEGATIVE_REFUSED:
        with pytest.raises(JobError, match="takes no negative_prompt"):
            renderer.render(asked.model_copy(update={"negative": "blurred"}))
        return
    with metered() as meter:
        changed = differs(plain, renderer, asked, negative="blurred")
    heard = family not in NEGATIVE_UNHEARD | NO_GUIDANCE
    assert changed == heard
    assert any("negative prompt has no effect" in said for said in meter.notices) != heard
