"""Predictions left out (`renderer.predict_every`) against fewer steps: differences and speed.

The same prompts and seeds are rendered in 20 steps with a prediction in each (`whole`), in one of
two and one of three, and in fewer steps with as many predictions. `difference_N` is the mean
difference of the images from the whole ones, `fewer_steps_N` that of the fewer steps, `calls_N`
the predictions of each image; `speed_N` how many times as many images a second as whole.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.common import arguments, show
from examples.shapes import world
from pipeline.job import RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile, Profile
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.forecasts import predicted_calls
from pipeline.rendering.local import EngineRenderer
from pipeline.settings import SHIPPED_MODELS

STEPS, AT_ONCE = 20, 32


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--scheduler", default="", help="a class; empty: the model's own")
    parser.add_argument("--seed", type=int, default=90_003, help="no training used it")
    given = parser.parse_args()
    figures = measured(given.images, given.scheduler, given.seed)
    show("predictions left out", figures)
    if given.json:
        print(json.dumps(figures))


def measured(count: int, scheduler: str, seed: int) -> dict[str, Any]:
    """The figures of so many images."""
    rng = np.random.default_rng(seed)
    prompts = [world.prompt(world.sample_scene(rng)) for _ in range(count)]
    whole, seconds = _rendered(prompts, scheduler, STEPS, 1)
    figures: dict[str, Any] = {"images": count}
    for every in (2, 3):
        calls = sum(predicted_calls([None] * STEPS, every))
        images, taken = _rendered(prompts, scheduler, STEPS, every)
        fewer, _ = _rendered(prompts, scheduler, calls, 1)
        figures |= {
            f"calls_{every}": calls,
            f"difference_{every}": float(np.abs(images - whole).mean()),
            f"fewer_steps_{every}": float(np.abs(fewer - whole).mean()),
            f"speed_{every}": seconds / taken,
        }
    return figures


def _rendered(
    prompts: list[str], scheduler: str, steps: int, every: int
) -> tuple[np.ndarray[Any, Any], float]:
    """The images, and the seconds that they took."""
    own = Profile.load("shapes").renderer
    assert isinstance(own, DiffusersProfile)
    changes = {"scheduler": scheduler, "predict_every": every, "image_adapter": ""}
    profile = own.model_copy(update=changes)
    models = Models(SHIPPED_MODELS)
    renderer = EngineRenderer(models, profile, DiffusersRenderer(models, profile))

    def render(numbered: tuple[int, str]) -> Any:
        number, prompt = numbered
        request = RenderRequest(
            prompt=prompt, negative="", width=64, height=64, steps=steps, guidance=2.5,
            seeds=(number,),
        )  # fmt: skip
        return renderer.render(request)[0]

    render((0, prompts[0]))
    started = perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        images = np.stack(list(pool.map(render, enumerate(prompts))))
    seconds = perf_counter() - started
    renderer.close()
    return images, seconds


if __name__ == "__main__":
    main()
