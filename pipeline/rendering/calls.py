"""What differs between families of models: the arguments that their pipelines take."""

from typing import Any

from pipeline.job import Order

SCHNELL_TOKENS = 256
"""The longest prompt, in T5 tokens, that FLUX's distilled model was trained on."""


def guided(order: Order) -> bool:
    """Whether classifier-free guidance is on."""
    return order.guidance > 1


def hears_negative(pipe: Any, order: Order) -> bool:
    """Whether a negative prompt has an effect."""
    return guided(order) and not distilled(pipe)


def unheard(order: Order) -> str:
    """What is said of a negative prompt that changes nothing."""
    return f"the negative prompt has no effect with this model at guidance {order.guidance:g}"


def distilled(pipe: Any) -> bool:
    """Whether it is FLUX's distilled model, which has no guidance of any kind."""
    flux = type(pipe).__name__.startswith("Flux")
    return flux and not pipe.transformer.config.guidance_embeds


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
    if distilled(pipe):
        return {"max_sequence_length": SCHNELL_TOKENS}
    if order.negative and guided(order):
        return {"guidance_scale": 1.0, "true_cfg_scale": order.guidance}
    return {}
