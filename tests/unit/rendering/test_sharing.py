"""How the diffusers renderer shares calls, and what it does when one fails.

The pipeline here is a stand-in that draws its image from the seed and the prompt, and that runs
out of memory or fails on purpose, which a real one cannot be made to do on a processor.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import JobError, OutOfMemory
from pipeline.job import RenderRequest
from pipeline.profile import DiffusersProfile
from pipeline.rendering.diffusers import DiffusersRenderer, shared_settings


class Pipe:
    """Renders noise: image = noise of the seed. Memory suffices for `room` images."""

    components: Mapping[str, Any] = {}

    def __init__(self, room: int = 100) -> None:
        self.room, self.calls = room, list[int]()
        self.busy, self.hold = threading.Event(), threading.Event()
        self.hold.set()

    def __call__(
        self,
        *,
        prompt: list[str],
        generator: list[torch.Generator],
        width: int,
        height: int,
        num_inference_steps: int,
        guidance_scale: float,
        negative_prompt: list[str] | None = None,
        output_type: str = "pil",
        callback_on_step_end: Any = None,
    ) -> SimpleNamespace:
        self.busy.set()
        self.hold.wait()
        self.calls.append(len(prompt))
        if len(prompt) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if "lost" in prompt:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if "bad" in prompt:
            raise ValueError("the prompt is bad")
        noise = [torch.rand(height, width, 3, generator=one).numpy() for one in generator]
        return SimpleNamespace(images=np.stack(noise))


def renderer(pipe: Pipe, batch: int = 8) -> DiffusersRenderer:
    models: Any = SimpleNamespace(
        remarks=lambda _: [],
        device_lock=threading.Lock(),
        diffusion=lambda _: pipe,
        weights=lambda *_: None,
    )
    return DiffusersRenderer(models, DiffusersProfile(batch=batch))


def a_request(seeds: Sequence[int], prompt: str = "a circle", **changes: Any) -> RenderRequest:
    settings = {"negative": "", "width": 16, "height": 16, "steps": 1, "guidance": 4.0}
    return RenderRequest.model_validate(
        {"prompt": prompt, "seeds": tuple(seeds)} | settings | changes
    )


def noise(seed: int) -> Any:
    return torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(seed)).numpy()


def render_together(
    shared: DiffusersRenderer, pipe: Pipe, requests: Sequence[RenderRequest]
) -> list[Any]:
    """The results, or errors, of orders that were all waiting when the device came free."""
    pipe.hold.clear()
    with ThreadPoolExecutor(len(requests) + 1) as pool:
        pool.submit(shared.render, a_request([0]))
        pipe.busy.wait()
        futures = [pool.submit(shared.render, one) for one in requests]
        while len(shared._batcher._waiting) < len(requests):
            time.sleep(0.01)
        pipe.hold.set()
        return [future.exception() or future.result() for future in futures]


def test_waiting_orders_share_a_call_and_get_their_own_images() -> None:
    pipe = Pipe()
    results = render_together(
        renderer(pipe), pipe, [a_request([5, 6]), a_request([7], "a star"), a_request([8])]
    )
    assert pipe.calls == [1, 4]
    for seeds, images in zip([[5, 6], [7], [8]], results, strict=True):
        assert [np.array_equal(p, noise(s)) for s, p in zip(seeds, images, strict=True)]


def test_orders_of_other_settings_have_calls_of_their_own() -> None:
    pipe = Pipe()
    others = [a_request([1], steps=2), a_request([2], guidance=3.0), a_request([3], width=24)]
    render_together(renderer(pipe), pipe, others)
    assert pipe.calls == [1, 1, 1, 1]


def test_a_negative_prompt_counts_only_where_it_has_an_effect() -> None:
    plain, negative = a_request([1]), a_request([1], negative="blurred")
    assert shared_settings(plain) != shared_settings(negative)
    unguided = {"guidance": 0.0}
    assert shared_settings(plain.model_copy(update=unguided)) == shared_settings(
        negative.model_copy(update=unguided)
    )


def test_an_order_larger_than_the_batch_is_split() -> None:
    pipe = Pipe()
    images = renderer(pipe, batch=4).render(a_request(range(10)))
    assert pipe.calls == [4, 4, 2]
    assert all(np.array_equal(p, noise(seed)) for seed, p in enumerate(images))


def test_a_call_that_does_not_fit_is_halved_and_remembered() -> None:
    pipe = Pipe(room=3)
    shared = renderer(pipe)
    images = shared.render(a_request(range(8)))
    assert pipe.calls == [8, 4, 2, 2, 2, 2]
    assert all(np.array_equal(p, noise(seed)) for seed, p in enumerate(images))
    pipe.calls.clear()
    shared.render(a_request(range(4)))
    assert pipe.calls == [2, 2]
    pipe.calls.clear()
    shared.render(a_request(range(3), width=8))
    assert pipe.calls == [3]


def test_an_image_that_never_fits_is_the_jobs_error() -> None:
    with pytest.raises(OutOfMemory, match="not even one image"):
        renderer(Pipe(room=0)).render(a_request([1]))


def test_a_bad_order_does_not_take_others_with_it() -> None:
    pipe = Pipe()
    good, bad, also_good = render_together(
        renderer(pipe), pipe, [a_request([1]), a_request([2], "bad"), a_request([3])]
    )
    assert np.array_equal(good[0], noise(1))
    assert np.array_equal(also_good[0], noise(3))
    assert isinstance(bad, JobError)
    assert "the prompt is bad" in bad.detail


def test_a_lost_device_is_nobodys_error_and_is_raised() -> None:
    with pytest.raises(RuntimeError, match="device-side assert"):
        renderer(Pipe()).render(a_request([1], "lost"))
