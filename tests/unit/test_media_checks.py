"""What is no image is told apart before a judge sees it."""

import numpy as np
import pytest

from pipeline.job import ImageArray
from pipeline.media.checks import problem


def image() -> ImageArray:
    return np.random.default_rng(0).random((32, 32, 3), np.float32)


def test_an_image_is_fine() -> None:
    assert problem(image()) == ""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_spoils_an_image(value: float) -> None:
    spoiled = image()
    spoiled[3, 4, 1] = value
    assert problem(spoiled) == "it holds values that are not finite"


def test_an_all_black_image_is_invalid() -> None:
    assert problem(np.zeros((32, 32, 3), np.float32)) == "it is all black"
    assert problem(np.full((32, 32, 3), 1 / 300, np.float32)) == "it is all black"


@pytest.mark.parametrize("level", [0.02, 0.5, 1.0])
def test_one_colour_is_blank_even_with_a_speckle(level: float) -> None:
    blank = np.full((64, 64, 3), level, np.float32)
    assert problem(blank) == "it is blank"
    blank[:2, :2] = 1 - level
    assert problem(blank) == "it is blank"


def test_shapes_in_any_single_channel_are_an_image() -> None:
    for channel in range(3):
        drawn = np.full((64, 64, 3), 0.5, np.float32)
        drawn[20:30, 20:30, channel] = 0.6
        assert problem(drawn) == ""


def test_a_small_shape_is_an_image() -> None:
    drawn = np.full((64, 64, 3), 0.98, np.float32)
    drawn[30:36, 30:36] = 0.1
    assert problem(drawn) == ""


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 4), (0, 32, 3), (1, 32, 32, 3)])
def test_another_shape_is_named(shape: tuple[int, ...]) -> None:
    assert "not [" in problem(np.ones(shape, np.float32))
