"""How far the noise levels of flow matching move with an image's size."""

from typing import Any


def shift_of(scheduler: Any, tokens: int) -> float:
    """`mu` of a scheduler for so many tokens: linear between the sizes that it was trained on.

    Esser et al. 2024, section 5.3.2, https://arxiv.org/abs/2403.03206.
    """
    config = scheduler.config
    least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return float(low + (tokens - least) * (high - low) / (most - least))
