"""ControlNets: an image that says shape and place, for each row of a batch its own.

Zhang et al. 2023, https://arxiv.org/abs/2302.05543. A hook on the denoiser has each ControlNet read
the rows that asked for it and adds its residuals to them, so rows of different ControlNets and rows
without one share a batch, and these compute what they would alone.
"""

import inspect
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor, nn

from pipeline.errors import JobError
from pipeline.job import Control, ImageArray, RenderRequest
from pipeline.models import Models
from pipeline.models.diffusion import denoiser_of
from pipeline.models.faults import with_room
from pipeline.profile import DiffusersProfile
from pipeline.rendering.conditions.base import Condition
from pipeline.rendering.controlnets import CONTROLNETS, ControlNet, Residuals
from pipeline.rendering.inputs import PREPROCESSORS

KEPT_BYTES = 512 << 20
"""Bytes of control images that stay on the device; the least recently used ones leave."""


class Controls(Condition):
    """The ControlNets of a pipeline that its profile names. Raises ModelError for one that does not
    fit the pipeline.
    """

    def __init__(self, pipe: Any, models: Models, profile: DiffusersProfile) -> None:
        self._device_lock = models.device_lock
        self._nets = dict[str, ControlNet]()
        self._preprocessors = {name: each.preprocessor for name, each in profile.controls.items()}
        for name, each in profile.controls.items():
            net = models.controlnet(each.model, profile)
            self._nets[name] = CONTROLNETS[type(net).__name__](net, pipe)
        self._images: LRUCache[object, Tensor] = LRUCache(
            KEPT_BYTES, getsizeof=lambda image: min(image.nbytes, KEPT_BYTES)
        )
        self._lock = threading.Lock()
        self._requests: Sequence[RenderRequest] = ()
        self._steps: Sequence[int] = ()
        if self._nets:
            denoiser = denoiser_of(pipe)
            self._signature = inspect.signature(denoiser.forward)
            denoiser.register_forward_pre_hook(self._add, with_kwargs=True)

    def check(self, request: RenderRequest) -> None:
        """Prepare the request's control image. Raises JobError for an unknown ControlNet."""
        if not (control := request.control):
            return
        if control.name not in self._nets:
            named = ", ".join(self._nets) or "none"
            raise JobError(f"the profile names no ControlNet {control.name!r} (there are: {named})")
        if control.scale and self._known(control) is None:
            image = self._preprocessed(control)
            with self._device_lock:
                with_room(partial(self._read, control, image), self._forget)

    def _forget(self) -> None:
        with self._lock:
            self._images.clear()

    @contextmanager
    def applied(self, requests: Sequence[RenderRequest], steps: Sequence[int]) -> Generator[None]:
        """Let the hook add each request's residuals to its rows."""
        self._requests, self._steps = requests, steps
        try:
            yield
        finally:
            self._requests = ()

    def _add(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The denoiser's arguments with the residuals of the rows that asked for some."""
        if not any(request.control for request in self._requests):
            return None
        call = self._signature.bind(*args, **kwargs).arguments
        batch, count = len(next(iter(call.values()))), len(self._requests)
        if batch % count:
            raise JobError(f"{type(module).__name__} mixes the rows of a batch")
        wanted = dict[str, list[int]]()
        for row in range(batch):
            # a pipeline that guides doubles its rows
            request, step = self._requests[row % count], self._steps[row % count]
            if request.control and request.control.active(step, request.steps):
                wanted.setdefault(request.control.name, []).append(row)
        found = [self._weighted(name, call, rows) for name, rows in wanted.items()]
        return (args, kwargs | _joined(found, batch)) if found else None

    def _weighted(
        self, name: str, call: Mapping[str, Any], rows: Sequence[int]
    ) -> tuple[Tensor, Tensor, Residuals]:
        """The rows that one ControlNet adds to, its weight in each, and what it adds."""
        requests = [self._requests[row % len(self._requests)] for row in rows]
        controls = [request.control for request in requests if request.control]
        images = torch.stack([self._image(control) for control in controls])
        where, scales = (
            torch.tensor(each, device=images.device)
            for each in (rows, [control.scale for control in controls])
        )
        return where, scales, self._nets[name].residuals(call, where, images, requests)

    def _image(self, control: Control) -> Tensor:
        """The control image on the device, as its ControlNet reads it."""
        if (known := self._known(control)) is not None:
            return known
        return self._read(control, self._preprocessed(control))

    def _preprocessed(self, control: Control) -> ImageArray:
        return PREPROCESSORS[self._preprocessors[control.name]](control.image.pixels)

    def _known(self, control: Control) -> Tensor | None:
        with self._lock:
            return self._images.get(_key(control))

    @torch.inference_mode()
    def _read(self, control: Control, image: ImageArray) -> Tensor:
        """The ControlNet's form of an image, which is kept. The caller holds the device lock."""
        net = self._nets[control.name]
        pixels = torch.from_numpy(image).permute(2, 0, 1).to(net.net.device)
        read = net.read(pixels).to(net.net.dtype)
        with self._lock:
            self._images[_key(control)] = read
        return read


def _key(control: Control) -> object:
    return control.name, control.image.sha256, control.image.pixels.shape


def _joined(found: Sequence[tuple[Tensor, Tensor, Residuals]], batch: int) -> dict[str, Any]:
    """The residuals of several ControlNets as arguments for the whole batch, with zeros in the rows
    of none.
    """
    arguments = dict[str, Any]()
    for name in {name for _, _, residuals in found for name in residuals}:
        parts = [(rows, scales, each[name]) for rows, scales, each in found if name in each]
        made = dict[tuple[int, ...], Tensor]()
        joined = []
        for tensors in zip(*(residuals for _, _, residuals in parts), strict=True):
            # neighbouring blocks of a transformer may share their residuals
            key = tuple(map(id, tensors))
            if key not in made:
                made[key] = tensors[0].new_zeros(batch, *tensors[0].shape[1:])
                for (rows, scales, _), tensor in zip(parts, tensors, strict=True):
                    weights = scales.to(tensor.dtype).view(-1, *[1] * (tensor.ndim - 1))
                    made[key].index_copy_(0, rows, tensor * weights)
            joined.append(made[key])
        arguments[name] = joined[0] if name.startswith("mid_block") else joined
    return arguments
