"""The image adapter of a pipeline: embeddings of images as conditions beside the prompt.

Ye et al., "IP-Adapter" (2023), https://arxiv.org/abs/2308.06721. Each image adds tokens to attend
to, as the neighbours do in Blattmann et al., "Retrieval-Augmented Diffusion Models" (2022),
https://arxiv.org/abs/2204.11824.
"""

from typing import Any, Self

import torch
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from torch import Tensor

from pipeline.errors import JobError
from pipeline.job import RenderRequest


class Adapter:
    """A UNet's IP-Adapter. Its scale is one for a whole batch."""

    def __init__(self, unet: Any, projection: Any) -> None:
        self._width: int = projection.image_embeds.in_features
        processors = unet.attn_processors.values()
        self._processors = [each for each in processors if hasattr(each, "scale")]

    @classmethod
    def of(cls, pipe: Any) -> Self | None:
        """The adapter of a pipeline; None where it has none."""
        unet = getattr(pipe, "unet", None)
        found = getattr(unet, "encoder_hid_proj", None)
        if not isinstance(found, MultiIPAdapterImageProjection):
            return None
        return cls(unet, found.image_projection_layers[0])

    def check(self, request: RenderRequest) -> None:
        """Raise JobError for embeddings of another width, which another model computed."""
        if others := {len(embedding) for embedding in request.references} - {self._width}:
            raise JobError(
                f"the image adapter takes embeddings of {self._width} numbers, "
                f"not of {', '.join(map(str, sorted(others)))}: "
                "`retrieval.image_encoder` has to be its encoder"
            )

    def embeddings(self, request: RenderRequest) -> Tensor:
        """[images, width] in float32; one row of zeros for a request without references."""
        return (
            torch.tensor(request.references) if request.references else torch.zeros(1, self._width)
        )

    def set_scale(self, scale: float) -> None:
        """Set the weight of the images in the next call; 0 ignores them."""
        for processor in self._processors:
            processor.scale = [scale]
