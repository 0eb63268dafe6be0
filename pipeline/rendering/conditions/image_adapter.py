"""The image adapter of a pipeline: embeddings of images as conditions beside the prompt.

Ye et al., "IP-Adapter" (2023), https://arxiv.org/abs/2308.06721. Each image adds tokens to attend
to, as the neighbours do in Blattmann et al., "Retrieval-Augmented Diffusion Models" (2022),
https://arxiv.org/abs/2204.11824.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from torch import Tensor

from pipeline.errors import JobError
from pipeline.job import RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile
from pipeline.rendering.conditions.base import Condition
from pipeline.rendering.families import Conditioning


class ImageAdapter(Condition):
    """A UNet's IP-Adapter, if it has one. Its scale is one for a whole batch."""

    def __init__(self, pipe: Any, models: Models, profile: DiffusersProfile) -> None:
        unet: Any = getattr(pipe, "unet", None)
        found: Any = getattr(unet, "encoder_hid_proj", None)
        self.present = isinstance(found, MultiIPAdapterImageProjection)
        if self.present:
            self._device = torch.device(pipe._execution_device)
            self._width: int = found.image_projection_layers[0].image_embeds.in_features
            processors = unet.attn_processors.values()
            self._processors = [each for each in processors if hasattr(each, "scale")]

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
        embeddings = self.embeddings(request).to(self._device)
        return {"images": torch.zeros_like(embeddings) if unconditional else embeddings}

    def embeddings(self, request: RenderRequest) -> Tensor:
        """[images, width] in float32; one row of zeros for a request without references."""
        return (
            torch.tensor(request.references) if request.references else torch.zeros(1, self._width)
        )

    def applied(
        self, requests: Sequence[RenderRequest], steps: Sequence[int]
    ) -> AbstractContextManager[object]:
        """Set the weight of the images in the next call; 0 ignores them."""
        if self.present:
            for processor in self._processors:
                processor.scale = [requests[0].reference_scale]
        return nullcontext()
