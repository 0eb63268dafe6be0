"""Ways to run a diffusion model in less of a device's memory than its weights take."""

from typing import Any

import torch

from pipeline.errors import ModelError
from pipeline.models.diffusion import denoiser_of
from pipeline.profile import DiffusersProfile


def shrink(pipe: Any, profile: DiffusersProfile) -> None:
    """Store the denoiser's weights as 8-bit floats, which each layer converts to the profile's
    precision while it calculates, and let the VAE work in tiles, as the profile says.

    Raises ModelError for a VAE that cannot.
    """
    if profile.memory.weights == "float8":
        denoiser_of(pipe).enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=getattr(torch, profile.dtype)
        )
    if profile.memory.tiling:
        try:
            pipe.vae.enable_tiling()
        except (AttributeError, NotImplementedError) as error:
            raise ModelError(f"the VAE of {type(pipe).__name__} cannot work in tiles") from error


def place(pipe: Any, device: str, *, offloaded: bool) -> None:
    """Move a pipeline to the device; or, `offloaded`, its VAE alone, and each other layer for the
    time that it takes.
    """
    if not offloaded:
        pipe.to(device)
        return
    # a stream loads the next layer while one calculates
    stream = torch.device(device).type == "cuda"
    pipe.enable_group_offload(
        torch.device(device),
        offload_type="leaf_level",
        use_stream=stream,
        exclude_modules=["vae"],
    )
