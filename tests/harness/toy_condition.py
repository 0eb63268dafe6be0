"""A toy condition, in one file: rows whose prompt speaks of fog are rendered paler."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.errors import JobError
from pipeline.job import RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile
from pipeline.rendering.conditions import Condition


class Fog(Condition):
    """Fog that is added to the denoiser's output, row by row."""

    def __init__(self, pipe: Any, models: Models, profile: DiffusersProfile) -> None:
        self._unet = pipe.unet

    def check(self, request: RenderRequest) -> None:
        """Refuse smoke."""
        if "smoke" in request.prompt:
            raise JobError("there is fog here, and no smoke")

    @contextmanager
    def applied(self, requests: Sequence[RenderRequest], steps: Sequence[int]) -> Iterator[None]:
        """Add to the rows of foggy requests."""
        foggy = torch.tensor([float("fog" in request.prompt) for request in requests])

        def add(module: Any, given: Any, output: Any) -> Any:
            return (output[0] + 0.2 * foggy.view(-1, 1, 1, 1), *output[1:])

        handle = self._unet.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()
