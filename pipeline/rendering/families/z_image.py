"""Z-Image: one stream of image and text tokens, trained by flow matching; texts of any length."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.job import RenderRequest
from pipeline.rendering.families.base import Conditioning
from pipeline.rendering.families.sd3 import StableDiffusion3
from pipeline.rendering.prompts import Prompt
from pipeline.rendering.sampler import SamplerTable, sampler_table, shift_of

TOKENS = 512
TRAIN_TIMESTEPS = 1000
PATCH = 2


class ZImage(StableDiffusion3):
    """The Family port over a ZImagePipeline. Its times run from 0 to 1, and its output points from
    noise to image.
    """

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """The hidden states of each text's own tokens, [tokens, width]."""
        states, _ = self._pipe.encode_prompt(
            [prompt.plain for prompt in prompts],
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=TOKENS,
        )
        return [{"text": state} for state in states]

    def sampler_table(self, steps: int, width: int, height: int, first: int = 0) -> SamplerTable:
        """The table of the pipeline's scheduler, shifted for the image's size."""
        tokens = (height // self._patch) * (width // self._patch)
        mu = shift_of(self._pipe.scheduler, tokens)
        sigmas = np.linspace(1.0, 1 / steps, steps)
        return sampler_table(self._pipe.scheduler, steps, first, mu=mu, sigmas=sigmas)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        texts: Sequence[Conditioning],
        requests: Sequence[RenderRequest],
    ) -> Tensor:
        """One call of the transformer, which pads the texts itself."""
        frames = x.to(self._model.dtype).unsqueeze(2)
        output: list[Tensor] = self._model(
            list(frames),
            1 - timesteps / TRAIN_TIMESTEPS,
            [text["text"] for text in texts],
            return_dict=False,
        )[0]
        return -torch.stack(output).squeeze(2).float()

    @property
    def _patch(self) -> int:
        """Side of a patch, in pixels."""
        return self._scale * PATCH
