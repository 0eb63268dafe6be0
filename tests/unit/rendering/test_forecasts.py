"""Predictions that go on in a straight line: which calls they leave out, and what they cost."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import JobError, ModelError
from pipeline.job import LoadedImage, RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.forecasts import predicted_calls
from pipeline.rendering.local import EngineRenderer, local_renderer
from tests.harness import small_models


def marks(settings: str, every: int) -> str:
    return "".join("x" if each else "." for each in predicted_calls(settings, every))


def test_the_first_two_calls_of_equal_settings_and_the_last_are_predicted() -> None:
    assert marks("aaaaaaa", 1) == "xxxxxxx"
    assert marks("aaaaaaa", 2) == "xxx.x.x"
    assert marks("aaaaaaaa", 2) == "xx.x.x.x"
    assert marks("aaaaaaaa", 3) == "xx..x..x"
    assert marks("aaaabbbbb", 4) == "xx..xx..x"
    assert marks("a", 3) == "x"


def renderer(root: Path, **settings: Any) -> EngineRenderer:
    profile = DiffusersProfile.model_validate({"model": "model"} | settings)
    models = Models(root, "cpu")
    return EngineRenderer(models, profile, DiffusersRenderer(models, profile))


def request(steps: int = 9, **changes: Any) -> RenderRequest:
    asked = {
        "prompt": "a cup", "negative": "", "width": 64, "height": 64, "steps": steps,
        "guidance": 3.0, "seeds": (5,),
    }  # fmt: skip
    return RenderRequest.model_validate(asked | changes)


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_calls_that_are_left_out_cost_nothing_whatever_shares_the_batch(
    tmp_path: Path, family: str
) -> None:
    small_models.save(family, tmp_path / "model")
    whole = renderer(tmp_path).render(request())[0]
    engine = renderer(tmp_path, predict_every=2)
    alone = engine.render(request())[0]
    branches = 2 if family == "sd" else 1
    assert engine.engine.stats.rows == branches * len("xxx.x.x.x".replace(".", ""))
    others = [request(steps, seeds=(6, 7)) for steps in (3, 6, 9)]
    with ThreadPoolExecutor(4) as pool:
        mixed = next(iter(pool.map(engine.render, [request(), *others])))[0]
    assert alone is not None
    assert mixed is not None
    assert np.abs(alone - mixed).max() <= 2 / 255
    assert whole is not None
    assert 0 < np.abs(alone - whole).max() < 0.2


def test_a_window_of_guidance_and_an_image_begin_a_line_anew(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "model")
    engine = renderer(tmp_path, predict_every=3, guided_until=0.5)
    engine.render(request(10))
    guided, free = marks("aaaaabbbbb", 3)[:5], marks("aaaaabbbbb", 3)[5:]
    assert (guided, free) == ("xx.x.", "xx..x")
    assert engine.engine.stats.rows == 2 * guided.count("x") + free.count("x")
    before = engine.engine.stats.rows
    image = LoadedImage("a", np.full((64, 64, 3), 0.5, np.float32))
    engine.render(request(10, guidance=1.0, image=image, strength=0.5))
    assert engine.engine.stats.rows - before == marks("bbbbb", 3).count("x")


def test_a_straight_line_is_forecast_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_models.save("flux", tmp_path / "model")

    def linear(_self: object, x: torch.Tensor, timesteps: torch.Tensor, *_: object) -> torch.Tensor:
        return timesteps.view(-1, 1, 1) * torch.ones_like(x) / 1000

    images = []
    for every in (1, 3):
        engine = renderer(tmp_path, predict_every=every)
        monkeypatch.setattr(type(engine.engine._family), "predict", linear)
        images.append(engine.render(request())[0])
    assert np.abs(images[0] - images[1]).max() < 1e-4


def test_what_cannot_leave_calls_out_is_refused(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "model")
    heun = {"scheduler": "HeunDiscreteScheduler", "predict_every": 2}
    with pytest.raises(JobError, match="calls the model once in a step"):
        renderer(tmp_path, **heun).render(request())
    unknown = {"model": "model", "scheduler": "PNDMScheduler", "predict_every": 2}
    with pytest.raises(ModelError, match=r"renderer\.predict_every is for the engine"):
        local_renderer(Models(tmp_path, "cpu"), DiffusersProfile.model_validate(unknown))
