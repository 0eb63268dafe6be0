"""What differs between families of models: the arguments that their pipelines take."""

from typing import Any

from pipeline.job import Order

SCHNELL_TOKENS = 256
"""The longest prompt, in T5 tokens, that FLUX's distilled model was trained on."""


def guided(order: Order) -> bool:
    """Whether classifier-free guidance is on: only then has a negative prompt an effect."""
    return order.guidance > 1


def call_settings(pipe: Any, order: Order) -> dict[str, Any]:
    """The arguments of a pipeline's call that an order decides, besides its prompts and seeds."""
    settings: dict[str, Any] = {
        "width": order.width,
        "height": order.height,
        "num_inference_steps": order.steps,
        "guidance_scale": order.guidance,
    }
    if type(pipe).__name__.startswith("Flux"):
        settings |= _flux(pipe, order)
    return settings


def _flux(pipe: Any, order: Order) -> dict[str, Any]:
    """FLUX has guidance built in; a negative prompt needs the real one, at twice the cost."""
    if not pipe.transformer.config.guidance_embeds:
        return {"max_sequence_length": SCHNELL_TOKENS}
    if order.negative and guided(order):
        return {"guidance_scale": 1.0, "true_cfg_scale": order.guidance}
    return {}
