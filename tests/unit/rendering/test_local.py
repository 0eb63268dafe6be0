"""Who renders what on this device."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.job import Order
from pipeline.models import Models
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer, local_renderer
from pipeline.settings import RendererProfile
from tests import small_models


def order(**changes: object) -> Order:
    settings = {"prompt": "a", "negative": "", "width": 32, "height": 32, "steps": 2}
    return Order.model_validate(settings | {"guidance": 3.0, "seeds": (1,)} | changes)


@pytest.mark.parametrize(
    ("scheduler", "renderer"),
    [("HeunDiscreteScheduler", DiffusersRenderer), ("EulerDiscreteScheduler", EngineRenderer)],
)
def test_the_reference_serves_the_schedulers_that_the_engine_does_not(
    tmp_path: Path, scheduler: str, renderer: type
) -> None:
    small_models.save("sd", tmp_path / "model")
    profile = RendererProfile(kind="diffusers", model="model", scheduler=scheduler)
    found = local_renderer(Models(tmp_path, "cpu"), profile)
    assert type(found) is renderer
    assert found.render(order())[0].shape == (32, 32, 3)


def test_the_reference_serves_the_orders_that_the_engine_does_not(tmp_path: Path) -> None:
    """FLUX with a negative prompt has guidance of another kind."""
    small_models.save("flux-dev", tmp_path / "model")
    models, profile = Models(tmp_path, "cpu"), RendererProfile(kind="diffusers", model="model")
    reference = DiffusersRenderer(models, profile)
    engine = EngineRenderer(models, profile, reference)
    asked = order(negative="blurred")
    assert np.array_equal(engine.render(asked)[0], reference.render(asked)[0])
    assert np.abs(engine.render(order())[0] - engine.render(asked)[0]).max() > 0
