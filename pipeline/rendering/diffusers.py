"""Renders with a diffusers pipeline: the reference implementation of the Renderer port."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.errors import JobError
from pipeline.job import ImageArray, RenderRequest
from pipeline.models import Models
from pipeline.models.batching import Batcher
from pipeline.models.faults import device_lost, free_memory, out_of_memory
from pipeline.ports import Pruner
from pipeline.profile import RendererProfile
from pipeline.rendering.adapter import Adapter
from pipeline.rendering.calls import call_arguments, guided, taken
from pipeline.rendering.windows import Windows
from pipeline.telemetry import rendered_by
from pipeline.watchdog import beat, suspended


class Shot(NamedTuple):
    """One image to render."""

    request: RenderRequest
    seed: int


class DiffusersRenderer:
    """Merges concurrent requests of equal settings into one call, each image from its own seed.

    Noise is drawn on the processor, so that a seed means the same on every device. A call that
    does not fit the device's memory is halved, and its size remembered.
    """

    def __init__(self, models: Models, profile: RendererProfile) -> None:
        self._pipe = models.diffusion(profile)
        self._adapter = Adapter.of(self._pipe)
        self.windows = Windows(self._pipe)
        self._limit = profile.batch
        self._fitting: dict[Hashable, int] = {}
        self._batcher = Batcher(
            "renderer",
            self._render_requests,
            limit=profile.batch,
            key=shared_settings,
            size=lambda request: len(request.seeds),
            device_lock=models.device_lock,
        )

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        """One image per seed, in order. Raises JobError; a lost device's own error is raised."""
        rendered_by("diffusers")
        self.windows.tell(request)
        images: list[ImageArray] = []
        for part in _parts(request, self._limit):
            result = self._batcher(part)
            if isinstance(result, JobError):
                raise result
            images += result
        return images

    def _render_requests(
        self, requests: Sequence[RenderRequest]
    ) -> list[list[ImageArray] | JobError]:
        """The images of each request; when a shared call fails, each request gets its own call."""
        shots = [Shot(request, seed) for request in requests for seed in request.seeds]
        try:
            images = iter(self._render_shots(shots))
        except JobError as error:
            if len(requests) == 1:
                return [error]
            return [result for request in requests for result in self._render_requests([request])]
        return [[next(images) for _ in request.seeds] for request in requests]

    def _render_shots(self, shots: list[Shot]) -> list[ImageArray]:
        key = shared_settings(shots[0].request)
        size = self._fitting.get(key, self._limit)
        done: list[ImageArray] = []
        while len(done) < len(shots):
            chunk = shots[len(done) : len(done) + size]
            images = self._call_if_it_fits(chunk)
            if images is not None:
                done += images
                continue
            free_memory()
            if len(chunk) == 1:
                raise JobError("not even one image of this size fits the device's memory")
            size = self._fitting[key] = max(1, len(chunk) // 2)
        return done

    def _call_if_it_fits(self, shots: list[Shot]) -> list[ImageArray] | None:
        """The images, or None when the device's memory did not suffice."""
        try:
            return self._call(shots)
        except JobError:
            raise
        except Exception as error:
            if out_of_memory(error):
                return None
            if device_lost(error):
                raise
            raise JobError(f"the renderer failed: {type(error).__name__}: {error}") from error

    def _call(self, shots: list[Shot]) -> list[ImageArray]:
        requests = [shot.request for shot in shots]
        arguments = call_arguments(self._pipe, requests) | self._shown(requests)
        arguments["generator"] = [torch.Generator("cpu").manual_seed(shot.seed) for shot in shots]
        if "callback_on_step_end" in taken(self._pipe):
            output = self._pipe(callback_on_step_end=_beat, **arguments)
        else:
            with suspended():
                output = self._pipe(**arguments)
        images = output.images if hasattr(output, "images") else output.image
        return [_checked(image, requests[0]) for image in images]

    def _shown(self, requests: Sequence[RenderRequest]) -> dict[str, Any]:
        """The adapter's argument of a call: for each image those that it is to follow."""
        if self._adapter is None:
            if requests[0].references:
                raise JobError("this profile's renderer has no image adapter for images")
            return {}
        for request in requests:
            self._adapter.check(request)
        self._adapter.set_scale(requests[0].reference_scale)
        shown = torch.stack([self._adapter.embeddings(request) for request in requests])
        if guided(requests[0]):
            shown = torch.cat([torch.zeros_like(shown), shown])
        return {"ip_adapter_image_embeds": [shown.to(self._pipe.device, self._pipe.dtype)]}


def _beat(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Says after each denoising step that this process moves on."""
    beat()
    return tensors


def shared_settings(request: RenderRequest) -> Hashable:
    """What requests must have in common to share a call."""
    negative = bool(request.negative) and guided(request)
    return (request.batch_key, request.steps, request.guidance, negative)


def _parts(request: RenderRequest, limit: int) -> Iterator[RenderRequest]:
    for first in range(0, len(request.seeds), limit):
        yield request.model_copy(update={"seeds": request.seeds[first : first + limit]})


def _checked(image: Any, request: RenderRequest) -> ImageArray:
    height, width, _ = image.shape
    if (width, height) != (request.width, request.height):
        raise JobError(
            f"the model cannot render {request.width}×{request.height}, only {width}×{height}; "
            "most large models want multiples of 16"
        )
    result: ImageArray = np.asarray(image, dtype=np.float32)
    return result
