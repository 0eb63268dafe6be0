"""The image adapter of a pipeline: images beside the prompt, by their embeddings.

Ye et al., "IP-Adapter" (2023), https://arxiv.org/abs/2308.06721. Several images give several
times as many tokens to attend to, as in Blattmann et al., "Retrieval-Augmented Diffusion Models"
(2022), https://arxiv.org/abs/2204.11824, where neighbours stand in for a part of the weights.
"""

from typing import Any, Self

import torch
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from torch import Tensor

from pipeline.errors import JobError
from pipeline.job import RenderRequest


class Adapter:
    """What a UNet has learned beside its text. Its scale is one for a whole batch."""

    def __init__(self, unet: Any, projection: Any) -> None:
        self._width: int = projection.image_embeds.in_features
        processors = unet.attn_processors.values()
        self._processors = [each for each in processors if hasattr(each, "scale")]

    @classmethod
    def of(cls, pipe: Any) -> Self | None:
        """That of a pipeline; None where it has none."""
        unet = getattr(pipe, "unet", None)
        found = getattr(unet, "encoder_hid_proj", None)
        if not isinstance(found, MultiIPAdapterImageProjection):
            return None
        return cls(unet, found.image_projection_layers[0])

    def check(self, request: RenderRequest) -> None:
        """Raises JobError for embeddings that another model made."""
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
        """How much the images of the next call count; at 0 it is as if there were none."""
        for processor in self._processors:
            processor.scale = [scale]
