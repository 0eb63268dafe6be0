"""Stable Diffusion 3 and 3.5: a transformer trained by flow matching, with three text encoders."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pipeline.job import RenderRequest
from pipeline.rendering.families.base import (
    Conditioning,
    check_multiple,
    stacked,
)
from pipeline.rendering.families.sd import StableDiffusion
from pipeline.rendering.sampler import SamplerTable, sampler_table, shift_of


class StableDiffusion3(StableDiffusion):
    """The Family port over a StableDiffusion3Pipeline."""

    def check(self, request: RenderRequest) -> None:
        """Check that the sides are multiples of a patch."""
        check_multiple(request, self._patch)

    def sampler_table(self, steps: int, width: int, height: int, first: int = 0) -> SamplerTable:
        """The table of the pipeline's scheduler, shifted for the image's size where configured."""
        scheduler = self._pipe.scheduler
        shift: dict[str, Any] = {}
        if scheduler.config.get("use_dynamic_shifting"):
            tokens = (height // self._patch) * (width // self._patch)
            shift["mu"] = shift_of(scheduler, tokens)
        return sampler_table(scheduler, steps, first, **shift)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        texts: Sequence[Conditioning],
        requests: Sequence[RenderRequest],
    ) -> Tensor:
        """One call of the transformer."""
        output: Tensor = self._model(
            hidden_states=x.to(self._model.dtype),
            timestep=timesteps,
            encoder_hidden_states=stacked(texts, "text"),
            pooled_projections=stacked(texts, "pooled"),
            return_dict=False,
        )[0]
        return output.float()

    @property
    def _model(self) -> Any:
        return self._pipe.transformer

    @property
    def _patch(self) -> int:
        """Side of a patch, in pixels."""
        patch: int = self._scale * self._pipe.patch_size
        return patch

    def _unscaled(self, x: Tensor, config: Any) -> Tensor:
        shift: float = config.shift_factor
        return super()._unscaled(x, config) + shift

    def _scaled(self, x: Tensor, config: Any) -> Tensor:
        return super()._scaled(x - config.shift_factor, config)
