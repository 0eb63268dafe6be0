"""The port between the engine and a family of models."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from pipeline.errors import JobError
from pipeline.job import RenderRequest
from pipeline.rendering.prompts import Prompt
from pipeline.rendering.sampler import SamplerTable

Conditioning = dict[str, Tensor]
"""The conditions that one text gives: tensors by the model's names, without a batch axis."""

IMAGES = "images:"
"""What the names of image adapters' embeddings begin with in a conditioning; a number follows."""


class Family(Protocol):
    """A model that predicts noise or velocity, and a decoder. Latents are float32 on its device."""

    device: torch.device
    fills: bool
    """True for a model that is given the mask and what is left of the image, in every call."""
    keeps_norm: bool
    """True for a model whose guided prediction is given the norm, in each token, of the prompt's
    own.
    """

    def check(self, request: RenderRequest) -> None:
        """Raise JobError for a request with a size or settings that the family cannot render, and
        Unsupported for one that only the reference renderer can.
        """
        ...

    def guides(self, request: RenderRequest) -> bool:
        """True where each step needs a second, unconditional prediction."""
        ...

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """The conditionings of prompts of equally many chunks, in order. A model whose text
        encoders are not read in chunks takes `Prompt.plain`.
        """
        ...

    def encode_negative(self, prompt: Prompt) -> Conditioning:
        """The conditioning of the second prediction; `prompt` may be empty."""
        ...

    def sampler_table(self, steps: int, width: int, height: int, first: int = 0) -> SamplerTable:
        """The schedule for images of that size, in pixels, from the step `first` on. Raises
        Unsupported.
        """
        ...

    def encode_image(self, image: Tensor) -> Tensor:
        """[2, ...]: mean and standard deviation of an image's latents, as the model's VAE has them;
        `image` is [3, height, width] in -1..1.
        """
        ...

    def latents(self, encoded: Tensor, request: RenderRequest) -> Tensor:
        """The VAE's latents, scaled and arranged as those of `noise`."""
        ...

    def mask(self, mask: Tensor, request: RenderRequest) -> Tensor:
        """A mask [height, width] of 0 and 1, arranged as the latents."""
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
        """Estimates of finished latents as images, like `decode`; may be coarser, and cheaper."""
        ...


def stacked(texts: Sequence[Conditioning], name: str) -> Tensor:
    """One tensor of all texts, with a batch axis."""
    return torch.stack([text[name] for text in texts])


def padded(texts: Sequence[Conditioning], name: str) -> tuple[Tensor, Tensor | None]:
    """[n, tokens, width] of texts of any lengths, with zeros behind the shorter ones, and a mask
    [n, tokens] that is True where a text is; None where all are equally long.
    """
    states = [text[name] for text in texts]
    lengths = torch.tensor([len(each) for each in states], device=states[0].device)
    longest = int(lengths.max())
    if bool((lengths == longest).all()):
        return torch.stack(states), None
    places = torch.arange(longest, device=lengths.device)
    return pad_sequence(states, batch_first=True), places < lengths[:, None]


def draw(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard noise in float32, drawn on the processor: a seed gives the same noise on every
    device.
    """
    noise = torch.randn((1, *shape), generator=generator, dtype=torch.float32)
    return noise[0].to(device)


def encoded(vae: Any, image: Tensor) -> Tensor:
    """[2, channels, height / 8, width / 8]: mean and deviation of a VAE's latents of an image; the
    deviation is 0 for a VAE without a distribution.
    """
    found = vae.encode(image[None].to(vae.device, vae.dtype))
    if hasattr(found, "latent_dist"):
        parts = found.latent_dist.mean, found.latent_dist.std
    else:
        parts = found.latents, torch.zeros_like(found.latents)
    return torch.cat(parts).float()


def shrunk(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask [height, width] at the size of latents, by its nearest pixels as in diffusers."""
    return functional.interpolate(mask[None, None], size=(height, width))[0, 0]


def images(decoded: Tensor) -> Tensor:
    """A decoder's output [n, 3, height, width] in -1..1 as images [n, height, width, 3]."""
    return (decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def check_multiple(request: RenderRequest, multiple: int) -> None:
    """Raise JobError unless both sides are a multiple of `multiple` pixels."""
    if request.width % multiple or request.height % multiple:
        raise JobError(
            f"the model cannot render {request.width}×{request.height}: "
            f"both sides have to be multiples of {multiple}"
        )


def execution_device(pipe: Any) -> torch.device:
    """The device that a pipeline's models run on."""
    return torch.device(pipe._execution_device)
