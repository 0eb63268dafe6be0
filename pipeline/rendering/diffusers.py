"""The renderer over a diffusers pipeline: the reference that the engine is tested against."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

from pipeline.errors import JobError, OutOfMemory
from pipeline.job import ImageArray, RenderRequest
from pipeline.models import Models
from pipeline.models.batching import Batcher
from pipeline.models.faults import device_lost, free_memory, out_of_memory
from pipeline.ports import Pruner
from pipeline.profile import DiffusersProfile
from pipeline.rendering.calls import (
    UNMASKED,
    call_arguments,
    guided,
    seeded,
    set_parts,
    taken,
)
from pipeline.rendering.conditions import CONDITIONS, ImageAdapters, applied, reworded
from pipeline.rendering.guidance import Guidance
from pipeline.rendering.inputs import pasted
from pipeline.rendering.text_encoders import TextEncoders
from pipeline.telemetry import notice, rendered_by
from pipeline.watchdog import beat, suspended


class Shot(NamedTuple):
    """One image to render."""

    request: RenderRequest
    seed: int


class DiffusersRenderer:
    """The Renderer port over one pipeline; concurrent requests of equal settings share a call.

    Each image's noise is drawn from its own seed on the processor, so that a seed gives the same
    image on every device. A call that does not fit the device's memory is halved, and its size
    remembered.
    """

    def __init__(self, models: Models, profile: DiffusersProfile) -> None:
        self._pipe = models.diffusion(profile)
        self.guidance = Guidance(profile.guided_from, profile.guided_until, profile.composed)
        self.conditions = [make(self._pipe, models, profile) for make in CONDITIONS]
        self.texts = TextEncoders(self._pipe, weighted=profile.weighted)
        self.remarks = models.remarks(profile)
        self._limit = profile.batch
        self._others = dict[type, Any]()
        self._fitting: dict[Hashable, int] = {}
        self._batcher = Batcher(
            "renderer",
            self._render_requests,
            limit=profile.batch,
            key=self._shared,
            size=lambda request: len(request.seeds),
            device_lock=models.device_lock,
        )

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        """One image per seed, in order. Raises JobError, and the error of a lost device."""
        rendered_by("diffusers")
        if pruner and pruner.points:
            notice("the race dropped no candidate: diffusers' own pipeline renders each to its end")
        if len(self.guidance.parts(request.prompt)) > 1:
            raise JobError(f"{type(self._pipe).__name__} takes no prompts that are joined by AND")
        if (self.guidance.first, self.guidance.until) != (0, 1) and guided(request):
            notice("renderer.guided_from and guided_until have no effect with this model")
        request = reworded(self.conditions, request)
        for condition in self.conditions:
            condition.check(request)
        self.texts.report(request)
        for remark in self.remarks:
            notice(remark)
        images: list[ImageArray] = []
        for first in range(0, len(request.seeds), self._limit):
            seeds = request.seeds[first : first + self._limit]
            result = self._batcher(request.model_copy(update={"seeds": seeds}))
            if isinstance(result, JobError):
                raise result
            images += result
        return images

    def close(self) -> None:
        """End the thread of its calls."""
        self._batcher.close()

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
        request = shots[0].request
        # without the texts: what fits one prompt fits the next
        key = shared_settings(request), self.texts.chunks(request)
        size = self._fitting.get(key, self._limit)
        done: list[ImageArray] = []
        while len(done) < len(shots):
            chunk = shots[len(done) : len(done) + size]
            try:
                done += self._call(chunk)
                continue
            except JobError:
                raise
            except Exception as error:
                if not out_of_memory(error):
                    if device_lost(error):
                        raise
                    reason = f"{type(error).__name__}: {error}"
                    raise JobError(f"the renderer failed: {reason}") from error
            # outside the except block, which holds the tensors
            free_memory()
            if len(chunk) == 1:
                raise OutOfMemory("not even one image of this size fits the device's memory")
            size = self._fitting[key] = max(1, len(chunk) // 2)
        return done

    def _call(self, shots: list[Shot]) -> list[ImageArray]:
        requests = [shot.request for shot in shots]
        pipe = self._pipe_for(requests[0])
        arguments = call_arguments(pipe, requests) | self._adapter_arguments(requests[0])
        generators = [torch.Generator("cpu").manual_seed(shot.seed) for shot in shots]
        arguments["generator"] = generators

        set_parts(pipe, requests[0])
        names = {"callback_on_step_end", "prior_callback_on_step_end"} & taken(pipe)
        first = requests[0].first_step
        if not names and any(each.control and each.control.partial for each in requests):
            raise JobError(
                f"{type(pipe).__name__} does not tell its steps: leave control_from at 0 and "
                "control_until at 1"
            )
        steps = [first] * len(requests)

        def after_step(pipe: Any, step: int, _timestep: Any, tensors: Any) -> Any:
            beat()
            # a scheduler of second order calls the model twice for a step
            steps[:] = [first + (step + 1) // getattr(pipe.scheduler, "order", 1)] * len(steps)
            return tensors

        scheduler = getattr(pipe, "scheduler", None)
        with seeded(scheduler, generators), applied(self.conditions, requests, steps):
            arguments = self.texts.call_arguments(arguments, requests)
            if names:
                output = pipe(**arguments, **dict.fromkeys(names, after_step))
            else:
                with suspended():
                    output = pipe(**arguments)
        found = output.images if hasattr(output, "images") else output.image
        images: list[ImageArray] = [np.asarray(image, dtype=np.float32) for image in found]
        wanted = requests[0].width, requests[0].height
        for height, width, _ in {image.shape for image in images}:
            if (width, height) != wanted:
                raise JobError(
                    f"the model cannot render {wanted[0]}×{wanted[1]}, only {width}×{height}; "
                    "most large models want multiples of 16"
                )
        return [
            image
            for shot, each in zip(shots, images, strict=True)
            for image in pasted(shot.request, [each])
        ]

    def _shared(self, request: RenderRequest) -> Hashable:
        """The key that is equal for requests that can share a call."""
        alone = type(self._pipe).__name__.startswith(UNMASKED)
        texts = (request.prompt, request.negative) if alone else self.texts.chunks(request)
        return shared_settings(request), texts

    def _pipe_for(self, request: RenderRequest) -> Any:
        """The pipeline of the same models for a request's kind of start. Raises JobError."""
        if not request.image or "mask_image" in taken(self._pipe):
            return self._pipe
        make = AutoPipelineForInpainting if request.mask else AutoPipelineForImage2Image
        if make not in self._others:
            start = "paint a part of an image" if request.mask else "begin from an image"
            refusal = f"the model's {type(self._pipe).__name__} cannot {start}"
            try:
                other = make.from_pipe(self._pipe)
            except ValueError as error:
                raise JobError(refusal) from error
            # those that edit read an image beside the prompt
            if "strength" not in taken(other):
                raise JobError(refusal)
            other.set_progress_bar_config(disable=True)
            self._others[make] = other
        return self._others[make]

    def _adapter_arguments(self, request: RenderRequest) -> dict[str, Any]:
        """The image adapters' argument of a call: embeddings that diffusers gives to each row."""
        adapters = next(each for each in self.conditions if isinstance(each, ImageAdapters))
        if not adapters.present:
            return {}
        images = [embeds[None] for embeds in adapters.embeddings(request)]
        if guided(request):
            images = [torch.cat([torch.zeros_like(embeds), embeds]) for embeds in images]
        return {
            "ip_adapter_image_embeds": [
                embeds.to(self._pipe._execution_device, self._pipe.dtype) for embeds in images
            ]
        }


def shared_settings(request: RenderRequest) -> Hashable:
    """The settings that are equal for requests that can share a call."""
    negative = bool(request.negative) and guided(request)
    start = bool(request.image), request.first_step, bool(request.mask)
    images = request.references, request.named, request.reference_scale
    return (request.batch_key, request.steps, request.guidance, negative, start, images)
