"""Every renderer keeps the port's promises, with the shipped model."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import JobError
from pipeline.job import ImageArray, RenderRequest
from pipeline.ports import Renderer
from pipeline.profile import A1111Profile, Profile
from pipeline.rendering.a1111 import A1111Renderer
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer
from pipeline.telemetry import metered
from tests.harness import a1111_server, small_models


@pytest.fixture(scope="module")
def reference(models_root: Path) -> DiffusersRenderer:
    return DiffusersRenderer(small_models.shipped(models_root), Profile.load("shapes").renderer)


@pytest.fixture(scope="module", params=["engine", "diffusers", "a1111"])
def renderer(
    request: pytest.FixtureRequest, reference: DiffusersRenderer, models_root: Path
) -> Iterator[Renderer]:
    """Each implementation; the A1111 server is a real one that renders the same model."""
    if request.param == "engine":
        models, profile = small_models.shipped(models_root), Profile.load("shapes").renderer
        yield EngineRenderer(models, profile, DiffusersRenderer(models, profile))
        return
    if request.param == "diffusers":
        yield reference
        return
    with a1111_server.serve(reference) as server:
        yield A1111Renderer(server.url, "", A1111Profile(batch=3, timeout=60))


def a_request(*seeds: int, prompt: str = "a red circle on a white background") -> RenderRequest:
    return RenderRequest(
        prompt=prompt, negative="", width=64, height=64, steps=4, guidance=4.0, seeds=seeds
    )


def same(one: ImageArray, other: ImageArray) -> bool:
    return bool(np.abs(one - other).max() <= 2 / 255)


def test_one_image_per_seed_in_order(renderer: Renderer) -> None:
    images = renderer.render(a_request(4, 2, 3, 1, 5))
    again = [renderer.render(a_request(seed))[0] for seed in (4, 2, 3, 1, 5)]
    assert len(images) == 5
    assert all(same(one, other) for one, other in zip(images, again, strict=True))
    assert not any(same(images[0], other) for other in images[1:])


def test_an_image_is_rgb_in_0_to_1(renderer: Renderer) -> None:
    (image,) = renderer.render(a_request(1))
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1


@pytest.mark.slow
def test_a_seed_decides_its_image_whatever_shares_the_device(renderer: Renderer) -> None:
    prompts = ["a blue star", "a green ring", "a red circle", "a small heart"]
    requests = [a_request(n, n + 7, prompt=prompts[n % 4]) for n in range(8)]
    alone = [renderer.render(one) for one in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(renderer.render, requests))
    for ones, others in zip(alone, together, strict=True):
        assert all(same(one, other) for one, other in zip(ones, others, strict=True))


def test_every_implementation_renders_the_reference_image(
    renderer: Renderer, reference: DiffusersRenderer
) -> None:
    assert same(renderer.render(a_request(11))[0], reference.render(a_request(11))[0])


class Halving:
    """A pruner that drops the first of those that it sees, whatever they look like."""

    points = (0.25, 0.5)

    def __init__(self) -> None:
        self.seen = list[int]()

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        self.seen.append(len(previews))
        return range(1, len(previews))


def test_a_race_changes_no_image(renderer: Renderer) -> None:
    """Whoever is left at the end has the image of one that ran alone; all are, where a renderer
    shows no previews.
    """
    pruner, asked = Halving(), a_request(1, 2, 3, 4)
    raced = renderer.render(asked, pruner)
    whole = renderer.render(asked)
    assert pruner.seen in ([4, 3], [])
    assert sum(image is None for image in raced) == len(pruner.seen)
    for one, other in zip(raced, whole, strict=True):
        assert one is None or same(one, other)


def test_a_last_one_has_no_rivals(renderer: Renderer) -> None:
    pruner = Halving()
    renderer.render(a_request(1, 2), pruner)
    assert pruner.seen in ([2], [])


def test_the_receipt_says_who_rendered(renderer: Renderer, request: pytest.FixtureRequest) -> None:
    with metered() as meter:
        renderer.render(a_request(1))
    assert meter.renderer == request.node.callspec.params["renderer"]
    assert meter.device["renderer"] > 0


def test_what_cannot_be_rendered_is_the_jobs_error(renderer: Renderer) -> None:
    with pytest.raises(JobError):
        renderer.render(a_request(1).model_copy(update={"width": 60}))
