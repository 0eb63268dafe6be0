"""Qwen-Image: a transformer over packed latents, trained by flow matching, with a language model as
its text encoder and a video model's VAE.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pipeline.errors import ModelError
from pipeline.job import RenderRequest
from pipeline.rendering.families.base import Conditioning, check_multiple, encoded, padded
from pipeline.rendering.families.flux import TRAIN_TIMESTEPS, Flux
from pipeline.rendering.prompts import Prompt, as_it_stands
from pipeline.rendering.sampler import Unsupported

TOKENS = 512
EMPTY = " "
"""The negative text of a row without one, as the model was trained."""


class QwenImage(Flux):
    """The Family port over a QwenImagePipeline. Latents are packed as FLUX's are."""

    keeps_norm = gives_sigmas = True

    def __init__(self, pipe: Any, preview_decoder: Any) -> None:
        super().__init__(pipe, preview_decoder)
        if self._guidance:
            raise Unsupported("a Qwen-Image with its guidance built in")
        if preview_decoder is not pipe.vae:
            raise ModelError("Qwen-Image has no small decoder: let renderer.previews be empty")

    def check(self, request: RenderRequest) -> None:
        """Check that the sides are multiples of a packed token."""
        check_multiple(request, self._token)

    def guides(self, request: RenderRequest) -> bool:
        """True above guidance 1."""
        return request.guidance > 1

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """The hidden states of each text's own tokens, [tokens, width]."""
        states, mask = self._pipe.encode_prompt(
            [prompt.plain for prompt in prompts],
            device=self.device,
            max_sequence_length=TOKENS,
        )
        if mask is None:
            return [{"text": each} for each in states]
        return [{"text": each[own]} for each, own in zip(states, mask.bool(), strict=True)]

    def encode_negative(self, prompt: Prompt) -> Conditioning:
        """The prompt's own conditioning; that of a blank for an empty one."""
        return self.encode([prompt] if prompt.plain else as_it_stands([EMPTY]))[0]

    def encode_image(self, image: Tensor) -> Tensor:
        """One call of the encoder, with the image as a video of one frame."""
        return encoded(self._pipe.vae, image[:, None]).squeeze(2)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        texts: Sequence[Conditioning],
        requests: Sequence[RenderRequest],
    ) -> Tensor:
        """One call of the transformer."""
        transformer = self._pipe.transformer
        states, mask = padded(texts, "text")
        shape = (1, self._rows(requests[0]), self._columns(requests[0]))
        output: Tensor = transformer(
            hidden_states=x.to(transformer.dtype),
            timestep=timesteps.to(transformer.dtype) / TRAIN_TIMESTEPS,
            encoder_hidden_states=states,
            encoder_hidden_states_mask=mask,
            img_shapes=[[shape]] * len(x),
            return_dict=False,
        )[0]
        return output.float()

    def _scaled(self, plain: Tensor) -> Tensor:
        mean, deviation = self._spread(plain)
        return (plain - mean) / deviation

    def _unscaled_and_decoded(self, vae: Any, x: Tensor) -> Tensor:
        mean, deviation = self._spread(x)
        frames = (x * deviation + mean).unsqueeze(2).to(vae.dtype)
        decoded: Tensor = vae.decode(frames, return_dict=False)[0]
        return decoded.squeeze(2)

    def _spread(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel of the VAE's latents."""
        config = self._pipe.vae.config
        mean, deviation = x.new_tensor(config.latents_mean), x.new_tensor(config.latents_std)
        return mean.view(-1, 1, 1), deviation.view(-1, 1, 1)
