"""The image adapters of a pipeline: embeddings of images as conditions beside the prompt.

Ye et al., "IP-Adapter" (2023), https://arxiv.org/abs/2308.06721. Each image adds tokens to attend
to, as the neighbours do in Blattmann et al., "Retrieval-Augmented Diffusion Models" (2022),
https://arxiv.org/abs/2204.11824.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from torch import Tensor, nn

from pipeline.errors import JobError
from pipeline.job import Embedding, RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile, ImageAdapterProfile
from pipeline.rendering.conditions.base import Condition
from pipeline.rendering.families import IMAGES, Conditioning


class ImageAdapters(Condition):
    """A UNet's IP-Adapters, if it has any. Rows of different scales share a batch."""

    def __init__(self, pipe: Any, models: Models, profile: DiffusersProfile) -> None:
        unet: Any = getattr(pipe, "unet", None)
        found: Any = getattr(unet, "encoder_hid_proj", None)
        self.present = isinstance(found, MultiIPAdapterImageProjection)
        self._adapters = list(profile.image_adapters.values())
        self._processors = list[tuple[Any, list[float]]]()
        self._scales: Tensor | None = None
        if self.present:
            self._device = torch.device(pipe._execution_device)
            self._width: int = found.image_projection_layers[0].image_embeds.in_features
            processors = unet.attn_processors.values()
            self._processors = [
                (each, list(each.scale)) for each in processors if hasattr(each, "scale")
            ]
            for layer in (layer for each, _ in self._processors for layer in each.to_v_ip):
                layer.register_forward_hook(self._weigh)

    def check(self, request: RenderRequest) -> None:
        """Raise JobError for embeddings without an adapter, and for those of another width, which
        another model computed.
        """
        if request.references and not self.present:
            raise JobError("this profile's renderer has no image adapter for images")
        if others := {len(each) for each in request.references} - {self.present and self._width}:
            raise JobError(
                f"the image adapter takes embeddings of {self._width} numbers, "
                f"not of {', '.join(map(str, sorted(others)))}: "
                "`retrieval.image_encoder` has to be its encoder"
            )

    def conditioning(self, request: RenderRequest, *, unconditional: bool) -> Conditioning:
        """The embeddings; zeros for the negative text."""
        if not self.present:
            return {}
        embeddings = [each.to(self._device) for each in self.embeddings(request)]
        return {
            f"{IMAGES}{at}": torch.zeros_like(each) if unconditional else each
            for at, each in enumerate(embeddings)
        }

    def embeddings(self, request: RenderRequest) -> list[Tensor]:
        """[images, width] in float32 for each adapter; a row of zeros where it is given none."""
        given = [self._given(each, request) for each in self._adapters]
        return [torch.tensor(each) if each else torch.zeros(1, self._width) for each in given]

    @contextmanager
    def applied(self, requests: Sequence[RenderRequest], steps: Sequence[int]) -> Generator[None]:
        """Weigh each request's images in its rows; skip an adapter that no request has images
        for.
        """
        scales = [request.reference_scale for request in requests]
        used = [
            any(each.reference_scale and self._given(adapter, each) for each in requests)
            for adapter in self._adapters
        ]
        for processor, own in self._processors:
            processor.scale = [scale if use else 0.0 for scale, use in zip(own, used, strict=True)]
        if self.present and any(scales):
            self._scales = torch.tensor(scales, device=self._device)
        try:
            yield
        finally:
            self._scales = None

    @staticmethod
    def _given(adapter: ImageAdapterProfile, request: RenderRequest) -> tuple[Embedding, ...]:
        """Embeddings of the images that an adapter is given."""
        named, retrieved = request.references[: request.named], request.references[request.named :]
        return (
            *(named if adapter.takes("named") else ()),
            *(retrieved if adapter.takes("retrieved") else ()),
        )

    def _weigh(self, _layer: nn.Module, _given: object, values: Tensor) -> Tensor | None:
        """Weigh the values that the images have for the attention, [rows, ...]: its output is
        linear in them.
        """
        if self._scales is None:
            return None
        times, rest = divmod(len(values), len(self._scales))
        if rest:
            raise JobError("the model mixes the rows of a batch")
        # a pipeline that guides doubles its rows
        scales = self._scales.repeat(times).to(values.dtype)
        return values * scales.view(-1, *[1] * (values.ndim - 1))
