"""What the engine does when a turn fails, and when somebody no longer waits.

The family here is a stand-in that runs out of memory or fails on purpose, which a real one cannot
be made to do on a processor. Its image is the seed's noise, kept through every step.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import JobError, OutOfMemory
from pipeline.job import RenderRequest
from pipeline.rendering.engine import Engine
from pipeline.rendering.families import Conditioning
from pipeline.rendering.guidance import Guidance
from pipeline.rendering.prompts import Prompt
from pipeline.rendering.sampler import SamplerTable
from pipeline.rendering.schedulers import Mix

STAY = (0.0, 1.0, 1.0, 0.0, *Mix(x=1.0), *Mix(x=1.0))


class Still:
    """A family whose steps change nothing. Memory suffices for `room` candidates in a call."""

    device = torch.device("cpu")
    fills = keeps_norm = False

    def __init__(self, room: int = 100, decodable: int = 100) -> None:
        self.room, self.decodable = room, decodable
        self.calls, self.decoded, self.read = list[int](), list[int](), list[str]()
        self.go = threading.Event()
        self.go.set()
        self.stepped = threading.Semaphore(0)

    def check(self, request: RenderRequest) -> None:
        """Anything goes."""

    def guides(self, request: RenderRequest) -> bool:
        return request.guidance > 1

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        self.read += (prompt.plain for prompt in prompts)
        return [{"text": torch.tensor(float(len(prompt.plain)))} for prompt in prompts]

    def encode_negative(self, prompt: Prompt) -> Conditioning:
        return self.encode([prompt])[0]

    def sampler_table(self, steps: int, width: int, height: int, first: int) -> SamplerTable:
        return SamplerTable(
            torch.tensor([STAY] * steps), torch.ones(steps + 1, 2), tuple(range(steps + 1)),
            first, 1.0, has_noise=False,
        )  # fmt: skip

    def noise(self, request: RenderRequest, generator: torch.Generator) -> Tensor:
        return torch.rand(request.height, request.width, 3, generator=generator)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        texts: Sequence[Conditioning],
        requests: Sequence[RenderRequest],
    ) -> Tensor:
        self.go.wait()
        self.calls.append(len(x))
        self.stepped.release()
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        prompts = {request.prompt for request in requests}
        if "lost" in prompts:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if "bad" in prompts:
            raise ValueError("the prompt is bad")
        return torch.zeros_like(x)

    def preview(self, x: Tensor, request: RenderRequest) -> Tensor:
        return self.decode(x, request) / 2

    def decode(self, x: Tensor, request: RenderRequest) -> Tensor:
        self.decoded.append(len(x))
        if len(x) > self.decodable:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x


@pytest.fixture
def still() -> Still:
    return Still()


@pytest.fixture
def engine(still: Still) -> Iterator[Engine]:
    engine = Engine(still, limit=8, device_lock=threading.Lock())
    yield engine
    still.go.set()
    engine.close()


def a_request(prompt: str = "a circle", **changes: Any) -> RenderRequest:
    settings = {"negative": "", "width": 16, "height": 16, "steps": 3, "guidance": 0.0}
    return RenderRequest.model_validate({"prompt": prompt, "seeds": (0,)} | settings | changes)


def noise(seed: int, width: int = 16) -> Any:
    return torch.rand(16, width, 3, generator=torch.Generator().manual_seed(seed)).numpy()


def together(engine: Engine, still: Still, requests: Sequence[RenderRequest]) -> list[Any]:
    """The images, or errors, of orders that all wait when the first turn begins; seeds count."""
    still.go.clear()
    samples = [engine.begin(each, seed) for seed, each in enumerate(requests)]
    futures = [engine.submit(sample, sample.steps) for sample in samples]
    still.go.set()
    return [future.exception(60) or future.result() for future in futures]


def test_a_batch_that_does_not_fit_is_halved_and_changes_no_noise(
    engine: Engine, still: Still
) -> None:
    still.room = 3
    images = together(engine, still, [a_request()] * 8)
    assert all(np.array_equal(p, noise(seed)) for seed, p in enumerate(images))
    assert max(still.calls[-6:]) <= 3
    before = len(still.calls)
    together(engine, still, [a_request()] * 8)
    assert max(still.calls[before:]) <= 3, "the size that fits is not remembered"


def test_images_that_do_not_fit_the_decoder_are_decoded_in_parts(
    engine: Engine, still: Still
) -> None:
    still.decodable = 2
    images = together(engine, still, [a_request()] * 8)
    assert all(np.array_equal(p, noise(seed)) for seed, p in enumerate(images))


def test_only_the_finished_are_decoded_in_full(engine: Engine, still: Still) -> None:
    still.go.clear()
    early, late = engine.begin(a_request(), 0), engine.begin(a_request(), 1)
    futures = [engine.submit(early, 1), engine.submit(late, 3)]
    still.go.set()
    seen, finished = [future.result(60) for future in futures]
    assert np.array_equal(seen, noise(0) / 2)
    assert np.array_equal(finished, noise(1))


def test_a_size_that_does_not_fit_the_decoder_makes_no_other_one_slower(
    engine: Engine, still: Still
) -> None:
    still.decodable = 2
    together(engine, still, [a_request(width=24)] * 8)
    still.decodable = 8
    together(engine, still, [a_request()] * 8)
    assert still.decoded[-1] == 8


def test_a_compiled_model_meets_a_few_sizes_and_each_before_the_first_step(still: Still) -> None:
    engine = Engine(still, limit=6, device_lock=threading.Lock(), fixed_sizes=True)
    asked = [a_request(guidance=3.0, steps=steps) for steps in (2, 3, 4, 5, 6)]
    images = together(engine, still, asked)
    engine.close()
    assert all(np.array_equal(p, noise(seed)) for seed, p in enumerate(images))
    known, steps = still.calls[:5], still.calls[5:]
    assert known == [1, 2, 4, 8, 12]
    assert set(steps) <= set(known)
    assert steps, "nothing was rendered"
    assert len(still.decoded) == 1 + len(asked), "the decoder was not met before the first step"


def test_a_compiled_model_that_does_not_fit_is_shown_smaller_sizes(still: Still) -> None:
    still.room = 5
    engine = Engine(still, limit=6, device_lock=threading.Lock(), fixed_sizes=True)
    images = together(engine, still, [a_request()] * 6)
    engine.close()
    assert all(np.array_equal(p, noise(seed)) for seed, p in enumerate(images))
    assert set(still.decoded) == {1}, "the decoder met another size"


def test_an_image_that_never_fits_is_the_jobs_error(engine: Engine, still: Still) -> None:
    still.room = 0
    (error,) = together(engine, still, [a_request()])
    assert isinstance(error, JobError)
    assert isinstance(error, OutOfMemory)
    assert "not even one image" in error.detail


def test_a_bad_order_does_not_take_others_with_it(engine: Engine, still: Still) -> None:
    good, bad, also_good = together(engine, still, [a_request(), a_request("bad"), a_request()])
    assert np.array_equal(good, noise(0))
    assert np.array_equal(also_good, noise(2))
    assert isinstance(bad, JobError)
    assert "the prompt is bad" in bad.detail
    calls = len(still.calls)
    together(engine, still, [a_request()])
    assert len(still.calls) == calls + 3, "the bad one is still tried"


def test_a_lost_device_is_nobodys_error_and_is_raised(engine: Engine, still: Still) -> None:
    errors = together(engine, still, [a_request(), a_request("lost")])
    assert all(isinstance(error, RuntimeError) for error in errors)


def test_one_who_no_longer_waits_leaves_at_the_next_step(
    engine: Engine, still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    still.go.clear()
    patient, leaving = (engine.begin(a_request(steps=50), seed) for seed in (0, 1))
    kept, dropped = engine.submit(patient, 50), engine.submit(leaving, 50)
    predict = still.predict

    def meanwhile(*given: Any) -> Tensor:
        dropped.cancel()
        return predict(*given)

    monkeypatch.setattr(still, "predict", meanwhile)
    still.go.set()
    assert np.array_equal(kept.result(60), noise(0))
    assert leaving.step < 2
    with pytest.raises(CancelledError):
        dropped.result(0)


def test_a_text_is_read_once(engine: Engine, still: Still) -> None:
    guided = {"guidance": 3.0, "negative": "blurred"}
    together(
        engine, still, [a_request(**guided), a_request("a star", **guided), a_request(**guided)]
    )
    together(engine, still, [a_request(**guided)])
    assert sorted(still.read) == ["a circle", "a star", "blurred"]


def test_guidance_is_a_second_row_in_the_same_call(engine: Engine, still: Still) -> None:
    together(engine, still, [a_request(guidance=3.0, steps=1), a_request(steps=1)])
    assert still.calls[-1] == 3


def test_guidance_can_end_before_the_last_step(still: Still) -> None:
    engine = Engine(still, limit=8, device_lock=threading.Lock(), guidance=Guidance(until=0.5))
    engine.submit(engine.begin(a_request(guidance=3.0, steps=4), 0), 4).result(60)
    engine.close()
    assert still.calls == [2, 2, 1, 1]


def test_those_of_another_size_wait_for_turns_of_their_own(engine: Engine, still: Still) -> None:
    wide, square = together(engine, still, [a_request(width=24), a_request()])
    assert np.array_equal(wide, noise(0, width=24))
    assert np.array_equal(square, noise(1))


def test_what_is_under_way_at_the_end_is_cancelled(still: Still) -> None:
    engine = Engine(still, limit=8, device_lock=threading.Lock())
    future = engine.submit(engine.begin(a_request(steps=100_000), 0), 100_000)
    still.stepped.acquire()
    engine.close()
    assert future.cancelled()
