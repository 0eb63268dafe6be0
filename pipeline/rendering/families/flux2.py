"""FLUX.2: a transformer over packed latents, trained by flow matching, with a language model as its
text encoder. Dev has its guidance built in; Klein is guided by a second prediction, or distilled.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.job import RenderRequest
from pipeline.rendering.families.base import Conditioning, check_multiple, draw, stacked
from pipeline.rendering.families.flux import TRAIN_TIMESTEPS, Flux
from pipeline.rendering.prompts import Prompt
from pipeline.rendering.sampler import Unsupported

TOKENS = 512


class Flux2(Flux):
    """The Family port over a Flux2Pipeline. Latents are packed as FLUX.1's are, and normalized by
    their place in a token too.
    """

    def __init__(self, pipe: Any, preview_decoder: Any) -> None:
        super().__init__(pipe, preview_decoder)
        norm = pipe.vae.bn
        self._mean: Tensor = norm.running_mean.float()
        self._deviation: Tensor = (norm.running_var.float() + pipe.vae.config.batch_norm_eps).sqrt()

    def check(self, request: RenderRequest) -> None:
        """Check the sides: multiples of a packed token. Anything but a prompt is Unsupported."""
        check_multiple(request, self._token)
        if request.image:
            raise Unsupported("a start from an image for FLUX.2")
        if request.negative and request.guidance > 1:
            raise Unsupported("a negative prompt for FLUX.2")

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """The hidden states of three layers, side by side, [TOKENS, 3 · width]."""
        states, _ = self._pipe.encode_prompt(
            [prompt.plain for prompt in prompts],
            device=self.device,
            max_sequence_length=TOKENS,
        )
        return [{"text": state} for state in states]

    def _shift(self, tokens: int, steps: int) -> float:
        # imported late, because it takes seconds: here a pipeline has done so
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        mu: float = compute_empirical_mu(tokens, steps)
        return mu

    def noise(self, request: RenderRequest, generator: torch.Generator) -> Tensor:
        """[tokens, channels], drawn with the channels first, as diffusers does."""
        channels = self._pipe.transformer.config.in_channels
        shape = (channels, self._rows(request), self._columns(request))
        return draw(shape, generator, self.device).flatten(1).T.contiguous()

    def latents(self, encoded: Tensor, request: RenderRequest) -> Tensor:
        """Packed, then normalized."""
        return (self._packed(encoded, request) - self._mean) / self._deviation

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        texts: Sequence[Conditioning],
        requests: Sequence[RenderRequest],
    ) -> Tensor:
        """One call of the transformer."""
        transformer, states = self._pipe.transformer, stacked(texts, "text")
        # [tokens, 4]: 0, row and column of an image's token, place of a text's token
        rows, columns = self._rows(requests[0]), self._columns(requests[0])
        places = torch.zeros(rows, columns, 4, device=self.device)
        places[..., 1] = torch.arange(rows, device=self.device)[:, None]
        places[..., 2] = torch.arange(columns, device=self.device)[None, :]
        words = torch.zeros(states.shape[1], 4, device=self.device)
        words[:, 3] = torch.arange(len(words), device=self.device)
        output: Tensor = transformer(
            hidden_states=x.to(transformer.dtype),
            timestep=timesteps.to(transformer.dtype) / TRAIN_TIMESTEPS,
            guidance=self._scales(requests),
            encoder_hidden_states=states,
            txt_ids=words,
            img_ids=places.view(-1, 4),
            return_dict=False,
        )[0]
        return output.float()

    def _scales(self, requests: Sequence[RenderRequest]) -> Tensor | None:
        """The guidance that the model is given."""
        return torch.tensor([request.guidance for request in requests], device=self.device)

    def _decoded(self, vae: Any, x: Tensor, request: RenderRequest) -> Tensor:
        return super()._decoded(vae, x * self._deviation + self._mean, request)

    def _unscaled_and_decoded(self, vae: Any, x: Tensor) -> Tensor:
        decoded: Tensor = vae.decode(x.to(vae.dtype), return_dict=False)[0]
        return decoded


class Flux2Klein(Flux2):
    """The Family port over a Flux2KleinPipeline."""

    def check(self, request: RenderRequest) -> None:
        """The checks of FLUX.2 dev. Raises Unsupported for guidance of a distilled model."""
        super().check(request)
        if self._pipe.config["is_distilled"] and request.guidance > 1:
            raise Unsupported("guidance for a distilled FLUX.2 Klein")

    def guides(self, request: RenderRequest) -> bool:
        """True above guidance 1."""
        return request.guidance > 1

    def _scales(self, requests: Sequence[RenderRequest]) -> None:
        return None
