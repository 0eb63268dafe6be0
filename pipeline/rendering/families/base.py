"""The port between the engine and a family of models."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.errors import JobError
from pipeline.job import RenderRequest
from pipeline.rendering.sampler import SamplerTable, Unsupported

Conditioning = dict[str, Tensor]
"""What one text does to the model: tensors by the model's names for them, without a batch axis."""


class Family(Protocol):
    """A model that predicts noise or velocity, and a decoder. Latents are float32 on its device."""

    device: torch.device

    def check(self, request: RenderRequest) -> None:
        """Raises JobError for a request whose size or settings the family cannot render, and
        Unsupported for one that only the reference renderer can.
        """
        ...

    def guides(self, request: RenderRequest) -> bool:
        """Whether each step needs a second prediction, without the prompt."""
        ...

    def encode(self, prompts: Sequence[str]) -> list[Conditioning]:
        """What the prompts do to the model, in order."""
        ...

    def encode_negative(self, prompt: str) -> Conditioning:
        """What stands in for the prompt in the second prediction; `prompt` may be empty."""
        ...

    def references(self, request: RenderRequest) -> tuple[Conditioning, Conditioning]:
        """What the request's images add to its prompt, and to what stands in for that."""
        ...

    def sampler_table(self, steps: int, width: int, height: int) -> SamplerTable:
        """So many steps for images of that size. Raises Unsupported."""
        ...

    def noise(self, request: RenderRequest, generator: torch.Generator) -> Tensor:
        """Standard noise in the shape of the request's latents, without a batch axis."""
        ...

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        texts: Sequence[Conditioning],
        requests: Sequence[RenderRequest],
    ) -> Tensor:
        """The model's output for latents [n, ...], each at its timestep with its text."""
        ...

    def decode(self, x: Tensor, request: RenderRequest) -> Tensor:
        """Finished latents [n, ...] as images [n, height, width, 3] in 0..1, float32."""
        ...

    def preview(self, x: Tensor, request: RenderRequest) -> Tensor:
        """As decode, for latents that are still estimates: it may be coarser, and cheaper."""
        ...


def stacked(texts: Sequence[Conditioning], name: str) -> Tensor:
    """One tensor of all texts, with a batch axis."""
    return torch.stack([text[name] for text in texts])


def refuse_references(request: RenderRequest) -> None:
    """Raises Unsupported for a request with references."""
    if request.references:
        raise Unsupported("images beside the prompt")


def draw(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard noise, drawn on the processor so that a seed means the same on every device."""
    return torch.randn((1, *shape), generator=generator)[0].to(device)


def images(decoded: Tensor) -> Tensor:
    """A decoder's output [n, 3, height, width] in -1..1 as images [n, height, width, 3]."""
    return (decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def check_multiple(request: RenderRequest, multiple: int) -> None:
    """Raises JobError unless both sides are a multiple of so many pixels."""
    if request.width % multiple or request.height % multiple:
        raise JobError(
            f"the model cannot render {request.width}×{request.height}: "
            f"both sides have to be multiples of {multiple}"
        )


def execution_device(pipe: Any) -> torch.device:
    """Where a pipeline's models are."""
    return torch.device(pipe._execution_device)
